"""token_stats in the op table."""

from __future__ import annotations

from typing import Any

import torch
from op_row import Inputs, Op, Outputs
from torch import Tensor

import pgest
from pgest import reference


def _temperature(batch: torch.Size, dtype: torch.dtype) -> tuple[Tensor, ...]:
    rows = torch.arange(1, batch.numel() + 1, dtype=torch.float64).view(batch)
    return (0.5 + rows / max(1, batch.numel()),)


def _stats(x: Inputs, **options: Any) -> Outputs:
    stats = pgest.token_stats(x.logits, x.tokens, mask=x.mask, **options)
    return tuple(s for s in stats if s is not None)


def _define(x: Inputs, temperature: Tensor | None = None) -> Outputs:
    logp, entropy, lse = reference.token_stats(x.logits, x.tokens, temperature, x.mask)
    assert logp is not None
    return logp, entropy, lse


def _plain(x: Inputs, temperature: Tensor | None = None) -> Outputs:
    """What people write today, in the dtype of the logits."""
    u = x.logits if temperature is None else x.logits / temperature[..., None].to(x.logits.dtype)
    log_p = u.log_softmax(-1)
    many = x.tokens.dim() == u.dim()
    index = x.tokens.movedim(0, -1) if many else x.tokens[..., None]
    logp = log_p.gather(-1, index)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return (logp.movedim(-1, 0) if many else logp[..., 0]), entropy, u.logsumexp(-1)


def _raw_args(x: Inputs, temperature: Tensor | None = None) -> tuple[Any, ...]:
    return x.logits, x.tokens, temperature, x.mask, True


def _raw_backward_args(x: Inputs, temperature: Tensor | None = None) -> tuple[Any, ...]:
    state = torch.ops.pgest.token_stats(*_raw_args(x, temperature))[3].detach()
    dtype = reference.statistics_dtype(x.logits)
    batch = x.logits.shape[:-1]
    grads = [torch.ones(s, dtype=dtype, requires_grad=True) for s in (x.tokens.shape, batch, batch)]
    return (*_raw_args(x, temperature)[:4], state, *grads, temperature is not None)


ROWS = (
    Op(
        name="token_stats",
        run=_stats,
        define=_define,
        plain=_plain,
        extras=lambda batch, dtype: (),
        raw="token_stats",
        raw_args=_raw_args,
        raw_backward="token_stats_backward",
        raw_backward_args=_raw_backward_args,
    ),
    Op(
        name="token_stats with temperature",
        run=lambda x: _stats(x, temperature=x.extras[0]),
        define=lambda x: _define(x, x.extras[0]),
        plain=lambda x: _plain(x, x.extras[0]),
        extras=_temperature,
        raw="token_stats",
        raw_args=lambda x: _raw_args(x, x.extras[0]),
        raw_backward="token_stats_backward",
        raw_backward_args=lambda x: _raw_backward_args(x, x.extras[0]),
        compile_backend="aot_eager",
    ),
)
