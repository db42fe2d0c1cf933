"""The table of ops: one row names everything that `test_ops.py` needs to check an op completely.

A row gives the public function, its definition in `pgest.reference` and example inputs; every check
(back end, parity, gradients, transforms, compile, half types, strides, ...) is written once, for
all rows. A new op is a new row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import pgest
from pgest import reference

Outputs = tuple[Tensor, ...]
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Inputs:
    """Arguments of one call. `logits` and `extras` are differentiated; the rest is not."""

    logits: Tensor
    tokens: Tensor
    extras: tuple[Tensor, ...] = ()
    mask: Tensor | None = None


@dataclass(frozen=True)
class Op:
    """One row: `run` is what users call, `define` says what it means, `plain` is usual PyTorch."""

    name: str
    run: Callable[[Inputs], Outputs]
    define: Callable[[Inputs], Outputs]
    plain: Callable[[Inputs], Outputs]
    extras: Callable[[torch.Size, torch.dtype], tuple[Tensor, ...]]
    raw: str
    raw_args: Callable[[Inputs], tuple[Any, ...]]
    raw_backward: str
    raw_backward_args: Callable[[Inputs], tuple[Any, ...]]
    compile_backend: str = "inductor"

    def inputs(
        self,
        dtype: torch.dtype = torch.float64,
        batch: tuple[int, ...] = (2, 3),
        vocab: int = 7,
        samples: int | None = None,
        scale: float = 2.0,
        masked: bool = False,
    ) -> Inputs:
        """Random arguments, the same for the same call."""
        generator = torch.Generator().manual_seed(0)
        logits = scale * torch.randn(*batch, vocab, generator=generator, dtype=torch.float64)
        shape = batch if samples is None else (samples, *batch)
        tokens = torch.randint(vocab, shape, generator=generator)
        mask = torch.rand(batch, generator=generator) > 0.3 if masked else None
        return Inputs(logits.to(dtype), tokens, self.extras(torch.Size(batch), dtype), mask)


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


TABLE = (
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

rows = pytest.mark.parametrize("op", TABLE, ids=[op.name for op in TABLE])


def differentiable(x: Inputs) -> tuple[Tensor, ...]:
    return x.logits, *x.extras


def with_values(x: Inputs, values: tuple[Tensor, ...]) -> Inputs:
    return replace(x, logits=values[0], extras=tuple(values[1:]))


def as_leaves(x: Inputs) -> Inputs:
    return with_values(x, tuple(t.detach().requires_grad_() for t in differentiable(x)))


def weighted(outputs: Outputs) -> Tensor:
    """A scalar that gives every entry of every output its own upstream gradient."""
    total = outputs[0].new_zeros(())
    for i, out in enumerate(outputs):
        weight = torch.linspace(-1 + 0.1 * i, 1, out.numel(), dtype=out.dtype).view(out.shape)
        total = total + (weight * out).sum()
    return total


def gradients(outputs: Outputs, x: Inputs) -> tuple[Tensor, ...]:
    return torch.autograd.grad(weighted(outputs), differentiable(x))


def in_float64(x: Inputs) -> Inputs:
    return with_values(x, tuple(t.double() for t in differentiable(x)))


def largest(x: Tensor) -> float:
    return float(x.detach().double().abs().max())
