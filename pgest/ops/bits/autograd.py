"""Gradients of bits, written once and registered twice, as in `pgest.ops.stats.autograd`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgest import reference
from pgest.ops.bits import kernel  # noqa: F401  (defines the ops)
from pgest.ops.library import call
from pgest.ops.rules import eager_of, front, one_by_one, pull_back, register

_ops = torch.ops.pgest
bit_stats = partial(call, _ops.bit_stats.default)
bit_stats_backward = partial(call, _ops.bit_stats_backward.default)
sample_bits = partial(call, _ops.sample_bits.default)


class BitStats(Function):
    """(logits, bits, entropy, joint) -> (logp, entropy)."""

    @staticmethod
    def forward(
        logits: Tensor, bits: Tensor | None, entropy: bool, joint: bool
    ) -> tuple[Tensor, Tensor]:
        return bit_stats(logits, bits, entropy, joint)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.joint = inputs[3]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        args = (*ctx.saved_tensors, *grads, ctx.joint)
        run = BitStatsBackward.apply if torch.is_grad_enabled() else bit_stats_backward
        return run(*args), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _vmap_bit_stats(BitStats.apply, info, in_dims, *args)


class BitStatsBackward(Function):
    """(logits, bits, two gradients, joint) -> gradient of logits."""

    @staticmethod
    def forward(
        logits: Tensor,
        bits: Tensor | None,
        grad_logp: Tensor | None,
        grad_entropy: Tensor | None,
        joint: bool,
    ) -> Tensor:
        return bit_stats_backward(logits, bits, grad_logp, grad_entropy, joint)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.joint = inputs[4]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        def closed_form(
            z: Tensor, bits: Tensor | None, w: Tensor | None, h: Tensor | None
        ) -> tuple[Tensor]:
            return (reference.bit_stats_backward(z, bits, w, h, ctx.joint),)

        return (*pull_back(closed_form, ctx.saved_tensors, (0, 2, 3), [cotangent]), None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _vmap_bit_stats_backward(BitStatsBackward.apply, info, in_dims, *args)


def _inner(x: Any, dim: int | None, size: int) -> Any:
    """vmap's dimension behind that of the samples."""
    return front(x, dim, size, at=1)


def _vmap_bit_stats(apply: Any, info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
    logits = front(args[0], in_dims[0], info.batch_size)
    bits = _inner(args[1], in_dims[1], info.batch_size)
    given = None if bits is None else 1
    return apply(logits, bits, *args[2:]), (given, 0 if args[2] else None)


def _vmap_bit_stats_backward(apply: Any, info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
    outer = (front(args[i], in_dims[i], info.batch_size) for i in (0, 3))
    inner = (_inner(args[i], in_dims[i], info.batch_size) for i in (1, 2))
    (logits, h), (bits, w) = outer, inner
    return apply(logits, bits, w, h, args[4]), 0


def _vmap_sample_bits(apply: Any, info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
    if args[3] is not None:  # a seed numbers its elements anew in each
        return one_by_one(apply, info, in_dims, args), 0
    logits = front(args[0], in_dims[0], info.batch_size)
    noise = _inner(args[4], in_dims[4], info.batch_size)
    return apply(logits, args[1], args[2], None, noise, args[5]), 1


EagerBitStats = eager_of(BitStats)
register(_ops.bit_stats.default, BitStats, _vmap_bit_stats)
register(_ops.bit_stats_backward.default, BitStatsBackward, _vmap_bit_stats_backward)
torch.library.register_vmap(
    "pgest::sample_bits", partial(_vmap_sample_bits, _ops.sample_bits.default)
)
