"""What a comparison found: figures of each estimator, their ranking, and what follows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

SIGMAS = 4.5  # standard errors that an estimated bias may be away from the declared 0


@dataclass(frozen=True)
class Figures:
    """Figures of one estimator; bias and spread are relative to the true gradient's length.

    Where that is 0 or not known (`Comparison.length`), they are absolute. What is no more than
    rounding is 0.

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
        reference: whether its calls are those whose mean stands for the true gradient, so that its
            bias is not measured.
        lists: whether it needs a support that can be listed.
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
    reference: bool = False
    lists: bool = False

    @property
    def variance_cost(self) -> float:
        """Variance of a call times its evaluations of f: constant in num_samples."""
        return self.spread**2 * self.evaluations

    @property
    def trusted(self) -> bool:
        """Whether its bias is exactly 0, or declared to be and estimated to within its error."""
        if self.enumerated:
            return self.bias == 0
        of_square = self.bias_error * (self.bias_error + 2 * self.bias)
        return self.unbiased and self.bias**2 <= SIGMAS * of_square

    def calls(self, precision: float) -> float:
        """How many calls' mean has a relative error (root mean square) of `precision`.

        The bias does not average out: infinite where it is larger already, or may be by its error.
        """
        bias = 0.0 if self.trusted else self.bias + self.bias_error
        if bias >= precision:
            return math.inf
        calls = self.spread**2 / (precision**2 - bias**2)
        return max(1, math.ceil(calls * (1 - 1e-9)))  # a whole number is not to be rounded up


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        figures: of each estimator that applies, best first: by the evaluations of f that
            `precision` takes, then by bias, then by variance x evaluations.
        refused: why the others do not apply.
        precision: the wanted relative error of a gradient.
        length: of the true gradient; 0 where there is none but rounding, None where it is lost in
            the noise of the calls that estimate it. Figures are absolute in these two cases, and no
            number of evaluations has a relative error.
        settings: what it was made with.
    """

    figures: tuple[Figures, ...]
    refused: dict[str, str]
    precision: float
    length: float | None = 1.0
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.table()}\n\n{self.advice()}"

    def ranked(self) -> Comparison:
        """The same, best first."""

        def key(row: Figures) -> tuple[float, float, float]:
            return self.needed(row), 0.0 if row.trusted else row.bias, row.variance_cost

        return replace(self, figures=tuple(sorted(self.figures, key=key)))

    def needed(self, row: Figures) -> float:
        """Evaluations of f for a gradient of the wanted precision, in whole calls."""
        return row.evaluations * row.calls(self.precision) if self.length else math.inf

    def needed_text(self, row: Figures) -> str:
        """The same, as the table has it."""
        needed = self.needed(row)
        if not math.isinf(needed):
            return f"{needed:,}"
        if not self.length:
            return "-"
        return "never" if row.bias - row.bias_error >= self.precision else "not known"

    def table(self, timed: bool = True) -> str:
        """A ranked table in Markdown, of aligned columns; `timed` has one of milliseconds."""
        title = f"f for {100 * self.precision:g} %"
        unit = " %" if self.length else ""
        head = ("estimator", f"bias{unit}", f"sd{unit}", "f", "slopes", "variance x f", title, "ms")
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
        return (
            row.name,
            "reference" if row.reference else self._amount(row.bias, row.bias_error),
            self._amount(row.spread, row.spread_error),
            str(row.evaluations),
            str(row.backwards),
            f"{row.variance_cost:.3g}",
            self.needed_text(row),
            f"{1000 * row.seconds:.2f}",
        )

    def _amount(self, x: float, error: float) -> str:
        """Percent of the true gradient, or what it is where there is none."""
        shown, shown_error = f"{x:.3g}", f"{error:.2g}"
        if self.length:
            shown, shown_error = f"{100 * x:.1f}", f"{100 * error:.1f}"
        return f"{shown} ± {shown_error}" if error else shown

    def advice(self) -> str:
        """One sentence: what to take."""
        best = self.figures[0]
        goal = f"a gradient to {100 * self.precision:g} %"
        if self.length == 0:
            return (
                "The true gradient is 0, as far as the rounding of f can tell: there is no "
                "relative error, and bias and sd are absolute."
            )
        if self.length is None:
            return (
                "The true gradient is not resolved, but lost in the noise of the calls that "
                "estimate it: raise repeats; bias and sd are absolute."
            )
        if math.isinf(self.needed(best)):
            return (
                f"None is known to reach {goal}: all that apply are biased by more, or may be; "
                f"`{best.name}` is the least biased, by "
                f"{self._amount(best.bias, best.bias_error)} %."
            )
        said = f"Take `{best.name}`: {self.needed_text(best)} evaluations of f for {goal}"
        if best.spread == 0 and best.bias == 0:
            said = f"Take `{best.name}`: its {best.evaluations:,} evaluations of f leave no error"
        return "; ".join([said, *self._otherwise(best)]) + "."

    def _otherwise(self, best: Figures) -> Iterator[str]:
        """What to take where the support is too large, and where f is a black box."""
        reached = [row for row in self.figures if not math.isinf(self.needed(row))]
        if best.lists:  # without any spread, the others have seen every value too
            reached = [row for row in reached if row.spread > 0 and not row.lists]
            if not reached:
                return
            best = reached[0]
            yield (f"where the support is too large, `{best.name}` needs {self.needed_text(best)}")
        blind = [row for row in reached if not row.backwards]
        if blind and best.backwards:
            yield f"without f's slope, `{blind[0].name}` needs {self.needed_text(blind[0])}"

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
            "length": self.length,
            "settings": self.settings,
            "figures": rows,
            "refused": self.refused,
            "advice": self.advice(),
        }
