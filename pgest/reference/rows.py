"""What every definition on rows of logits shares: from logits z to u, whose softmax is p.

    v = z + bias,   v = softcap * tanh(v / softcap),   v = -inf where v < threshold,   u = v / T

Infinite logits are not squashed: what -inf excludes stays excluded.
"""

from __future__ import annotations

import torch
from torch import Tensor


def statistics_dtype(logits: Tensor) -> torch.dtype:
    """The dtype of statistics: float64 for float64 logits, float32 for all others."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def values(
    logits: Tensor,
    bias: Tensor | None = None,
    softcap: float = 0.0,
    threshold: Tensor | None = None,
) -> Tensor:
    """The values v of logits [..., V], in the dtype of the statistics.

    Args:
        bias: [V].
        softcap: 0 means none.
        threshold: [...]; what is below it is excluded.
    """
    v = logits.to(statistics_dtype(logits))
    if bias is not None:
        v = v + bias.to(v.dtype)
    if softcap:
        finite = torch.where(v.isinf(), 0.0, v)
        v = torch.where(v.isinf(), v, softcap * torch.tanh(finite / softcap))
    if threshold is not None:
        v = torch.where(v < threshold[..., None].to(v.dtype), -torch.inf, v)
    return v


def slopes(
    logits: Tensor,
    bias: Tensor | None = None,
    softcap: float = 0.0,
    threshold: Tensor | None = None,
) -> Tensor:
    """dv/dz of `values`: 1 - (v / softcap)^2 for what is squashed, 0 for what is excluded."""
    v = values(logits, bias, softcap)
    slope = torch.ones_like(v)
    if softcap:
        slope = torch.where(v.isinf(), 1.0, 1 - (torch.where(v.isinf(), 0.0, v) / softcap).square())
    if threshold is not None:
        slope = torch.where(v < threshold[..., None].to(v.dtype), 0.0, slope)
    return slope


def scaled(
    logits: Tensor,
    tokens: Tensor | None,
    temperature: Tensor | None,
    mask: Tensor | None,
    bias: Tensor | None = None,
    softcap: float = 0.0,
    threshold: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """u = v / T and the tokens, both harmless in masked rows, and u with 0 for -inf.

    A -inf value stays -inf whatever T is: T's gradient must not see it (0 * inf).
    """
    if mask is not None:
        logits = torch.where(mask[..., None], logits, 0.0)
        tokens = None if tokens is None else torch.where(mask, tokens, 0)
        threshold = None if threshold is None else torch.where(mask, threshold, -torch.inf)
    v = values(logits, bias, softcap, threshold)
    impossible = v == -torch.inf
    finite = torch.where(impossible, 0.0, v)
    if temperature is not None:
        t = temperature.to(v.dtype)
        t = (t if mask is None else torch.where(mask, t, 1.0))[..., None]
        v, finite = v / t.detach(), finite / t
    return torch.where(impossible, v, finite), tokens, finite
