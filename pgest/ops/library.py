"""The library of ops and the back end that runs them.

Each op defines its schema here, with what runs without a kernel and its fake kernel. The compiled
extension registers the CPU kernels under the same names, so nothing above knows the difference.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import torch


def _load() -> str | None:
    """Import the extension; the reason if that fails."""
    try:
        import pgest._C  # noqa: F401
    except ImportError as error:
        if os.environ.get("PGEST_REQUIRE_KERNELS") == "1":
            raise ImportError(
                "PGEST_REQUIRE_KERNELS=1 but the compiled extension pgest._C did not load "
                f"({error}); without this variable `pgest doctor` runs and says what to do"
            ) from error
        return str(error)
    return None


_library = torch.library.Library("pgest", "DEF")
_load_error = _load()
_told = False


def backend() -> str:
    """Which code runs the ops on CPU tensors: "native" (compiled) or "reference".

    Example:
        >>> backend() in ("native", "reference")
        True
    """
    return "native" if _load_error is None else "reference"


def build_info() -> dict[str, Any]:
    """What was built and loaded: backend, isa, threads, cuda, and why the extension is missing.

    Example:
        >>> sorted(build_info())
        ['backend', 'cuda', 'error', 'isa', 'threads']
    """
    isa, cuda = "none (plain PyTorch)", False
    if _load_error is None:
        from pgest import _C

        isa, cuda = _C.isa(), _C.cuda()
    return {
        "backend": backend(),
        "isa": isa,
        "threads": torch.get_num_threads(),
        "cuda": cuda,
        "error": _load_error,
    }


def tell_once() -> None:
    """Say that plain PyTorch is doing a kernel's work, the first time it does."""
    global _told
    if _told or _load_error is None:
        return
    _told = True
    warnings.warn(
        f"pgest runs on its reference path in plain PyTorch, correct but slow: the compiled "
        f"extension did not load ({_load_error}). `pgest doctor` says what to do.",
        RuntimeWarning,
        stacklevel=2,
    )


def define(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Define an op: `run` is what runs where there is no compiled kernel, `fake` gives shapes."""
    name = schema.partition("(")[0]
    _library.define(schema)
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"pgest::{name}", fake, lib=_library)


def call(op: Any, *args: Any) -> Any:
    """Run a kernel; what it refuses about values arrives as ValueError in eager code."""
    if torch.compiler.is_compiling():
        return op(*args)
    try:
        return op(*args)
    except RuntimeError as error:
        message = str(error)
        if message.startswith("pgest: "):
            raise ValueError(message.removeprefix("pgest: ").splitlines()[0]) from None
        raise
