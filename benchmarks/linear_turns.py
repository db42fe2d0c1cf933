"""Turns for calls that take seconds: as `benchmarks.harness`, with no call more than is needed."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from benchmarks.harness import Candidate, Here, Measured, Seat, _peak_bytes

LONG_S = 1.0
ROUNDS = 5


class Sparing(Here):
    """A candidate that gets an untimed turn only where a call is short."""

    def first(self) -> Measured:
        """The mean of two calls, which measure the memory; compiling is in it."""
        start = time.perf_counter()
        peak = _peak_bytes(self.candidate)
        self.last_s = (time.perf_counter() - start) / 2
        return Measured(self.last_s, peak)

    def seconds(self) -> float:
        if self.last_s < LONG_S:
            self._loop()
        self.last_s = self._loop()
        return self.last_s


def take_turns(
    seats: Mapping[str, Seat], no_turns: Collection[str], budget_s: float
) -> dict[str, Measured]:
    """Medians of at most `ROUNDS` rounds, begun within `budget_s` seconds; at least of one.

    Those in `no_turns` keep what their first two calls took.
    """
    first = {name: seat.first() for name, seat in seats.items()}
    times = {name: [first[name].seconds] if name in no_turns else [] for name in seats}
    start = time.perf_counter()
    for i in range(ROUNDS):
        if i and time.perf_counter() - start > budget_s:
            break
        for name, seat in seats.items():
            if name not in no_turns:
                times[name].append(seat.seconds())
    return {n: Measured(statistics.median(t), first[n].peak_bytes) for n, t in times.items()}


def serve(candidate: Callable[[dict[str, Any]], Candidate]) -> None:
    """The other end of `benchmarks.processes.Elsewhere`, sparing."""
    seat: Sparing | None = None
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not look like an answer
    for line in sys.stdin:
        message = json.loads(line)
        if "case" in message:
            seat = None  # free the last case's memory before the next is made
            seat = Sparing(candidate(message["case"]))
            first = seat.first()
            answer: Any = [first.seconds, first.peak_bytes]
        else:
            assert seat is not None
            answer = seat.seconds()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
