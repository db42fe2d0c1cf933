"""The configuration of a run: typed, checked, and kept beside what the run leaves behind."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch

from pgest.errors import InputError
from pgest.runs.files import write_text


@dataclass(frozen=True)
class Config:
    """How the loop trains. Every field is a flag; the text below a field is its help.

    Raises:
        ValueError: for a number out of range, a choice that does not exist, a value of another
            type, or a device that is not here.
    """

    steps: int = 1000
    """Number of updates."""

    learning_rate: float = 1e-4
    """AdamW's rate after the warm-up."""

    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate falls after the warm-up: to 0 at the last update, or not at all."""

    warmup: int = 50
    """Updates over which the rate rises linearly from 0."""

    weight_decay: float = 0.0
    """AdamW's decay of the weights, per unit of learning rate."""

    clip_norm: float = 1.0
    """Largest norm of the gradient; a longer one is scaled down to it. inf: never."""

    evaluate_every: int = 200
    """Updates between two evaluations on held-out data; each leaves a checkpoint."""

    patience: int = 0
    """Evaluations without a new best after which training stops; 0 never stops early."""

    seed: int = 0
    """Seed of the run: of the generator that the task draws from, and of torch's own."""

    threads: int = 0
    """CPU threads; 0 leaves PyTorch's choice."""

    device: str = "cpu"
    """Where to train, for example cpu or cuda."""

    tensorboard: bool = True
    """Write event files for TensorBoard beside the record."""

    output: Path = Path("runs")
    """Folder in which the run's own folder is made."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "steps", "evaluate_every")
        at_least(self, 0, "warmup", "patience", "threads", "weight_decay", "seed")
        positive(self, "learning_rate")
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be positive, got {self.clip_norm}")
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2**63, got {self.seed}")
        if self.warmup >= self.steps:
            raise ValueError(
                f"warmup must be shorter than the run of {self.steps} steps, got {self.warmup}"
            )
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"device must be one of this machine, got {self.device}: {reason}"
            ) from None


ConfigT = TypeVar("ConfigT", bound=Config)


def check_types(config: Config) -> None:
    """Raise ValueError for the first field whose value is not of its type."""
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if get_origin(hint) is Literal:
            if value not in get_args(hint):
                choices = ", ".join(map(str, get_args(hint)))
                raise ValueError(f"{name} must be one of {choices}, got {value}")
            continue
        kinds = tuple(get_args(hint) or (hint,))
        if float in kinds:
            kinds += (int,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join("None" if k is NoneType else k.__name__ for k in kinds)
            raise ValueError(f"{name} must be {wanted}, got {value!r}")


def at_least(config: Config, least: float, *names: str) -> None:
    """Raise ValueError for the first of these fields that is below `least`."""
    for name in names:
        if not getattr(config, name) >= least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(config, name)}")


def positive(config: Config, *names: str) -> None:
    """Raise ValueError for the first of these fields that is not a positive number."""
    for name in names:
        if not 0 < getattr(config, name) < float("inf"):
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}")


def save_config(config: Config, task: str, path: Path) -> None:
    """Write the configuration of a task's run as JSON."""
    document = {"task": task, "config": asdict(config)}
    write_text(path, json.dumps(document, indent=1, default=str) + "\n")


def load_config(kind: type[ConfigT], task: str, path: Path) -> ConfigT:
    """Read what `save_config` wrote.

    Raises:
        InputError: for a file that is missing, damaged, of another task, or that has other fields.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found, values = document["task"], dict(document["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} must be the configuration of a run, got {error!r}") from None
    if found != task:
        raise InputError(f"{path} must be of the task {task!r}, got {found!r}")
    known = {field.name for field in fields(kind)}
    if values.keys() != known:
        odd = ", ".join(sorted(values.keys() ^ known))
        raise InputError(f"{path} must have the fields of this version, got a difference in {odd}")
    hints = get_type_hints(kind)
    try:
        paths = {name: Path(values[name]) for name in known if hints[name] is Path}
        return kind(**{**values, **paths})
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None
