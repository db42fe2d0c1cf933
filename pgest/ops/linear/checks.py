"""Argument checks of the linear ops: the name, what came, what was expected."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pgest.ops import checks, scalars
from pgest.ops.checks import HEAD
from pgest.ops.linear.kernel import LinearInput
from pgest.ops.stats.kernel import BITS, BY_TOKEN
from pgest.ops.stats.kernel import OUTPUTS as STATS

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# "value" would take rewards [..., V], as large as the logits.
OUTPUTS = tuple(name for name in STATS if name != "value")


def arguments(
    hidden: Any,
    weight: Any,
    tokens: Any,
    outputs: Any,
    *,
    bias: Any,
    softcap: Any,
    temperature: Any,
    threshold: Any,
    mask: Any,
    reference: Any,
    chunk_rows: Any,
    accumulate: Any,
) -> LinearInput:
    """What the op reads, of what a user gave."""
    hidden, weight = head(hidden, weight)
    names = checks.outputs(outputs, OUTPUTS)
    logits = hidden.detach()[..., :1].expand(*hidden.shape[:-1], len(weight))  # for its shape
    if accumulate not in ("full", "weight"):
        raise ValueError(f'accumulate must be "full" or "weight", got {accumulate!r}')
    bits = sum({BITS[name] for name in names})
    return LinearInput(
        hidden,
        weight,
        checks.bias(bias, logits, of=HEAD),
        checks.tokens(tokens, logits, needed=bool(bits & BY_TOKEN), of=HEAD),
        scalars.softcap(softcap),
        checks.temperature(temperature, logits, of=HEAD),
        checks.threshold(threshold, logits, of=HEAD),
        checks.mask(mask, logits, of=HEAD),
        *_reference(reference, logits, "kl" in names or "reverse_kl" in names),
        bits,
        None if chunk_rows is None else scalars.count("chunk_rows", chunk_rows),
        accumulate == "full",
    )


def head(hidden: Any, weight: Any, of: str = "") -> tuple[Tensor, Tensor]:
    """hidden [..., D] and weight [V, D] in one dtype: under autocast, in that of autocast."""
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
    if weight.device != hidden.device:
        raise ValueError(
            f"{of}weight must be on {hidden.device} like {of}hidden, got {weight.device}"
        )
    hidden, weight = _autocast(hidden), _autocast(weight)
    if weight.dtype != hidden.dtype:
        raise TypeError(
            f"{of}weight must be {hidden.dtype} like {of}hidden (torch.autocast casts them "
            f"alike), got {weight.dtype}"
        )
    return hidden, weight


def _autocast(x: Tensor) -> Tensor:
    kind = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return x
    return x.to(torch.get_autocast_dtype(kind))


def _reference(
    x: Any, logits: Tensor, needed: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The reference policy's hidden, weight and bias, where outputs compare with it."""
    if not needed:
        if x is not None:
            raise ValueError(
                'reference is given but nothing compares with it: ask for "kl" or "reverse_kl" in '
                "outputs"
            )
        return None, None, None
    if not isinstance(x, tuple) or len(x) not in (2, 3):
        raise ValueError(
            "reference must be (hidden, weight) or (hidden, weight, bias) when outputs ask for "
            f'"kl" or "reverse_kl", got {"None" if x is None else type(x).__name__}'
        )
    hidden, weight = head(x[0], x[1], "reference ")
    bias = checks.bias(x[2], logits, "reference bias", HEAD) if len(x) == 3 else None
    if (*hidden.shape[:-1], len(weight)) != logits.shape:
        raise ValueError(
            f"reference hidden and weight must make logits {tuple(logits.shape)} like hidden and "
            f"weight, got hidden {_shape(hidden)} and weight {_shape(weight)}"
        )
    if hidden.dtype != logits.dtype or hidden.device != logits.device:
        raise TypeError(
            f"reference hidden and weight must be {logits.dtype} on {logits.device} like hidden, "
            f"got {hidden.dtype} on {hidden.device}"
        )
    for name, t in (("hidden", hidden), ("weight", weight), ("bias", bias)):
        if t is not None and t.requires_grad:
            raise ValueError(
                f"reference {name} must not require a gradient: the reference policy is fixed; "
                "pass it detached"
            )
    return hidden, weight, bias


def _shape(x: Tensor) -> str:
    return str(tuple(x.shape))
