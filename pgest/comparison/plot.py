"""The picture of a comparison."""

from __future__ import annotations

import math
from pathlib import Path

from pgest.comparison.figures import ROUNDING, Comparison


def plot(found: Comparison, path: Path, title: str = "") -> None:
    """Draw bias, spread and the evaluations of f that each estimator needs, best first.

    Raises:
        ModuleNotFoundError: without matplotlib (`pip install 'pgest[estimators]'`).
    """
    from matplotlib.figure import Figure

    rows, count = found.figures, len(found.figures)
    figure = Figure(figsize=(10, 1.6 + 0.32 * count), layout="constrained")
    where, cost = figure.subplots(1, 2, sharey=True)
    for y, row in enumerate(rows):
        color = "tab:blue" if row.unbiased or row.bias < ROUNDING else "tab:orange"
        mean, sd = row.along
        ends = [mean - sd, mean + sd]
        where.plot(ends, [y, y], color=color, linewidth=6, alpha=0.35, solid_capstyle="butt")
        where.plot([mean], [y], "o", color=color)
        needed = found.needed(row)
        if math.isinf(needed):
            cost.text(0.02, y, "never", transform=cost.get_yaxis_transform(), va="center")
        else:
            cost.barh(y, needed, color=color, alpha=0.6)
    where.axvline(1, color="black", linewidth=1, linestyle="--")
    where.set_xlabel("estimated / true gradient: mean ± one standard deviation")
    cost.set_xlabel(f"evaluations of f for a gradient to {100 * found.precision:g} %")
    if any(not math.isinf(found.needed(row)) for row in rows):
        cost.set_xscale("log")
    where.set_yticks(range(count), [row.name for row in rows])
    where.invert_yaxis()
    for axes in (where, cost):
        axes.grid(axis="x", alpha=0.3)
    figure.suptitle(f"{title}\nBlue is unbiased here." if title else "Blue is unbiased here.")
    figure.savefig(path, dpi=120)
