"""Processes that score samples one by one, and tell which sample killed or held up one of them.

A pool of futures knows neither: when a process dies all that is queued fails alike, and one that
hangs is waited for. So each process here shares two numbers with its owner: which sample it is at,
and since when.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from math import ceil, inf
from multiprocessing import connection, get_context
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

LARGEST_CHUNK = 32  # a chunk costs about 0.1 ms to send, and what is lost is scored again
IDLE = -1


class Failure(NamedTuple):
    """Why a sample has no score: a line, and the traceback where there is one."""

    message: str
    trace: str = ""


Outcome = float | Failure


def attempt(f: Callable[..., Any], sample: tuple[Any, ...]) -> Outcome:
    """Return `f(*sample)`, or why there is no number."""
    try:
        score = f(*sample)
        single = isinstance(score, Tensor) and score.numel() == 1 and not score.is_complex()
        if not single and not isinstance(score, Real | np.bool_):
            raise TypeError(f"f must return a number, got {score!r}")
        return float(score)
    except Exception as error:
        return Failure(f"{type(error).__name__}: {error}", traceback.format_exc())


def pickled(name: str, value: Any) -> bytes:
    """Return a value in the form that reaches another process.

    Raises:
        TypeError: for what has none, such as a lambda.
    """
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # pickle raises PicklingError, AttributeError, TypeError and others
        raise TypeError(
            f"{name} must be picklable to reach other processes (a function of a module, no lambda "
            f"and no closure), got {value!r:.200}: {error}"
        ) from error


class Workers:
    """At most `processes` processes, started when needed, that apply `f` to samples.

    `timeout`, in seconds, bounds one sample; None waits for ever.
    """

    def __init__(self, f: Callable[..., Any], processes: int, timeout: float | None) -> None:
        self._f = pickled("f", f)
        self._processes = processes
        self._timeout = inf if timeout is None else timeout
        self._workers: list[_Worker] = []

    def run(self, samples: Sequence[tuple[Any, ...]]) -> list[Outcome]:
        """Return what became of each sample, in their order.

        Raises:
            RuntimeError: where processes cannot start, or cannot load `f`.
            TypeError: for samples that cannot be pickled.
        """
        size = min(LARGEST_CHUNK, ceil(len(samples) / (4 * self._processes)))
        numbers = list(range(len(samples)))
        queue = deque(numbers[i : i + size] for i in range(0, len(samples), size or 1))
        outcomes: dict[int, Outcome] = {}
        try:
            while len(outcomes) < len(samples):
                self._hand_out(queue, samples)
                for worker in self._wait():
                    outcomes.update(worker.receive())
                    if worker.lost:
                        self._bury(worker, queue, outcomes)
        except BaseException:  # Ctrl-C above all: what still runs belongs to nobody
            self.close()
            raise
        return [outcomes[i] for i in numbers]

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def _hand_out(self, queue: deque[list[int]], samples: Sequence[tuple[Any, ...]]) -> None:
        """Give each idle process a chunk, starting what is missing first, all of it at once."""
        idle = [worker for worker in self._workers if not worker.chunk]
        wanted = min(self._processes - len(self._workers), len(queue) - len(idle))
        started = [_Worker(self._f) for _ in range(wanted)]
        self._workers += started
        for worker, _ in zip([*idle, *started], range(len(queue)), strict=False):
            chunk = queue.popleft()
            payload = pickled("hypotheses and references", [samples[i] for i in chunk])
            worker.give(chunk, payload)

    def _wait(self) -> list[_Worker]:
        """Return the busy processes that answer, that have died, or that took too long."""
        busy = [worker for worker in self._workers if worker.chunk]
        now = time.monotonic()
        # What has not begun yet begins later than now.
        ends = [min(worker.since, now) + self._timeout for worker in busy]
        left = None if self._timeout == inf else max(0.0, min(ends) - now)
        handles = {handle: worker for worker in busy for handle in worker.handles}
        found = {handles[handle] for handle in connection.wait(list(handles), left)}  # type: ignore[index]
        late = [w for w in busy if w not in found and w.stop_if_late(self._timeout)]
        return [*found, *late]

    def _bury(self, worker: _Worker, queue: deque[list[int]], outcomes: dict[int, Outcome]) -> None:
        """Blame the sample that a lost process was at, and queue the rest of its chunk again."""
        self._workers.remove(worker)
        worker.kill()
        if not worker.loaded:
            raise RuntimeError(
                f"a process for per_sample could not start: {worker.fate}. It imports the script "
                "that is run once more, whose own work must be under `if __name__ == '__main__':`"
            )
        chunk = worker.chunk
        if chunk and worker.position != IDLE:
            outcomes[chunk.pop(worker.position)] = Failure(worker.fate)
        if chunk:
            queue.appendleft(chunk)


class _Worker:
    """One process: the chunk that it has, and what it shares with its owner."""

    def __init__(self, f: bytes) -> None:
        context = get_context("spawn")  # a fork would copy locks that torch's threads hold
        self._shared = context.RawArray("d", [IDLE, inf])
        self._ours, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, f, self._shared), name="pgest-reward", daemon=True
        )
        self._process.start()
        theirs.close()  # so that its end is the end of the pipe
        self.handles = (self._ours, self._process.sentinel)
        self.chunk: list[int] = []
        self.loaded = False
        self.lost = False
        self.position = IDLE
        self.fate = ""

    @property
    def since(self) -> float:
        """When the sample that it is at began, by the monotonic clock; infinity for none."""
        return float(self._shared[1])

    def give(self, chunk: list[int], payload: bytes) -> None:
        """Send samples to a process without any."""
        self.chunk = chunk
        with contextlib.suppress(OSError):  # it has died, which `receive` finds
            self._ours.send_bytes(payload)

    def receive(self) -> dict[int, Outcome]:
        """Return the outcomes that have come, and notice whether the process is lost."""
        outcomes: dict[int, Outcome] = {}
        alive = self._process.is_alive()  # asked first: what the dead have sent is all there
        try:
            while self._ours.poll():
                answer = self._ours.recv()
                if isinstance(answer, str):
                    raise RuntimeError(f"f cannot be loaded in another process: {answer}")
                self.loaded = True
                if answer:
                    outcomes = dict(zip(self.chunk, answer, strict=True))
                    self.chunk = []
        except (EOFError, OSError):
            alive = False
        if not alive and not self.lost:
            self._process.join()
            self._lose(_ending(self._process.exitcode), int(self._shared[0]))
        return outcomes

    def stop_if_late(self, timeout: float) -> bool:
        """Kill a process whose sample takes longer than this; returns whether it does."""
        position = int(self._shared[0])  # read first: it is written last
        if self.since + timeout > time.monotonic():
            return False
        self._process.kill()
        self._lose(f"took longer than timeout={timeout:g} s", position)
        return True

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()
        self._process.join()
        self._ours.close()

    def _lose(self, fate: str, position: int) -> None:
        self.lost, self.fate, self.position = True, fate, position


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"


def _serve(pipe: connection.Connection[Any, Any], f: bytes, shared: Any) -> None:
    """Score chunks until the owner is gone. Says [] once it is ready, then one answer a chunk."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, who ends this one
    try:
        function = pickle.loads(f)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        return
    try:
        pipe.send([])
        while True:
            samples = pickle.loads(pipe.recv_bytes())
            outcomes = []
            for position, sample in enumerate(samples):
                shared[1], shared[0] = time.monotonic(), position
                outcomes.append(attempt(function, sample))
            shared[1], shared[0] = inf, IDLE
            pipe.send(outcomes)
    except (EOFError, BrokenPipeError):
        return
