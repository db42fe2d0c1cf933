"""bit_stats in the op table: logits are those of bits, tokens say which bits are 1."""

from __future__ import annotations

from typing import Any

import torch
from op_row import Inputs, Op, Outputs
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

import pgest
from pgest import reference


def _bits(x: Inputs, dtype: torch.dtype) -> Tensor:
    """Bits [..., D] or [S, ..., D] that depend on the tokens."""
    place = torch.arange(x.logits.shape[-1])
    return ((place + x.tokens[..., None]) % 3 == 0).to(dtype)


def _run(x: Inputs, event_dims: int, dtype: torch.dtype | None) -> Outputs:
    bits = _bits(x, dtype or x.logits.dtype)
    stats = pgest.bit_stats(x.logits, bits, event_dims=event_dims)
    assert stats.logp is not None
    assert stats.entropy is not None
    return stats.logp, stats.entropy


def _samples(x: Inputs) -> Tensor:
    bits = _bits(x, x.logits.dtype)
    return bits if bits.dim() > x.logits.dim() else bits[None]


def _define(x: Inputs, event_dims: int) -> Outputs:
    logp, entropy = reference.bit_stats(x.logits, _samples(x), event_dims > 0)
    assert logp is not None
    return (logp if x.tokens.dim() == x.logits.dim() else logp[0]), entropy


def _plain(x: Inputs, event_dims: int) -> Outputs:
    """What people write today, in the dtype of the logits."""
    bits = _bits(x, x.logits.dtype)
    z = x.logits.expand(bits.shape)
    logp = -binary_cross_entropy_with_logits(z, bits, reduction="none")
    p = x.logits.sigmoid()
    entropy = binary_cross_entropy_with_logits(x.logits, p, reduction="none")
    return (logp.sum(-1), entropy.sum(-1)) if event_dims else (logp, entropy)


def _raw(x: Inputs, event_dims: int) -> tuple[Any, ...]:
    return x.logits, _samples(x), True, event_dims > 0


def _raw_backward(x: Inputs, event_dims: int) -> tuple[Any, ...]:
    outputs = reference.bit_stats(x.logits.detach(), _samples(x), event_dims > 0)
    grads = [torch.linspace(-1, 1, o.numel()).to(o).view(o.shape) for o in outputs if o is not None]
    return x.logits, _samples(x), *(g.requires_grad_() for g in grads), event_dims > 0


def _row(name: str, event_dims: int, dtype: torch.dtype | None, **options: Any) -> Op:
    return Op(
        name=name,
        run=lambda x: _run(x, event_dims, dtype),
        define=lambda x: _define(x, event_dims),
        plain=lambda x: _plain(x, event_dims),
        extras=lambda batch, dtype: (),
        raw="bit_stats",
        raw_args=lambda x: _raw(x, event_dims),
        raw_backward="bit_stats_backward",
        raw_backward_args=lambda x: _raw_backward(x, event_dims),
        inplace=False,
        **options,
    )


ROWS = (
    _row("bit_stats", 1, torch.bool),
    _row("bit_stats of floats", 1, None, compile_backend="aot_eager"),
    _row("bit_stats alone", 0, torch.uint8, compile_backend="aot_eager"),
)
