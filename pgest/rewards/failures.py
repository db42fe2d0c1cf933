"""The error of a batch of which some samples have no score, and what keeps it whole in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

from torch import Tensor

from pgest.rewards.protocol import Reward, scores_of

Index = int | tuple[int, ...]


class FailedSamples(RuntimeError):
    """Some samples have no score; the others have.

    `failures` says why, by index: a number, or one for each dimension of `scores`. `scores` are
    those of the whole batch, float32 `[..., B]`, NaN where one failed.
    """

    def __init__(self, scores: Tensor, failures: Mapping[Index, str], trace: str = "") -> None:
        self.scores = scores
        self.failures = dict(failures)
        self.trace = trace
        indices: dict[str, list[Index]] = {}
        for index, message in self.failures.items():
            indices.setdefault(message, []).append(index)
        lines = [f"{len(self.failures)} of {scores.numel()} samples could not be scored"]
        for message, where in indices.items():
            lines.append(f"  {', '.join(map(str, where))}: {message}")
        if trace:
            lines += ["The first that raised an exception:", trace.rstrip()]
        super().__init__("\n".join(lines))


class Parts:
    """Scores of the parts of a reward: a sample that fails in one hides no other of any part."""

    def __init__(self, hypotheses: Any, references: Any, options: Mapping[str, Any]) -> None:
        self._batch = (hypotheses, references, options)
        self._failures: dict[Index, str] = {}
        self._trace = ""

    def of(self, reward: Reward) -> Tensor:
        """Return the scores of a part, NaN where it fails."""
        try:
            return scores_of(reward, *self._batch)
        except FailedSamples as error:
            self._failures = {**error.failures, **self._failures}
            self._trace = self._trace or error.trace
            return error.scores.clone()

    def whole(self, scores: Tensor) -> Tensor:
        """Return the scores that the parts make, unless a sample failed in any of them."""
        if not self._failures:
            return scores
        scores = scores.clone()
        for index in self._failures:
            scores[index] = nan
        raise FailedSamples(scores, self._failures, self._trace)


def index_of(flat: int, shape: Sequence[int]) -> Index:
    """Return the index of an element: a number where there is one dimension.

    Example:
        >>> index_of(5, (3,)), index_of(5, (2, 3))
        (5, (1, 2))
    """
    if len(shape) == 1:
        return flat
    index = []
    for size in reversed(shape):
        flat, rest = divmod(flat, size)
        index.append(rest)
    return tuple(reversed(index))
