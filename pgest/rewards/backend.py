"""The compiled metrics, or the Python libraries that they are equal to."""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType


def _load() -> tuple[ModuleType, str | None]:
    """What computes, and why it is not the extension."""
    try:
        text = import_module("pgest._text")
    except ImportError as error:
        if os.environ.get("PGEST_REQUIRE_KERNELS") == "1":
            raise ImportError(
                "PGEST_REQUIRE_KERNELS=1 but the compiled extension pgest._text did not load "
                f"({error}); without this variable `pgest doctor` runs and says what to do"
            ) from error
        from pgest.rewards import libraries

        return libraries, str(error)
    return text, None


text, load_error = _load()


def backend() -> str:
    """Which code scores text: "native" (compiled) or "libraries" (sacrebleu, rapidfuzz, ...).

    Example:
        >>> backend() in ("native", "libraries")
        True
    """
    return "native" if load_error is None else "libraries"
