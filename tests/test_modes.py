"""Models with dropout: modes, random numbers, tied weights, and a learner with its own state."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pgest.runs import Clock, Config, Evaluation, Figures, History, Metric, run, train
from pgest.runs.files import load_tensors
from pgest.runs.loop import BEST, CHECKPOINT

for package in ("tqdm", "safetensors", "matplotlib"):
    pytest.importorskip(package)


class Noisy(nn.Module):
    """A sum under dropout; a part that stays in evaluation mode; one weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(40))
        self.tied = self.weight
        self.frozen = nn.Linear(1, 1).eval()
        self.modes: list[bool] = []

    def forward(self) -> Tensor:
        self.modes.append(self.training)
        return nn.functional.dropout(self.weight, 0.5, self.training).sum()


class Averaging:
    """A learner whose loss depends on the moving average of its own losses; and a task."""

    name, shown = "noisy", ("loss",)
    panels: dict[str, list[str]] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.model = Noisy()
        self.metric = Metric("loss", "min")
        self.average = torch.zeros(())

    @property
    def learner(self) -> "Averaging":
        return self

    def loss(self, generator: torch.Generator, clock: Clock) -> tuple[Tensor, Figures]:
        loss = self.model() * self.average.cos()
        self.average = 0.9 * self.average + 0.1 * loss.detach()
        return loss, {"loss": loss.item()}

    def evaluate(self) -> Evaluation:
        return Evaluation({"loss": self.model().item()})

    test = evaluate

    def state_dict(self) -> dict[str, Tensor]:
        return {"average": self.average}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.average = state["average"]

    def report(self, before: Evaluation, after: Evaluation) -> str:
        return ""

    def save(self, folder: Path, before: Evaluation, after: Evaluation) -> None:
        pass


def config(**settings: Any) -> Config:
    shared: dict[str, Any] = {"steps": 6, "warmup": 0, "evaluate_every": 3, "tensorboard": False}
    return Config(**{**shared, **settings})


def trained(folder: Path, learner: Averaging | None = None) -> History:
    folder.mkdir(exist_ok=True)
    return train(learner or Averaging(), config(), folder, bar=False)


def test_a_model_is_tested_and_evaluated_in_evaluation_mode(tmp_path: Path) -> None:
    task = Averaging()
    task.model.eval()  # as loaders of pre-trained models leave it
    settings = config(steps=2, evaluate_every=1, output=tmp_path)
    run(task, settings, bar=False)
    # test, evaluate, update, evaluate, update, evaluate, test
    assert task.model.modes == [False, False, True, False, True, False, False]
    assert not task.model.training
    assert not task.model.frozen.training


def test_a_frozen_part_keeps_its_mode_at_an_evaluation(tmp_path: Path) -> None:
    class Frozen(Averaging):
        def loss(self, generator: torch.Generator, clock: Clock) -> tuple[Tensor, Figures]:
            modes.append(self.model.frozen.training)
            self.model.frozen.eval()
            return super().loss(generator, clock)

    modes: list[bool] = []
    trained(tmp_path, Frozen())
    assert modes == [True, False, False, False, False, False]


def test_the_seed_repeats_dropout_and_the_callers_random_state_is_left_alone(
    tmp_path: Path,
) -> None:
    learner = Averaging()
    state = torch.manual_seed(1).get_state()
    first = trained(tmp_path / "a", learner)
    assert torch.equal(torch.get_rng_state(), state)
    learner = Averaging()
    torch.manual_seed(2)
    assert trained(tmp_path / "b", learner).updates == first.updates
    assert len({row["loss"] for row in first.updates}) > 1


def test_dropout_and_the_learners_state_survive_a_stop(tmp_path: Path) -> None:
    class Stops(Averaging):
        def loss(self, generator: torch.Generator, clock: Clock) -> tuple[Tensor, Figures]:
            if len(self.model.modes) == 6:  # of 2 evaluations and 4 updates
                raise KeyboardInterrupt
            return super().loss(generator, clock)

    expected = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", Stops())
    assert (tmp_path / "stopped" / CHECKPOINT).exists()
    torch.manual_seed(9)
    assert trained(tmp_path / "stopped").updates == expected.updates


def test_tied_weights_are_saved_under_both_names(tmp_path: Path) -> None:
    learner = Averaging()
    trained(tmp_path, learner)
    tensors, _ = load_tensors(tmp_path / BEST)
    assert torch.equal(tensors["weight"], tensors["tied"])
    assert learner.model.tied is learner.model.weight
