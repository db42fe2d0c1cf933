"""From a command line to a configuration."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Generic, NamedTuple

from pgest.runs.config import ConfigT, load_config


class Chosen(NamedTuple, Generic[ConfigT]):
    """A configuration, and the folder of the run that it goes on with, if any."""

    config: ConfigT
    resume: Path | None


def configure(
    argv: list[str],
    presets: Mapping[str, Mapping[str, ConfigT]],
    task: str,
    description: str | None = None,
) -> Chosen[ConfigT]:
    """Return the configuration that `--preset NAME`, `--objective NAME` and the flags describe.

    A preset has settings for each objective. The first of both is the default, and flags override
    the settings. `--resume FOLDER` takes the configuration of the run in that folder instead.

    Raises:
        ImportError: where tyro is missing.
        SystemExit: for an unknown flag or preset, for settings that contradict each other, and
            after `--help`.

    Example:
        >>> from pgest.runs import Config
        >>> presets = {"demo": {"reinforce": Config(seed=1)}}
        >>> configure(["--steps", "500"], presets, "demo").config.steps
        500
    """
    try:
        import tyro
    except ImportError as error:
        raise ImportError('flags need tyro: pip install "pgest[tasks]"') from error
    prog = f"pgest run {task}"
    objectives = list(next(iter(presets.values())))
    parser = ArgumentParser(prog, add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", choices=list(presets), default=next(iter(presets)))
    parser.add_argument("--objective", choices=objectives, default=objectives[0])
    parser.add_argument("--resume", type=Path)
    chosen, rest = parser.parse_known_args(argv)
    default = presets[chosen.preset][chosen.objective]
    several = f" --objective {{{','.join(objectives)}}}" if len(objectives) > 1 else ""
    each = ", each with settings for its objective" if several else ""
    about = (
        f"{description or ''}\n\nPresets{each}: --preset {{{','.join(presets)}}}{several}. A run "
        f"that was stopped goes on with --resume FOLDER."
    )
    try:
        if chosen.resume is None:
            config = tyro.cli(
                type(default), prog=prog, description=about.strip(), default=default, args=rest
            )
            return Chosen(config, None)
        if len(argv) > 2 or rest:
            raise ValueError("--resume takes the run's own settings, got other flags beside it")
        path = chosen.resume / "config.json"
        return Chosen(
            replace(load_config(type(default), task, path), output=chosen.resume.parent),
            chosen.resume,
        )
    except ValueError as error:  # from the checks of the configuration itself
        parser.error(str(error))
