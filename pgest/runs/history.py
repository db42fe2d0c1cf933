"""What is measured while a run trains."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

Figures = dict[str, float]
"""Named measurements of one update or one evaluation."""


@dataclass(frozen=True)
class Evaluation:
    """Figures on a part of the data, their standard errors where known, and the task's own details.

    Errors have the names of their figures; without that of the metric no warning is given about
    it. `details` is what `Task.report` compares.
    """

    figures: Figures
    standard_errors: Figures = field(default_factory=dict)
    details: Any = None


@dataclass(frozen=True)
class Metric:
    """The held-out figure that says which model is best, and whether less or more of it is better.

    Example:
        >>> Metric("WER", "min").better(28.0, 30.0)
        True
    """

    name: str
    goal: Literal["min", "max"]

    def better(self, new: float, old: float) -> bool:
        """Whether `new` is better than `old`; any number is better than NaN."""
        if math.isnan(old):
            return not math.isnan(new)
        return new < old if self.goal == "min" else new > old


@dataclass
class History:
    """The figures of every update and every evaluation; each holds its `step`.

    `warnings` say `about` what and hold a `sentence`; `seconds` is the time spent, by part.
    """

    updates: list[Figures] = field(default_factory=list)
    evaluations: list[Figures] = field(default_factory=list)
    warnings: list[dict[str, str]] = field(default_factory=list)
    seconds: Figures = field(default_factory=dict)

    def best(self, metric: Metric) -> int:
        """Return the index of the first evaluation that no other is better than."""
        best = 0
        for i, row in enumerate(self.evaluations):
            if metric.better(row[metric.name], self.evaluations[best][metric.name]):
                best = i
        return best

    def mean(self, name: str, start: int, stop: int) -> float:
        """Return the mean of a figure over the updates `start` to `stop - 1`."""
        values = [row[name] for row in self.updates[start:stop]]
        return sum(values) / len(values)


@dataclass
class Clock:
    """Adds up seconds by part: `with clock("sample"): ...`.

    On a GPU a part includes the wait for work that was queued before it.
    """

    seconds: Figures = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the time of the block under this name."""
        started = perf_counter()
        try:
            yield
        finally:
            self.add(part, perf_counter() - started)

    def add(self, part: str, seconds: float) -> None:
        """Count seconds under this name."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds
