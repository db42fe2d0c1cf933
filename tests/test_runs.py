"""The loop trains what it is given, repeats itself, and records what happened."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pgest.runs import (
    Batch,
    Config,
    Evaluation,
    Figures,
    History,
    PolicyGradient,
    configure,
    run,
    train,
)
from pgest.runs.loop import _rate
from pgest.runs.plots import save_plot
from pgest.seq2seq import GRUSeq2Seq, Sequences

pytest.importorskip("tqdm")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads only wait for each other on models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Copy:
    """Say the source's only letter and stop: 1 where the sample does, else 0."""

    eos: int = 1
    max_length: int = 4
    name: str = "copy"
    model: GRUSeq2Seq = field(default_factory=lambda: GRUSeq2Seq(6, 6, 16, bos=0))
    panels: dict[str, list[str]] = field(default_factory=lambda: {"reward": ["reward", "exact"]})
    config: Config = field(default_factory=Config)

    @property
    def learner(self) -> PolicyGradient:
        return PolicyGradient(self, self.config)

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        source = torch.randint(2, 6, (size, 1), generator=generator)
        return Batch(source, torch.ones(size, dtype=torch.int64), source[:, 0])

    def reward(self, draw: Sequences, batch: Batch) -> tuple[Tensor, Figures]:
        right = (draw.tokens[..., 0] == batch.references) & (draw.mask.sum(-1) == 2)
        right = right & (draw.tokens[..., -1] == self.eos)
        return right.float(), {"right": right.float().mean().item()}

    def evaluate(self) -> Figures:
        generator = torch.Generator().manual_seed(5)
        batch = self.batch(32, generator)
        state = self.model.encode(batch.source, batch.lengths)
        tokens = torch.stack([batch.references, torch.full((32,), self.eos)], dim=-1)
        logits = self.model(tokens, torch.ones(32, 2, dtype=torch.bool), state)
        return {"exact": logits[:, 0].softmax(-1).gather(-1, tokens[:, :1]).mean().item()}

    def test(self) -> Evaluation:
        figures = self.evaluate()
        return Evaluation(figures, {"exact": 0.1})

    def report(self, before: Evaluation, after: Evaluation) -> str:
        return "learned to copy"

    def save(self, folder: Path) -> None:
        torch.save(self.model.state_dict(), folder / "weights.pt")


def copy_task(**changes: object) -> Copy:
    torch.manual_seed(0)
    settings = {"steps": 150, "batch_size": 32, "learning_rate": 1e-2, "warmup": 5, **changes}
    return Copy(config=Config(**settings))  # type: ignore[arg-type]


def test_a_policy_learns_a_task_whose_answer_is_known() -> None:
    task = copy_task()
    history = train(task.learner, task.config, progress=False)
    assert history.evaluations[0]["exact"] < 0.4
    assert history.evaluations[-1]["exact"] > 0.95
    assert history.evaluations[-1]["step"] == 150
    assert [row["step"] for row in history.updates] == list(range(150))
    assert {"reward", "entropy", "tied groups", "gradient norm", "right"} <= set(history.updates[0])
    assert history.updates[-1]["entropy"] < history.updates[0]["entropy"]


def test_the_seed_repeats_a_run() -> None:
    def final(seed: int) -> list[Figures]:
        task = copy_task(steps=5, seed=seed)
        return train(task.learner, task.config, progress=False).updates

    assert final(3) == final(3)
    assert final(3) != final(4)


