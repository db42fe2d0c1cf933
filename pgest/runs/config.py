"""The configuration of a run and its command line."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

_MINIMUM = {
    "steps": 1,
    "batch_size": 1,
    "num_samples": 1,
    "warmup": 0,
    "evaluate_every": 1,
    "threads": 0,
}


@dataclass(frozen=True)
class Config:
    """How a run trains. Every field is a flag; the text below a field is its help.

    Raises:
        ValueError: for a number out of range.
    """

    steps: int = 1000
    """Number of updates."""

    batch_size: int = 96
    """Prompts in an update."""

    num_samples: int = 8
    """Samples drawn for each prompt."""

    learning_rate: float = 1e-4
    """Adam's rate after the warm-up; it falls linearly to 0 at the last update."""

    warmup: int = 50
    """Updates over which the rate rises linearly from 0."""

    entropy_coef: float = 0.0
    """Bonus for the entropy of a sampled sequence, in units of reward per nat."""

    clip_norm: float = 1.0
    """Largest norm of the gradient; a longer one is scaled down to it."""

    evaluate_every: int = 200
    """Updates between two evaluations on held-out data."""

    seed: int = 0
    """Seed of everything random in the run."""

    threads: int = 0
    """CPU threads; 0 leaves PyTorch's choice."""

    device: str = "cpu"
    """Where to train, for example cpu or cuda."""

    output: Path = Path("runs")
    """Folder in which the run's own folder is made."""

    def __post_init__(self) -> None:
        for name, least in _MINIMUM.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not self.entropy_coef >= 0:
            raise ValueError(f"entropy_coef must not be negative, got {self.entropy_coef}")


ConfigT = TypeVar("ConfigT", bound=Config)


def configure(
    argv: list[str], presets: Mapping[str, ConfigT], prog: str, description: str | None = None
) -> ConfigT:
    """Return the configuration that `--preset NAME` and the other flags in `argv` describe.

    The first preset is the default. Flags override the preset's values.

    Raises:
        ImportError: where tyro is missing.
        SystemExit: for an unknown flag or preset, and after `--help`.

    Example:
        >>> configure(["--steps", "5"], {"demo": Config(seed=1)}, "pgest run demo").steps
        5
    """
    try:
        import tyro
    except ImportError as error:
        raise ImportError('flags need tyro: pip install "pgest[tasks]"') from error
    parser = ArgumentParser(prog, add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", choices=list(presets), default=next(iter(presets)))
    chosen, rest = parser.parse_known_args(argv)
    default = presets[chosen.preset]
    about = f"{description or ''} Presets (--preset NAME): {', '.join(presets)}.".strip()
    try:
        return tyro.cli(type(default), prog=prog, description=about, default=default, args=rest)
    except ValueError as error:  # from the checks of the configuration itself
        parser.error(str(error))
