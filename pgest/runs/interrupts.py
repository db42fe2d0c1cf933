"""Ctrl-C that waits for the end of an update."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop and has left a checkpoint."""


@dataclass
class Request:
    """Whether somebody has asked to stop."""

    made: bool = False


@contextmanager
def stop_request() -> Iterator[Request]:
    """Turn the first Ctrl-C, or SIGTERM, into a request; a second one acts as it always does.

    Outside the main thread, where signals do not arrive, the request is never made.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        request.made = True
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in _SIGNALS:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