@pytest.mark.parametrize("entropy_coef", [0.0, 0.5])
def test_the_loss_has_the_gradient_of_the_expected_gain(entropy_coef: float) -> None:
    """With many samples the loss's gradient is the exact one, got by enumerating sequences."""
    task = copy_task(batch_size=3, num_samples=20_000, entropy_coef=entropy_coef)
    task.max_length = 2
    loss, figures = task.learner.loss(torch.Generator().manual_seed(1))
    parameters = list(task.model.parameters())
    found = torch.autograd.grad(loss, parameters)
    batch = task.batch(3, torch.Generator().manual_seed(1))
    (state,) = task.model.encode(batch.source, batch.lengths)
    pairs = [(a, b) for a in range(6) for b in range(6) if a != task.eos]
    every = torch.tensor([(task.eos, task.eos), *pairs])  # the first is of length 1
    tokens = every.repeat(3, 1)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:: len(every), 1] = False
    logits = task.model(tokens, mask, (state.repeat_interleave(len(every), 0),))
    logp = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    logp = torch.where(mask, logp, 0.0).sum(-1).view(3, -1)
    assert logp.exp().sum(-1).tolist() == pytest.approx([1, 1, 1])
    right = (every[:, 0] == batch.references.unsqueeze(-1)) & (every[:, 1] == task.eos)
    expected = (logp.exp() * right).sum(-1).mean()
    entropy = -(logp.exp() * logp).sum(-1).mean()
    exact = torch.autograd.grad(-expected - entropy_coef * entropy, parameters)
    a, b = (torch.cat([g.flatten() for g in gradients]) for gradients in (found, exact))
    assert torch.cosine_similarity(a, b, dim=0) > 0.99
    assert (a @ b / (b @ b)).item() == pytest.approx(1, abs=0.05)
    assert figures["reward"] == pytest.approx(expected.item(), abs=0.01)


def test_the_rate_rises_and_falls() -> None:
    config = Config(steps=100, warmup=9)
    rates = [_rate(step, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == 0


def test_a_broken_gradient_stops_the_run() -> None:
    class Broken:
        model = nn.Linear(1, 1)

        def loss(self, generator: torch.Generator) -> tuple[Tensor, Figures]:
            return self.model.weight.sum() * float("nan"), {}

        def evaluate(self) -> Figures:
            return {}

    weight = Broken.model.weight.detach().clone()
    with pytest.raises(FloatingPointError, match="update 0: the gradient's norm is nan"):
        train(Broken(), Config(steps=1), progress=False)
    assert torch.equal(Broken.model.weight, weight)


def test_a_run_leaves_record_plot_report_and_weights(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    task = copy_task(steps=4, evaluate_every=2, output=tmp_path)
    folder = run(task, task.config, progress=False)
    assert {f.name for f in folder.iterdir()} == {
        "plot.png",
        "record.json",
        "report.txt",
        "weights.pt",
    }
    record = json.loads((folder / "record.json").read_text())
    assert record["config"]["steps"] == 4
    assert record["environment"]["packages"]["torch"] == torch.__version__
    assert [row["step"] for row in record["history"]["evaluations"]] == [0, 2, 4]
    assert record["before"] == {
        "figures": {"exact": record["history"]["evaluations"][0]["exact"]},
        "standard errors": {"exact": 0.1},
    }
    assert (folder / "plot.png").read_bytes()[:4] == b"\x89PNG"
    assert "learned to copy" in (folder / "report.txt").read_text()
    assert run(task, task.config, progress=False) != folder


def test_an_unknown_figure_is_named(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="panels: the history has no figure 'nope'"):
        save_plot(History(), {"a": ["nope"]}, tmp_path / "plot.png", "a")


def test_flags_override_the_preset(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tyro")
    presets = {"demo": Config(steps=7), "long": Config(steps=70, seed=2)}
    assert configure([], presets, "x") == presets["demo"]
    assert configure(["--preset", "long"], presets, "x") == presets["long"]
    chosen = configure(["--seed", "9", "--preset=long"], presets, "x")
    assert (chosen.steps, chosen.seed) == (70, 9)
    for wrong in (["--preset", "none"], ["--stepz", "1"], ["--steps", "0"]):
        with pytest.raises(SystemExit):
            configure(wrong, presets, "x")
    assert "steps must be at least 1, got 0" in capsys.readouterr().err


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        Config(steps=0)
    with pytest.raises(ValueError, match="learning_rate must be positive, got -1"):
        Config(learning_rate=-1)
    with pytest.raises(ValueError, match=r"entropy_coef must not be negative, got -0\.1"):
        Config(entropy_coef=-0.1)
    with pytest.raises(ValueError, match=r"num_samples must be at least 2, .* got 1"):
        PolicyGradient(copy_task(), Config(num_samples=1))
