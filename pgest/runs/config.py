"""The configuration of a run: typed, checked, and kept beside what the run leaves behind."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from pgest.errors import InputError
from pgest.runs.files import write_text


@dataclass(frozen=True)
class Config:
    """How the loop trains. Every field is a flag; the text below a field is its help.

    Raises:
        ValueError: for a number out of range.
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
    """Largest norm of the gradient; a longer one is scaled down to it."""

    evaluate_every: int = 200
    """Updates between two evaluations on held-out data; each leaves a checkpoint."""

    patience: int = 0
    """Evaluations without a new best after which training stops; 0 never stops early."""

    seed: int = 0
    """Seed of everything random in the run."""

    threads: int = 0
    """CPU threads; 0 leaves PyTorch's choice."""

    device: str = "cpu"
    """Where to train, for example cpu or cuda."""

    tensorboard: bool = True
    """Write event files for TensorBoard beside the record."""

    output: Path = Path("runs")
    """Folder in which the run's own folder is made."""

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "evaluate_every")
        at_least(self, 0, "warmup", "patience", "threads", "weight_decay")
        positive(self, "learning_rate", "clip_norm")


ConfigT = TypeVar("ConfigT", bound=Config)


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
    paths = {name: Path(values[name]) for name in known if hints[name] is Path}
    return kind(**{**values, **paths})
