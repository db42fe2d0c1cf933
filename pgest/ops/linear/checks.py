"""Argument checks of the linear ops: the name, what came, what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pgest.ops import checks

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def arguments(
    hidden: Any,
    weight: Any,
    tokens: Any,
    outputs: Sequence[str],
    *,
    bias: Any,
    temperature: Any,
    mask: Any,
    chunk_rows: Any,
    accumulate: Any,
) -> tuple[Any, ...]:
    """The arguments of the op linear_token_stats, of what a user gave; `outputs` are checked."""
    hidden, weight, bias = head(hidden, weight, bias)
    logits = hidden.detach()[..., :1].expand(*hidden.shape[:-1], len(weight))  # for its shape
    tokens = checks.tokens(tokens, logits, needed="logp" in outputs)
    scale = checks.temperature(temperature, logits)
    mask = checks.mask(mask, logits)
    if chunk_rows is not None and (type(chunk_rows) is not int or chunk_rows < 1):
        raise ValueError(f"chunk_rows must be None or an integer >= 1, got {chunk_rows!r}")
    if accumulate not in ("full", "weight"):
        raise ValueError(f'accumulate must be "full" or "weight", got {accumulate!r}')
    options = ("entropy" in outputs, chunk_rows, accumulate == "full")
    return (hidden, weight, bias, tokens, scale, mask, *options)


def head(hidden: Any, weight: Any, bias: Any, of: str = "") -> tuple[Tensor, Tensor, Tensor | None]:
    """hidden [..., D], weight [V, D] and bias [V], in one dtype: under autocast, in autocast's."""
    for name, x in (("hidden", hidden), ("weight", weight)):
        checks.tensor(of + name, x)
        if x.dtype not in FLOATS:
            raise TypeError(
                f"{of}{name} must be float32, float64, bfloat16 or float16, got {x.dtype}"
            )
    if hidden.dim() == 0 or hidden.shape[-1] == 0:
        raise ValueError(f"{of}hidden must have shape [..., D] with D >= 1, got {_shape(hidden)}")
    width = hidden.shape[-1]
    if weight.dim() != 2 or weight.shape[0] == 0 or weight.shape[1] != width:
        raise ValueError(
            f"{of}weight must have shape [V, {width}] with V >= 1, like a linear layer's for "
            f"{of}hidden [..., {width}], got {_shape(weight)}"
        )
    if bias is not None:
        checks.tensor(of + "bias", bias)
        if bias.shape != weight.shape[:1]:
            raise ValueError(
                f"{of}bias must have shape ({weight.shape[0]},), one for each row of {of}weight, "
                f"got {_shape(bias)}"
            )
    return _same_kind(hidden, weight, bias, of)


def _same_kind(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, of: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    given = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    for name, x in given.items():
        if x.device != hidden.device:
            raise ValueError(
                f"{of}{name} must be on {hidden.device} like {of}hidden, got {x.device}"
            )
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        to = torch.get_autocast_dtype(kind)
        hidden, weight = _autocast(hidden, to), _autocast(weight, to)
        bias = None if bias is None else _autocast(bias, to)
        given = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    for name, x in given.items():
        if x.dtype != hidden.dtype:
            raise TypeError(
                f"{of}{name} must be {hidden.dtype} like {of}hidden (torch.autocast casts them "
                f"alike), got {x.dtype}"
            )
    return hidden, weight, bias


def _autocast(x: Tensor, to: torch.dtype) -> Tensor:
    return x if x.dtype == torch.float64 else x.to(to)


def _shape(x: Tensor) -> str:
    return str(tuple(x.shape))
