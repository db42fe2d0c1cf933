"""A run from start to finish: test, train, test again, and keep what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import torch

from pgest.runs.config import Config
from pgest.runs.loop import Figures, Learner, train
from pgest.runs.plots import save_plot
from pgest.runs.record import environment, save_record


@dataclass(frozen=True)
class Evaluation:
    """Figures on a part of the data, their standard errors where known, and the task's own details.

    Errors have the names of their figures; `details` is what `Task.report` compares.
    """

    figures: Figures
    standard_errors: Figures
    details: Any = None


class Task(Protocol):
    """What `run` runs: a learner, its test, and words for what came out."""

    @property
    def name(self) -> str:
        """The task's name, which is its folder's."""

    @property
    def panels(self) -> Mapping[str, Sequence[str]]:
        """The plot: the figures to draw, by the title of their panel."""

    @property
    def learner(self) -> Learner:
        """What is trained."""

    def test(self) -> Evaluation:
        """Evaluate on the test part: called before and after training, never during it."""

    def report(self, before: Evaluation, after: Evaluation) -> str:
        """Say in words what was learned, and from what."""

    def save(self, folder: Path) -> None:
        """Write the tuned model."""


def run(task: Task, config: Config, *, progress: bool = True) -> Path:
    """Run a task and return the new folder that holds its record, plot and tuned model.

    The folder is `<output>/<task>-<date>-<time>`. `record.json` has the configuration, versions,
    device, commit and every figure, `plot.png` the curves, `report.txt` what was printed last.

    Raises:
        ImportError: where a package of the extra `tasks` is missing.
    """
    _require("tqdm", "matplotlib")  # now rather than after the training
    if config.threads:
        torch.set_num_threads(config.threads)
    started = datetime.now().astimezone()
    folder = _new_folder(config.output, f"{task.name}-{started:%Y%m%d-%H%M%S}")
    clock = perf_counter()
    print(f"{task.name}: testing the model as it came ...", flush=True)
    before = task.test()
    trained = perf_counter()
    history = train(task.learner, config, progress=progress)
    training_seconds = perf_counter() - trained
    after = task.test()
    save_plot(history, task.panels, folder / "plot.png", task.name)
    task.save(folder)
    report = f"{_table(before, after)}\n\n{task.report(before, after)}"
    (folder / "report.txt").write_text(report + "\n", encoding="utf-8")
    seconds = perf_counter() - clock
    save_record(
        folder / "record.json",
        task=task.name,
        date=started.isoformat(timespec="seconds"),
        seconds=seconds,
        training_seconds=training_seconds,
        config=config,
        environment=environment(config.device),
        before={"figures": before.figures, "standard errors": before.standard_errors},
        after={"figures": after.figures, "standard errors": after.standard_errors},
        history=history,
    )
    print(f"\n{report}\n\n{seconds:.0f} s in all; record, plot and tuned model are in {folder}")
    return folder


def _require(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise ImportError(f'a run needs {package}: pip install "pgest[tasks]"')


def _new_folder(output: Path, name: str) -> Path:
    """Make a folder that did not exist: two runs of the same second get two."""
    for suffix in ["", *(f"-{i}" for i in range(2, 1000))]:
        folder = output / (name + suffix)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"output: {output} has too many folders named {name}")


def _table(before: Evaluation, after: Evaluation) -> str:
    """Return the test figures before and after, one line each, with their standard errors."""
    width = max(len(name) for name in before.figures)
    lines = [f"{'':<{width}}  {'before':>16}  {'after':>16}  {'change':>8}"]
    for name, old in before.figures.items():
        new = after.figures[name]
        cells = [
            f"{part.figures[name]:.2f}"
            + (f" ± {part.standard_errors[name]:.2f}" if name in part.standard_errors else "")
            for part in (before, after)
        ]
        lines.append(f"{name:<{width}}  {cells[0]:>16}  {cells[1]:>16}  {new - old:>+8.2f}")
    return "\n".join(lines)
