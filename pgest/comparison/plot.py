"""The picture of a comparison."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from typing import Any

from pgest.comparison.figures import Comparison, Figures

WIDEST = 4  # times the median reach: what lies beyond is cut off, with an arrow


def color(row: Figures) -> str:
    """Blue where the table trusts the estimator to be unbiased."""
    return "tab:blue" if row.trusted else "tab:orange"


def plot(found: Comparison, path: Path, title: str = "") -> None:
    """Draw bias, spread and the evaluations of f that each estimator needs, best first.

    Raises:
        ModuleNotFoundError: without matplotlib (`pip install 'pgest[estimators]'`).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.6 + 0.32 * len(found.figures)), layout="constrained")
    where, cost = figure.subplots(1, 2, sharey=True)
    _estimates(where, found)
    _costs(cost, found)
    where.set_yticks(range(len(found.figures)), [row.name for row in found.figures])
    where.set_ylim(len(found.figures) - 0.4, -0.6)  # the best at the top
    for axes in (where, cost):
        axes.grid(axis="x", alpha=0.3)
    legend = "Blue: unbiased here, by enumeration or as declared and not contradicted."
    figure.suptitle(f"{title}\n{legend}" if title else legend)
    figure.savefig(path, dpi=120)


def _estimates(axes: Any, found: Comparison) -> None:
    rows, true = found.figures, 1.0 if found.length else 0.0
    reaches = [abs(row.along[0] - true) + row.along[1] for row in rows]
    limit = 1.05 * min(max(reaches), WIDEST * median(reaches)) or 1.0
    low, high = true - limit, true + limit
    for y, (row, reach) in enumerate(zip(rows, reaches, strict=True)):
        mean, sd = row.along
        ends = [max(low, mean - sd), min(high, mean + sd)]
        axes.plot(ends, [y, y], color=color(row), linewidth=6, alpha=0.35, solid_capstyle="butt")
        axes.plot([mean], [y], "o", color=color(row))
        for edge, beyond, arrow in ((low, mean - sd < low, "<"), (high, mean + sd > high, ">")):
            if beyond:
                axes.plot([edge], [y], arrow, color=color(row), clip_on=False)
        if reach > limit:
            said = f"{mean:.3g} ± {sd:.3g}"
            axes.text(high - 0.06 * limit, y, said, ha="right", va="center", fontsize="x-small")
    axes.set_xlim(low, high)
    axes.axvline(true, color="black", linewidth=1, linestyle="--")
    what = "estimated / true gradient" if found.length else "estimate along the gradient's mean"
    axes.set_xlabel(f"{what}: mean ± deviation")


def _costs(axes: Any, found: Comparison) -> None:
    for y, row in enumerate(found.figures):
        needed = found.needed(row)
        if math.isinf(needed):
            said = found.needed_text(row)
            axes.text(0.02, y, said, transform=axes.get_yaxis_transform(), va="center")
        else:
            axes.barh(y, needed, color=color(row), alpha=0.6)
    axes.set_xlabel(f"evaluations of f for a gradient to {100 * found.precision:g} %")
    if any(not math.isinf(found.needed(row)) for row in found.figures):
        axes.set_xscale("log")
