"""The state of a training run on disk: one file, whole or absent."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pgest.errors import InputError
from pgest.runs.config import Config
from pgest.runs.files import load_tensors, save_tensors
from pgest.runs.history import Clock, History

# What may change from one attempt to the next: it has no influence on the numbers.
_FREE = ("output", "tensorboard", "threads")


class Training(Protocol):
    """What a checkpoint holds."""

    config: Config
    history: History
    clock: Clock
    generator: torch.Generator
    learner: Any

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What turns gradients into updates."""

    @property
    def model(self) -> nn.Module:
        """The module that is trained."""


def save_checkpoint(path: Path, training: Training) -> None:
    """Write weights, the states of optimizer, learner and random numbers, and the history."""
    tensors = {f"model.{name}": value for name, value in training.model.state_dict().items()}
    for index, slots in training.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{name}": value for name, value in slots.items()})
    if hasattr(training.learner, "state_dict"):
        own: dict[str, Tensor] = training.learner.state_dict()
        tensors.update({f"learner.{name}": value for name, value in own.items()})
    tensors["generator"] = training.generator.get_state()
    tensors["torch"] = torch.get_rng_state()
    if training.generator.device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(training.generator.device)
    # As a tensor: the format's place for strings is small.
    tensors["history"] = _packed({"history": asdict(training.history), "config": _fixed(training)})
    save_tensors(path, tensors)


def load_checkpoint(path: Path, training: Training) -> None:
    """Restore what `save_checkpoint` wrote.

    Raises:
        InputError: for a file that is damaged or belongs to another model or configuration.
    """
    tensors, _ = load_tensors(path)
    try:
        document = json.loads(bytes(tensors["history"].tolist()))
        history = History(**document["history"])
        _check_config(path, document["config"], training)
        training.model.load_state_dict(within(tensors, "model."))
        groups = training.optimizer.state_dict()["param_groups"]
        state: dict[str, Any] = {"state": _slots(tensors), "param_groups": groups}
        training.optimizer.load_state_dict(state)
        if hasattr(training.learner, "load_state_dict"):
            training.learner.load_state_dict(within(tensors, "learner."))
        training.generator.set_state(tensors["generator"])
        torch.set_rng_state(tensors["torch"])
        if "cuda" in tensors:
            torch.cuda.set_rng_state(tensors["cuda"], training.generator.device)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} must be a checkpoint of this model, got: {reason}") from None
    training.history = history
    training.clock.seconds = history.seconds


def within(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _slots(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Return the optimizer's tensors by the index of their parameter."""
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in within(tensors, "optimizer.").items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = value
    return slots


def _packed(document: dict[str, Any]) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(document).encode()), dtype=torch.uint8)


def _fixed(training: Training) -> dict[str, Any]:
    """Return the settings on which the numbers depend, as JSON has them."""
    settings = asdict(training.config)
    kept = {name: value for name, value in settings.items() if name not in _FREE}
    found: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return found


def _check_config(path: Path, saved: dict[str, Any], training: Training) -> None:
    now = _fixed(training)
    odd = [f"{name} {saved.get(name)}" for name in now if saved.get(name) != now[name]]
    if odd:
        raise InputError(
            f"{path} must be of a run with the same settings, got one with {', '.join(odd)}; go on "
            "with those, or choose another folder"
        )
