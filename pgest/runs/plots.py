"""The curves of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pgest.runs.history import Figures, History


def save_plot(
    history: History, panels: Mapping[str, Sequence[str]], path: Path, title: str
) -> None:
    """Draw the named figures against the update, one panel for each title, into an image file.

    Figures of evaluations are drawn as they are; those of updates as their mean over a window of
    2 % of the run, with the single updates faintly behind. The panel of a figure that the history
    does not have says so.

    Raises:
        ImportError: where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('the plot needs matplotlib: pip install "pgest[tasks]"') from error
    # A figure of its own, without pyplot: nothing global, no window, no display needed.
    columns = max(1, min(3, len(panels)))
    lines = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(3.8 * columns, 2.9 * lines), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, (heading, names) in zip(grid, panels.items(), strict=False):
        for name in names:
            steps, values, evaluated = _series(history, name)
            if not steps:
                heading += f"\n(no figure is named {name!r})"
            elif evaluated:
                axes.plot(steps, values, marker=".", label=name)
            else:
                window = max(1, len(values) // 50)
                smooth = np.convolve(values, np.ones(window) / window, mode="valid")
                (line,) = axes.plot(steps[window - 1 :], smooth, label=name)
                axes.plot(steps, values, color=line.get_color(), alpha=0.15, linewidth=0.5)
        axes.set_title(heading)
        axes.set_xlabel("update")
        axes.grid(alpha=0.3)
        if len(names) > 1 and axes.lines:  # the title names a single one
            axes.legend()
    figure.savefig(path, dpi=120)


def _series(history: History, name: str) -> tuple[list[float], list[float], bool]:
    """Return a figure's steps and values, and whether evaluations measured it."""
    sources: list[tuple[list[Figures], bool]] = [
        (history.evaluations, True),
        (history.updates, False),
    ]
    for rows, evaluated in sources:
        found = [row for row in rows if name in row]
        if found:
            return [row["step"] for row in found], [row[name] for row in found], evaluated
    return [], [], False
