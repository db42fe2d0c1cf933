"""The loop trains what it is given, repeats itself, and records what happened."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import Copy, copy_task

from pgest.runs import Clock, Config, Evaluation, Figures, History, Metric, run, train
from pgest.runs.logs import summary
from pgest.runs.loop import BEST, rate
from pgest.runs.plots import save_plot

for package in ("tqdm", "safetensors"):
    pytest.importorskip(package)
pytestmark = pytest.mark.usefixtures("one_thread")


def trained(task: Copy, folder: Path) -> History:
    return train(task.learner, task.config, folder, bar=False)


def test_a_policy_learns_a_task_whose_answer_is_known(tmp_path: Path) -> None:
    task = copy_task()
    history = trained(task, tmp_path)
    assert history.evaluations[0]["exact"] < 0.4
    assert history.evaluations[-1]["exact"] > 0.95
    assert [row["step"] for row in history.evaluations] == [0, 50, 100, 150]
    assert [row["step"] for row in history.updates] == list(range(150))
    assert {"reward", "entropy", "tied groups", "gradient norm", "right"} <= set(history.updates[0])
    assert history.updates[-1]["entropy"] < history.updates[0]["entropy"]
    assert set(history.seconds) == {
        "prompts and encoder",
        "samples",
        "reward",
        "scores and loss",
        "backward",
        "optimizer",
        "held-out evaluation",
        "baseline",
        "other",
    }


def test_the_seed_repeats_a_run(tmp_path: Path) -> None:
    def final(seed: int, name: str) -> list[Figures]:
        folder = tmp_path / name
        folder.mkdir()
        return trained(copy_task(steps=5, seed=seed), folder).updates

    assert final(3, "a") == final(3, "b")
    assert final(3, "c") != final(4, "d")


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_rises_and_falls(schedule: Any) -> None:
    config = Config(steps=100, warmup=9, schedule=schedule)
    rates = [rate(step, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == (1 if schedule == "constant" else 0)
    assert rates[55] == pytest.approx(
        {"linear": 45 / 91, "constant": 1}.get(schedule, 0.491), abs=1e-3
    )


def test_weight_decay_shrinks_what_has_no_gradient(tmp_path: Path) -> None:
    class Still:
        model = nn.Linear(2, 1, bias=False)
        metric = Metric("size", "min")

        def loss(self, generator: torch.Generator, clock: Clock) -> tuple[Tensor, Figures]:
            return (self.model.weight * 0).sum(), {}

        def evaluate(self) -> Evaluation:
            return Evaluation({"size": self.model.weight.norm().item()})

    before = Still.model.weight.norm().item()
    config = Config(
        steps=3,
        warmup=0,
        schedule="constant",
        learning_rate=0.1,
        weight_decay=0.5,
        tensorboard=False,
    )
    train(Still(), config, tmp_path, bar=False)
    assert Still.model.weight.norm().item() == pytest.approx(before * 0.95**3)


class Scripted:
    """A learner whose held-out metric is written down beforehand."""

    def __init__(self, values: list[float]) -> None:
        self.model = nn.Linear(1, 1)
        self.metric = Metric("error", "min")
        self.values = values
        self.seen = 0

    def loss(self, generator: torch.Generator, clock: Clock) -> tuple[Tensor, Figures]:
        return self.model.weight.sum(), {}

    def evaluate(self) -> Evaluation:
        self.seen += 1
        with torch.no_grad():
            self.model.bias.fill_(self.seen)
        return Evaluation({"error": self.values[self.seen - 1]})


def test_the_best_model_is_kept_and_training_stops_early(tmp_path: Path) -> None:
    learner = Scripted([5.0, 3.0, 4.0, 3.5, 9.0, 0.0])
    config = Config(steps=50, warmup=0, evaluate_every=10, patience=3, tensorboard=False)
    history = train(learner, config, tmp_path, bar=False)
    assert [row["error"] for row in history.evaluations] == [5.0, 3.0, 4.0, 3.5, 9.0]
    assert len(history.updates) == 40
    assert learner.model.bias.item() == 2  # as it was at the second evaluation
    assert (tmp_path / BEST).exists()


def test_a_broken_gradient_stops_the_run(tmp_path: Path) -> None:
    class Broken(Scripted):
        def loss(self, generator: torch.Generator, clock: Clock) -> tuple[Tensor, Figures]:
            return self.model.weight.sum() * float("nan"), {}

    learner = Broken([1.0])
    weight = learner.model.weight.detach().clone()
    with pytest.raises(FloatingPointError, match="update 0: the gradient's norm is nan"):
        train(learner, Config(steps=1, warmup=0, tensorboard=False), tmp_path, bar=False)
    assert torch.equal(learner.model.weight, weight)


def test_a_run_leaves_record_plot_report_and_weights(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    task = copy_task(steps=4, evaluate_every=2, output=tmp_path)
    folder = run(task, task.config, bar=False)
    assert {f.name for f in folder.iterdir()} == {
        ".lock",
        "best.safetensors",
        "checkpoint.safetensors",
        "config.json",
        "note.txt",
        "plot.png",
        "record.json",
        "report.txt",
        "start.safetensors",
    }
    record = json.loads((folder / "record.json").read_text())
    assert record["config"]["steps"] == 4
    assert record["environment"]["packages"]["torch"] == torch.__version__
    assert [row["step"] for row in record["history"]["evaluations"]] == [0, 2, 4]
    assert record["before"]["figures"]["exact"] == record["history"]["evaluations"][0]["exact"]
    assert record["training seconds"] == pytest.approx(sum(record["history"]["seconds"].values()))
    assert (folder / "plot.png").read_bytes()[:4] == b"\x89PNG"
    report = (folder / "report.txt").read_text()
    assert "learned to copy" in report
    assert "4 updates in" in report
    assert run(task, task.config, bar=False) != folder


def test_the_curves_are_written_for_tensorboard(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    task = copy_task(steps=4, evaluate_every=2, tensorboard=True)
    trained(task, tmp_path)
    found = events.EventAccumulator(str(tmp_path))
    found.Reload()
    assert [event.step for event in found.Scalars("held-out/exact")] == [0, 2, 4]
    assert [event.step for event in found.Scalars("update/reward")] == [0, 1, 2, 3]


def test_a_figure_that_was_not_measured_costs_no_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save_plot(History(), {"a": ["nope", "neither"]}, tmp_path / "plot.png", "a")
    assert (tmp_path / "plot.png").exists()


def test_figures_may_be_logged_now_and_then() -> None:
    rows: list[Figures] = [{"step": 0, "a": 1.0}, {"step": 1}, {"step": 2, "a": 3.0}]
    assert summary(History(rows), ("a", "b")) == "a 2"


def test_a_metric_that_was_not_evaluated_is_named(tmp_path: Path) -> None:
    learner = Scripted([1.0])
    learner.metric = Metric("other", "min")
    with pytest.raises(ValueError, match=r"must return the metric 'other', got \['error'\]"):
        train(learner, Config(steps=2, warmup=0, tensorboard=False), tmp_path, bar=False)


def test_any_number_is_better_than_nan(tmp_path: Path) -> None:
    nan = float("nan")
    learner = Scripted([nan, 5.0, nan, 4.0, 6.0])
    config = Config(steps=40, warmup=0, evaluate_every=10, tensorboard=False)
    history = train(learner, config, tmp_path, bar=False)
    assert history.best(learner.metric) == 3
    assert learner.model.bias.item() == 4
