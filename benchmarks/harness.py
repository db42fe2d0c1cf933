"""Measuring: turns, medians, peak memory, ceilings; tables say where and when.

Absolute times mean little on a shared machine. Candidates take turns, round by round, so that a
slow moment hits all of them, and tables lead with ratios.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

import pgest
from pgest.runs import record

RESULTS = Path(__file__).parent / "results"
LONG_ENOUGH_S = 0.05
SLOW_S = 1.0  # a call that takes longer is warm from its last turn, and is timed in fewer rounds


@dataclass(frozen=True)
class Candidate:
    """Something to time: `prepare` runs untimed before every timed `run`."""

    run: Callable[[], Any]
    prepare: Callable[[], Any] = field(default=lambda: None)


@dataclass(frozen=True)
class Measured:
    """Median seconds of a call and the bytes that it needed on top of its inputs."""

    seconds: float
    peak_bytes: int | None


def measure(candidates: dict[str, Candidate], budget_s: float = 6.0) -> dict[str, Measured]:
    """Time candidates of one process in turns, for about `budget_s` seconds in all."""
    return take_turns({name: Here(c) for name, c in candidates.items()}, budget_s)


class Seat(Protocol):
    """Where a candidate is measured: in this process, or in one of its own."""

    def first(self) -> Measured:
        """Warm up; one rough timing, and the peak memory."""

    def seconds(self) -> float:
        """Seconds of one call."""


def take_turns(
    seats: Mapping[str, Seat], budget_s: float, no_turns: Collection[str] = ()
) -> dict[str, Measured]:
    """Medians of rounds in which every seat is timed once.

    Those in `no_turns`, too slow for it, keep what their first warm call took.
    """
    first = {name: seat.first() for name, seat in seats.items()}
    playing = {name: seat for name, seat in seats.items() if name not in no_turns}
    turn_s = sum(2 * max(first[name].seconds, LONG_ENOUGH_S) for name in playing)
    slow = any(first[name].seconds > SLOW_S for name in playing)
    rounds = int(min(51, max(3 if slow else 5, budget_s / turn_s)))
    times = {name: [] if name in playing else [m.seconds] for name, m in first.items()}
    for _ in range(rounds):
        for name, seat in playing.items():
            times[name].append(seat.seconds())
    return {n: Measured(statistics.median(t), first[n].peak_bytes) for n, t in times.items()}


class Here:
    """A candidate in this process."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.slow = False

    def first(self) -> Measured:
        warm = self._loop()
        start = time.perf_counter()
        peak = _peak_bytes(self.candidate)
        seconds = time.perf_counter() - start
        if warm <= SLOW_S:
            seconds = self._loop()
        self.slow = seconds > SLOW_S
        return Measured(seconds, peak)

    def seconds(self) -> float:
        # An untimed turn first, as in a training loop: threads are awake, and memory was freed a
        # moment ago. After a pause threads sleep, and the system may have taken the memory back.
        if not self.slow:
            self._loop()
        return self._loop()

    def _loop(self) -> float:
        """The mean of as many calls as take a while; one if it takes long."""
        calls, elapsed = 0, 0.0
        while elapsed < LONG_ENOUGH_S:
            self.candidate.prepare()
            start = time.perf_counter()
            self.candidate.run()
            elapsed += time.perf_counter() - start
            calls += 1
        return elapsed / calls


def _peak_bytes(candidate: Candidate) -> int | None:
    """Growth of the resident set in a call, beyond what the calls before left; None if unknown."""
    candidate.prepare()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        candidate.run()
        return max(0, _status("VmHWM") - before)
    except OSError:
        return None


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{key} is not in /proc/self/status")


def ceilings(num_bytes: int) -> dict[str, float]:
    """What memory allows here and now, in GB/s: reading, and copying to touched and fresh pages."""
    source = torch.ones(num_bytes // 4)
    touched = torch.ones_like(source)
    found = measure(
        {
            "read": Candidate(lambda: source.sum()),
            "read as max": Candidate(lambda: source.amax()),
            "copy": Candidate(lambda: touched.copy_(source)),
            "copy to fresh pages": Candidate(lambda: source.clone()),
        },
        budget_s=3.0,
    )
    rate = {name: num_bytes / m.seconds / 1e9 for name, m in found.items()}
    return {
        "read": max(rate["read"], rate.pop("read as max")),
        "copy": 2 * rate["copy"],
        "copy to fresh pages": 2 * rate["copy to fresh pages"],
    }


def environment() -> dict[str, str]:
    """Device, versions and date: what a number means nothing without."""
    info = pgest.build_info()
    processor = record.environment("cpu")["device"]
    return {
        "device": f"{processor}, {os.cpu_count()} cores, {info['threads']} threads",
        "kernels": f"{info['backend']}, {info['isa']}",
        "torch": torch.__version__,
        "pgest": f"{pgest.__version__} ({_commit()})",
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip() or "no git"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, padded so that it also reads well in a terminal."""
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    lines = [[c.ljust(w) for c, w in zip(r, widths, strict=True)] for r in [header, *rows]]
    lines.insert(1, ["-" * w for w in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
