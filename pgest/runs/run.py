"""A run from start to finish: test, train, test again, and keep what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from time import perf_counter
from typing import Any, Protocol

import torch

from pgest.errors import InputError
from pgest.runs.config import Config, save_config
from pgest.runs.files import load_tensors, save_tensors, write_atomically, write_text
from pgest.runs.history import Evaluation, History
from pgest.runs.interrupts import Interrupted
from pgest.runs.loop import Learner, train
from pgest.runs.modes import evaluating
from pgest.runs.plots import save_plot
from pgest.runs.record import environment, to_json

CONFIG, RECORD, REPORT, PLOT = "config.json", "record.json", "report.txt", "plot.png"
START = "start.safetensors"


class Task(Protocol):
    """What `run` runs: a learner, its test, and words for what came out."""

    @property
    def name(self) -> str:
        """The task's name, which is its folder's."""

    @property
    def panels(self) -> Mapping[str, Sequence[str]]:
        """The plot: the figures to draw, by the title of their panel."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The figures of the progress bar."""

    @property
    def learner(self) -> Learner:
        """What is trained."""

    def test(self) -> Evaluation:
        """Evaluate on the test part: called before and after training, never during it."""

    def report(self, before: Evaluation, after: Evaluation) -> str:
        """Say in words what was learned, and from what."""

    def save(self, folder: Path, before: Evaluation, after: Evaluation) -> None:
        """Write what else the task wants to leave; the weights are in `best.safetensors`."""


def run(task: Task, config: Config, *, resume: Path | None = None, bar: bool = True) -> Path:
    """Run a task and return the folder that holds its record, plot and tuned model.

    The folder is `<output>/<task>-<date>-<time>`, or `resume`, that of a run which was stopped or
    killed, which then ends with the numbers it would have had. In it: `config.json`,
    `start.safetensors` and `checkpoint.safetensors` (to go on), `best.safetensors` (the weights of
    the best evaluation, which are tested), `record.json` (configuration, versions, device, commit
    and every figure), `plot.png`, `report.txt` (what was printed last) and event files for
    TensorBoard.

    Raises:
        ImportError: where a package of the extra `tasks` is missing.
        InputError: for a folder to resume that has no run, or one that is finished.
        Interrupted: after Ctrl-C, at any time; the message has the command that goes on.
    """
    # Now rather than after the training.
    _require("tqdm", "matplotlib", "safetensors", *["tensorboard"] * config.tensorboard)
    if config.threads:
        torch.set_num_threads(config.threads)
    started, clock = datetime.now().astimezone(), perf_counter()
    folder = resume or _new_folder(config.output, f"{task.name}-{started:%Y%m%d-%H%M%S}")
    _open(folder, task, config, resumed=resume is not None)
    print(f"{task.name}: testing the model as it came; the run's folder is {folder}", flush=True)
    try:
        before = _test(task)
        history = train(task.learner, config, folder, shown=task.shown, bar=bar)
        after = _test(task)
        _keep(task, config, folder, history, before, after, started)
    except KeyboardInterrupt as stop:
        command = f"pgest run {task.name} --resume {quote(str(folder))}"
        raise Interrupted(f"{str(stop) or 'stopped'}; go on with: {command}") from None
    print(f"\n{(folder / REPORT).read_text(encoding='utf-8')}")
    print(f"{perf_counter() - clock:.0f} s with the tests. Curves: {folder / PLOT}")
    return folder


def _open(folder: Path, task: Task, config: Config, *, resumed: bool) -> None:
    """Write what a new run needs to be resumed, or check that this one can be."""
    if not resumed:
        save_config(config, task.name, folder / CONFIG)
        save_tensors(folder / START, task.learner.model.state_dict())
        return
    if (folder / RECORD).exists():
        raise InputError(f"resume: the run in {folder} is finished, see its {REPORT}")
    saved, _ = load_tensors(folder / START)
    now = task.learner.model.state_dict()
    if saved.keys() != now.keys() or any(not torch.equal(saved[k], now[k].cpu()) for k in saved):
        raise InputError(f"resume: the model must start from {folder / START}, got other weights")


def _test(task: Task) -> Evaluation:
    with evaluating(task.learner.model):
        return task.test()


def _keep(
    task: Task,
    config: Config,
    folder: Path,
    history: History,
    before: Evaluation,
    after: Evaluation,
    started: datetime,
) -> None:
    """Write the plot, the report and, last, the record, whose presence says that all is there."""
    write_atomically(folder / PLOT, lambda path: save_plot(history, task.panels, path, task.name))
    task.save(folder, before, after)
    parts = [_table(before, after), task.report(before, after), _warned(history), _times(history)]
    write_text(folder / REPORT, "\n\n".join(part for part in parts if part) + "\n")
    best = history.best(task.learner.metric)
    record: dict[str, Any] = {
        "task": task.name,
        "date": started.isoformat(timespec="seconds"),
        "training seconds": sum(history.seconds.values()),
        "best update": history.evaluations[best]["step"],
        "config": config,
        "environment": environment(config.device),
        "before": {"figures": before.figures, "standard errors": before.standard_errors},
        "after": {"figures": after.figures, "standard errors": after.standard_errors},
        "history": history,
    }
    write_text(folder / RECORD, to_json(record))


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
        except OSError as error:
            raise InputError(f"output must be a folder that can be written, got {error}") from None
        return folder
    raise InputError(f"output: {output} has too many folders named {name}")


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


def _warned(history: History) -> str:
    return "\n".join(f"Warning: {warning['sentence']}" for warning in history.warnings)


def _times(history: History) -> str:
    """Return where the time went."""
    total = sum(history.seconds.values())
    updates = max(1, len(history.updates))
    lines = [f"{'part of the training':<22}  {'share':>6}  {'ms per update':>13}"]
    for part, seconds in sorted(history.seconds.items(), key=lambda item: -item[1]):
        share, each = 100 * seconds / total, 1000 * seconds / updates
        lines.append(f"{part:<22}  {share:>4.0f} %  {each:>13.2f}")
    return "\n".join([*lines, f"{len(history.updates)} updates in {total:.0f} s"])
