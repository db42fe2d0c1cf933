"""A function of one hypothesis as a reward of batches, in this process or in several others."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from math import inf, nan
from typing import Any, Literal

import torch
from torch import Tensor

from pgest.ops import scalars
from pgest.rewards.failures import FailedSamples, Index, index_of
from pgest.rewards.pairs import pairs_of
from pgest.rewards.protocol import name_of, no_prefixes
from pgest.rewards.workers import Failure, Outcome, Workers, attempt


class PerSample:
    """The reward that `per_sample` returns.

    `failures` says, by index, why samples of the last call have no score.
    """

    def __init__(
        self,
        f: Callable[[Any, list[Any]], Any],
        processes: int,
        timeout: float | None,
        on_error: Literal["raise", "nan"],
    ) -> None:
        self.__name__ = name_of(f)
        self.failures: dict[Index, str] = {}
        self._f = f
        self._raises = on_error == "raise"
        self._warned = False
        self._workers = Workers(f, processes, timeout) if processes else None

    def __call__(self, hypotheses: Any, references: Any, **options: Any) -> Tensor:
        """Return the scores: float32 `[B]`, or `[..., B]` for ids."""
        pairs = pairs_of(hypotheses, references, **no_prefixes("per_sample", options))
        samples = [(item, pairs.group(i)) for i, item in enumerate(pairs.hypotheses)]
        if self._workers is None:
            outcomes = [attempt(self._f, sample) for sample in samples]
        else:
            outcomes = self._workers.run(samples)
        numbers = [nan if isinstance(outcome, Failure) else outcome for outcome in outcomes]
        scores = torch.tensor(numbers, dtype=torch.float32).reshape(pairs.shape)
        self._judge(outcomes, scores)
        return scores

    def _judge(self, outcomes: Sequence[Outcome], scores: Tensor) -> None:
        """Raise, or warn the first time, where samples failed."""
        failed = {i: o for i, o in enumerate(outcomes) if isinstance(o, Failure)}
        self.failures = {index_of(i, scores.shape): o.message for i, o in failed.items()}
        if not failed:
            return
        traces = [failure.trace for failure in failed.values() if failure.trace]
        error = FailedSamples(scores, self.failures, traces[0] if traces else "")
        if self._raises:
            raise error
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{error}\nFailed samples score NaN, from here on without a word",
                RuntimeWarning,
                stacklevel=3,
            )

    def close(self) -> None:
        """End the processes. A later call starts new ones."""
        if self._workers is not None:
            self._workers.close()

    def __enter__(self) -> PerSample:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def per_sample(
    f: Callable[[Any, list[Any]], Any],
    *,
    processes: int = 0,
    timeout: float | None = None,
    on_error: Literal["raise", "nan"] = "raise",
) -> PerSample:
    """Return a reward of batches from a function that scores one hypothesis.

    All samples are scored, whichever fails: by an exception, a result that is no number, and in
    processes also by the death of one or by its time. Scores are in the order of the samples.

    Args:
        f: `f(hypothesis, references) -> number`. Both are strings or lists of tokens, of which only
            what counts is left, and references is always a list of them.
        processes: 0 calls f here, one sample after the other. n > 0 calls it in that many
            processes, started by the first call (each imports f's module and torch: some seconds)
            and kept until `close`. f must be a function of a module, and the work of a script that
            is run must be under `if __name__ == "__main__":`. Samples are sent in chunks. When a
            process is lost, its chunk is scored again, but for the sample that is to blame.
        timeout: seconds for one sample; needs processes. A process that takes longer is killed.
        on_error: "raise" raises `FailedSamples`, which names each failing sample and holds the
            scores of the others. "nan" lets them score NaN, with a warning the first time;
            `failures` of the reward says why, by index.

    Returns:
        A reward, and a context manager that closes its processes. They end with this one anyway.

    Raises:
        ValueError: for settings out of range; from the call, for `per_prefix` and what `pairs_of`
            refuses.
        TypeError: for an f, or samples, that cannot be pickled, where there are processes.
        RuntimeError: from the call, where processes cannot start.
        FailedSamples: a RuntimeError, as above.

    Example:
        >>> def price(hypothesis, references):
        ...     return min(abs(float(hypothesis) - float(r)) for r in references)
        >>> per_sample(price)(["3.5", "2"], [["4", "3"], "2"])
        tensor([0.5000, 0.0000])
        >>> try:
        ...     per_sample(price)(["3.5", "two", "1"], ["3", "2", "1"])
        ... except FailedSamples as error:
        ...     print(error.failures, error.scores)
        {1: "ValueError: could not convert string to float: 'two'"} tensor([0.5000,    nan, 0.0000])
    """
    if not callable(f):
        raise TypeError(f"f must be a function of a hypothesis and its references, got {f!r}")
    processes = scalars.integer("processes", processes)
    if processes < 0:
        raise ValueError(f"processes must be at least 0, got {processes}")
    if timeout is not None:
        timeout = scalars.number("timeout", timeout)
        if not 0 < timeout < inf:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout:g}")
        if not processes:
            raise ValueError("timeout must be None without processes, which alone can be stopped")
    if on_error not in ("raise", "nan"):
        raise ValueError(f"on_error must be 'raise' or 'nan', got {on_error!r}")
    return PerSample(f, processes, timeout, on_error)
