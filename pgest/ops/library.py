"""Schemas of the ops, the back end that runs them, and their fake kernels.

The compiled extension registers the CPU kernels under these schemas. Every device and machine
without a kernel runs `pgest.reference` under the same names, so nothing above this file knows the
difference.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from torch import Tensor

from pgest import reference

_ARGUMENTS = "Tensor? tokens, Tensor? temperature, Tensor? mask"
_GRADIENTS = (
    "Tensor state, Tensor? grad_logp, Tensor? grad_entropy, Tensor? grad_lse, bool by_temperature"
)
SCHEMAS = (
    f"token_stats(Tensor logits, {_ARGUMENTS}, bool entropy)"
    " -> (Tensor logp, Tensor entropy, Tensor lse, Tensor state)",
    f"token_stats_backward(Tensor logits, {_ARGUMENTS}, {_GRADIENTS})"
    " -> (Tensor grad_logits, Tensor grad_temperature)",
    f"token_stats_backward_(Tensor(a!) logits, {_ARGUMENTS}, {_GRADIENTS})"
    " -> Tensor grad_temperature",
)


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
for _schema in SCHEMAS:
    _library.define(_schema)
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


def _tell_once() -> None:
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


def _outputs(logits: Tensor, tokens: Tensor | None, entropy: bool) -> tuple[Tensor, ...]:
    dtype, batch = reference.statistics_dtype(logits), logits.shape[:-1]
    return (
        logits.new_empty((0,) if tokens is None else tokens.shape, dtype=dtype),
        logits.new_empty(batch if entropy else (0,), dtype=dtype),
        logits.new_empty(batch, dtype=dtype),
        logits.new_empty((3, *batch), dtype=torch.float64),
    )


def _token_stats(
    logits: Tensor,
    tokens: Tensor | None,
    temperature: Tensor | None,
    mask: Tensor | None,
    entropy: bool,
) -> tuple[Tensor, ...]:
    _tell_once()
    _check_values(logits, tokens, temperature, mask)
    with torch.no_grad():
        values = reference.token_stats(logits, tokens, temperature, mask)
    outputs = _outputs(logits, tokens, entropy)
    for output, value in zip(outputs, values, strict=False):
        if output.shape != (0,) and value is not None:
            output.copy_(value)
    outputs[3].zero_()  # the reference's backward starts from the logits
    return outputs


def _check_values(
    logits: Tensor, tokens: Tensor | None, temperature: Tensor | None, mask: Tensor | None
) -> None:
    """What the CPU kernels refuse; elsewhere a check would synchronise."""
    if logits.device.type != "cpu":
        return
    live = torch.ones(logits.shape[:-1], dtype=torch.bool) if mask is None else mask
    if temperature is not None:
        bad = live & ~((temperature > 0) & temperature.isfinite())
        if bad.any():
            row = int(bad.flatten().nonzero()[0])
            value = temperature.flatten()[row].item()
            raise ValueError(f"temperature must be positive and finite, got {value} in row {row}")
    if tokens is not None:
        bad = live & ((tokens < 0) | (tokens >= logits.shape[-1]))
        if bad.any():
            raise ValueError(
                f"tokens must be in [0, {logits.shape[-1]}) like the last dimension of logits, "
                f"got {tokens[bad][0].item()}"
            )


def _upstream(logits: Tensor, mask: Tensor | None, grads: tuple[Tensor | None, ...]) -> Tensor:
    """The rows [...] that are live and have a gradient."""
    read = torch.zeros(logits.shape[:-1], dtype=torch.bool, device=logits.device)
    for grad in grads:
        if grad is not None:
            read = read | ((grad != 0).any(0) if grad.dim() == logits.dim() else grad != 0)
    return read if mask is None else read & mask


def _token_stats_backward(
    logits: Tensor,
    tokens: Tensor | None,
    temperature: Tensor | None,
    mask: Tensor | None,
    state: Tensor,
    grad_logp: Tensor | None,
    grad_entropy: Tensor | None,
    grad_lse: Tensor | None,
    by_temperature: bool,
) -> tuple[Tensor, Tensor]:
    _tell_once()
    with torch.no_grad():
        grads = (grad_logp, grad_entropy, grad_lse)
        # A row without a gradient stays 0 even where it holds a NaN, as in the kernels: a loss may
        # mask it afterwards. Not in the definition: the second order needs these rows.
        read = _upstream(logits, mask, grads)
        grad_logits, grad_temperature = reference.token_stats_backward(
            logits, tokens, temperature, read, *grads
        )
    if grad_temperature is None or not by_temperature:
        grad_temperature = logits.new_empty(0)
    return grad_logits.contiguous(), grad_temperature.to(torch.float64)


def _token_stats_backward_(logits: Tensor, *args: Any) -> Tensor:
    grad_logits, grad_temperature = _token_stats_backward(logits, *args)
    logits.copy_(grad_logits)
    return grad_temperature


_library.impl("token_stats", _token_stats, "CompositeExplicitAutograd")
_library.impl("token_stats_backward", _token_stats_backward, "CompositeExplicitAutograd")
_library.impl("token_stats_backward_", _token_stats_backward_, "CompositeExplicitAutograd")


@torch.library.register_fake("pgest::token_stats", lib=_library)
def _(
    logits: Tensor,
    tokens: Tensor | None,
    temperature: Tensor | None,
    mask: Tensor | None,
    entropy: bool,
) -> tuple[Tensor, ...]:
    return _outputs(logits, tokens, entropy)


def _fake_grad_temperature(logits: Tensor, by_temperature: bool) -> Tensor:
    return logits.new_empty(logits.shape[:-1] if by_temperature else (0,), dtype=torch.float64)


@torch.library.register_fake("pgest::token_stats_backward", lib=_library)
def _(logits: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    return logits.new_empty(logits.shape), _fake_grad_temperature(logits, args[-1])


@torch.library.register_fake("pgest::token_stats_backward_", lib=_library)
def _(logits: Tensor, *args: Any) -> Tensor:
    return _fake_grad_temperature(logits, args[-1])
