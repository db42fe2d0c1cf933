"""The state of a training run on disk: one file, whole or absent."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pgest.errors import InputError
from pgest.runs.files import load_tensors, save_tensors
from pgest.runs.history import Clock, History


class Training(Protocol):
    """What a checkpoint holds."""

    history: History
    clock: Clock
    generator: torch.Generator

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What turns gradients into updates."""

    @property
    def model(self) -> nn.Module:
        """The module that is trained."""


def save_checkpoint(path: Path, training: Training) -> None:
    """Write weights, the optimizer's and the generator's state, and the history."""
    tensors = {f"model.{name}": value for name, value in training.model.state_dict().items()}
    for index, slots in training.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{name}": value for name, value in slots.items()})
    tensors["generator"] = training.generator.get_state()
    save_tensors(path, tensors, {"history": json.dumps(asdict(training.history))})


def load_checkpoint(path: Path, training: Training) -> None:
    """Restore what `save_checkpoint` wrote.

    Raises:
        InputError: for a file that is damaged or belongs to another model.
    """
    tensors, metadata = load_tensors(path)
    try:
        history = History(**json.loads(metadata["history"]))
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                index, _, slot = rest.partition(".")
                slots.setdefault(int(index), {})[slot] = value
        training.model.load_state_dict(within(tensors, "model."))
        groups = training.optimizer.state_dict()["param_groups"]
        state: dict[str, Any] = {"state": slots, "param_groups": groups}
        training.optimizer.load_state_dict(state)
        training.generator.set_state(tensors["generator"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} must be a checkpoint of this model, got: {error}") from None
    training.history = history
    training.clock.seconds = history.seconds


def within(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
