"""Candidates in processes of their own, which answer over a pipe when it is their turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import Candidate, Here, Measured

SETTLE_S = 0.02  # threads of the process before may still spin


class Elsewhere:
    """Starts `python -m MODULE --serve WHO` with variables added to its environment."""

    def __init__(self, module: str, who: str, variables: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "--serve", who],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, message: dict[str, Any]) -> Any:
        """Send one message, wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended while it was asked for {message}")
        return json.loads(line)

    def at(self, case: dict[str, Any]) -> AtCase:
        """A seat for one case of a sweep."""
        return AtCase(self, case)


@dataclass(frozen=True)
class AtCase:
    """One process at one case."""

    process: Elsewhere
    case: dict[str, Any]

    def first(self) -> Measured:
        return Measured(*self.process.ask({"case": self.case}))

    def seconds(self) -> float:
        time.sleep(SETTLE_S)
        seconds: float = self.process.ask({"time": "once"})
        return seconds


def serve(candidate: Callable[[dict[str, Any]], Candidate]) -> None:
    """Answer the parent until it closes the pipe: a case is set up, or timed once."""
    seat: Here | None = None
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not look like an answer
    for line in sys.stdin:
        message = json.loads(line)
        if "case" in message:
            seat = None  # free the last case's memory before the next is made
            seat = Here(candidate(message["case"]))
            first = seat.first()
            answer: Any = [first.seconds, first.peak_bytes]
        else:
            assert seat is not None
            answer = seat.seconds()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
