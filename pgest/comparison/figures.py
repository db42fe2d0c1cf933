"""What a comparison found: figures of each estimator, their ranking, and what follows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

ROUNDING = 1e-9  # a bias below it is that of the arithmetic
SIGMAS = 4.5  # standard errors that an estimated bias may be away from the declared 0


@dataclass(frozen=True)
class Figures:
    """Figures of one estimator; bias and spread are relative to the true gradient's length.

    Attributes:
        name: the estimator's.
        unbiased: whether it declares to be.
        enumerated: whether bias and spread are exact; else they have standard errors.
        bias: length of the difference between the mean estimate and the true gradient.
        spread: standard deviation of one call's estimate: root of the total variance.
        along: mean and standard deviation of the estimate's component along the true gradient.
        evaluations: of f, a call.
        backwards: values of z at which f's slope was asked for, a call.
        seconds: of a call and its backward, the median.
    """

    name: str
    unbiased: bool
    enumerated: bool
    bias: float
    bias_error: float
    spread: float
    spread_error: float
    along: tuple[float, float]
    evaluations: int
    backwards: int
    seconds: float

    @property
    def variance_cost(self) -> float:
        """Relative variance of a call times its evaluations of f: constant in num_samples."""
        return self.spread**2 * self.evaluations

    def calls(self, precision: float) -> float:
        """How many calls' mean has a relative error (root mean square) of `precision`.

        The bias does not average out: infinite where it is larger already, or may be by its error.
        """
        bias = self.bias + self.bias_error
        if bias < ROUNDING or self._believed():
            bias = 0.0
        if bias >= precision:
            return math.inf
        return max(1.0, self.spread**2 / (precision**2 - bias**2))

    def _believed(self) -> bool:
        """Whether it declares to be unbiased, and the estimated bias is within its error of 0."""
        of_square = self.bias_error * (self.bias_error + 2 * self.bias)
        return self.unbiased and not self.enumerated and self.bias**2 < SIGMAS * of_square


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        figures: of each estimator that applies, best first: by the evaluations of f that
            `precision` takes, then by bias.
        refused: why the others do not apply.
        precision: the wanted relative error of a gradient.
        settings: what it was made with.
    """

    figures: tuple[Figures, ...]
    refused: dict[str, str]
    precision: float
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.table()}\n\n{self.advice()}"

    def needed(self, row: Figures) -> float:
        """Evaluations of f for a gradient of the wanted precision."""
        return row.evaluations * row.calls(self.precision)

    def table(self, timed: bool = True) -> str:
        """A ranked table in Markdown, of aligned columns; `timed` has one of milliseconds."""
        title = f"f for {100 * self.precision:g} %"
        head = ("estimator", "bias %", "sd %", "f", "slopes", "variance x f", title, "ms")
        lines = [
            cells[: None if timed else -1] for cells in (head, *map(self._cells, self.figures))
        ]
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        rows = [
            "| "
            + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
            + " |"
            for line in lines
        ]
        rule = "|".join(
            ["-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)]
        )
        return "\n".join([rows[0], f"|{rule}|", *rows[1:]])

    def _cells(self, row: Figures) -> tuple[str, ...]:
        needed = self.needed(row)
        return (
            row.name,
            _percent(row.bias, row.bias_error),
            _percent(row.spread, row.spread_error),
            str(row.evaluations),
            str(row.backwards),
            f"{row.variance_cost:.3g}",
            self._unreached(row) if math.isinf(needed) else self._number(row),
            f"{1000 * row.seconds:.2f}",
        )

    def _unreached(self, row: Figures) -> str:
        return "never" if row.bias - row.bias_error >= self.precision else "not known"

    def advice(self) -> str:
        """One sentence: what to take."""
        best = self.figures[0]
        needed = self.needed(best)
        goal = f"a gradient to {100 * self.precision:g} %"
        if math.isinf(needed):
            return (
                f"None is known to reach {goal}: all that apply are biased by more, or may be; "
                f"`{best.name}` is the least biased, by {_percent(best.bias, best.bias_error)} %."
            )
        said = f"Take `{best.name}`: {self._number(best)} evaluations of f for {goal}"
        if best.spread == 0 and best.bias < ROUNDING:
            said = f"Take `{best.name}`: its {best.evaluations:,} evaluations of f leave no error"
        return "; ".join([said, *self._otherwise(best)]) + "."

    def _otherwise(self, best: Figures) -> Iterator[str]:
        """What to take where the support is too large, and where f is a black box."""
        reached = [row for row in self.figures if not math.isinf(self.needed(row))]
        sampled = [row for row in reached if row.spread > 0]
        named = best
        if best.spread == 0 and sampled:
            named = sampled[0]
            yield f"where the support is too large, `{named.name}` needs {self._number(named)}"
        blind = [row for row in sampled if row.unbiased and not row.backwards]
        if blind and named.backwards:
            yield f"without f's slope, `{blind[0].name}` needs {self._number(blind[0])}"

    def _number(self, row: Figures) -> str:
        return f"{math.ceil(self.needed(row) - 1e-6):,}"

    def record(self) -> dict[str, Any]:
        """Everything, for JSON; an infinite number of evaluations is None."""
        rows = []
        for row in self.figures:
            needed = self.needed(row)
            derived = {
                "variance_cost": row.variance_cost,
                "needed": None if math.isinf(needed) else needed,
            }
            rows.append({**asdict(row), **derived})
        return {
            "precision": self.precision,
            "settings": self.settings,
            "figures": rows,
            "refused": self.refused,
            "advice": self.advice(),
        }


def _percent(x: float, error: float) -> str:
    if error == 0:
        return f"{0 if x < ROUNDING else 100 * x:.1f}"
    return f"{100 * x:.1f} ± {100 * error:.1f}"
