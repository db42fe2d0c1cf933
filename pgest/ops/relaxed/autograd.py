"""Gradients of relaxed and straight-through samples, each written once and registered twice.

As in `pgest.ops.stats.autograd`: complete Functions for autograd and torch.func, whose methods are
also the rules of the ops. Second derivatives differentiate the closed forms in `pgest.reference`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgest import reference
from pgest.ops.library import call
from pgest.ops.relaxed import kernel  # noqa: F401  (defines the ops)
from pgest.ops.rules import eager_of, fronts, one_by_one, pull_back, register

_ops = torch.ops.pgest
gumbel_softmax = partial(call, _ops.gumbel_softmax.default)
softmax_backward = partial(call, _ops.gumbel_softmax_backward.default)
hard_backward = partial(call, _ops.gumbel_softmax_hard_backward.default)
straight_through = partial(call, _ops.straight_through.default)
straight_through_backward: Any = partial(call, _ops.straight_through_backward.default)


class GumbelSoftmax(Function):
    """(logits, temperature, seed, noise, hard) -> sample.

    The soft one keeps its output, the hard one nothing: its backward computes the soft sample
    again, from the seed.
    """

    @staticmethod
    def forward(
        logits: Tensor,
        temperature: Tensor | None,
        seed: Tensor | None,
        noise: Tensor | None,
        hard: bool,
    ) -> Tensor:
        return gumbel_softmax(logits, temperature, seed, noise, hard)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.hard = inputs[4]
        if ctx.hard:
            ctx.save_for_backward(*inputs[:4])
        else:
            ctx.save_for_backward(output, inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_temperature = ctx.needs_input_grad[1]
        saved = ctx.saved_tensors
        if ctx.hard and not torch.is_grad_enabled():
            grads = hard_backward(*saved, grad, by_temperature)
        else:
            soft = GumbelSoftmax.apply(*saved, False) if ctx.hard else saved[0]
            run = SoftmaxBackward.apply if torch.is_grad_enabled() else softmax_backward
            grads = run(soft, grad, saved[1], by_temperature)
        return grads[0], grads[1] if by_temperature else None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _vmap_gumbel_softmax(GumbelSoftmax.apply, info, in_dims, *args)


class SoftmaxBackward(Function):
    """(soft, gradient, temperature, by_temperature) -> gradients of logits and temperature."""

    @staticmethod
    def forward(
        soft: Tensor, grad: Tensor, temperature: Tensor | None, by_temperature: bool
    ) -> tuple[Tensor, ...]:
        return softmax_backward(soft, grad, temperature, by_temperature)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.by_temperature = inputs[3]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [cotangents[0], cotangents[1] if ctx.by_temperature else None]
        grads = pull_back(reference.softmax_backward, ctx.saved_tensors, (0, 1, 2), given)
        return (*grads, None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _vmap_softmax_backward(SoftmaxBackward.apply, info, in_dims, *args)


class StraightThrough(Function):
    """(logits, sample, temperature, jacobian) -> (one-hot sample, tokens)."""

    @staticmethod
    def forward(
        logits: Tensor, sample: Tensor, temperature: Tensor | None, jacobian: str
    ) -> tuple[Tensor, Tensor]:
        return straight_through(logits, sample, temperature, jacobian)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0], output[1], inputs[2])
        ctx.mark_non_differentiable(output[1])
        ctx.jacobian = inputs[3]

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        run = JacobianProduct.apply if torch.is_grad_enabled() else straight_through_backward
        args = (*ctx.saved_tensors, grad, ctx.jacobian)
        return run(*args), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _vmap_straight_through(StraightThrough.apply, info, in_dims, *args)


class JacobianProduct(Function):
    """(logits, tokens, temperature, gradient, jacobian) -> gradient of logits."""

    @staticmethod
    def forward(
        logits: Tensor, tokens: Tensor, temperature: Tensor | None, grad: Tensor, jacobian: str
    ) -> Tensor:
        return straight_through_backward(logits, tokens, temperature, grad, jacobian)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.jacobian = inputs[4]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        def closed_form(z: Tensor, tokens: Tensor, t: Tensor | None, g: Tensor) -> tuple[Tensor]:
            return (reference.straight_through_backward(z, tokens, t, g, ctx.jacobian),)

        return (*pull_back(closed_form, ctx.saved_tensors, (0, 3), [cotangent]), None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _vmap_jacobian_product(JacobianProduct.apply, info, in_dims, *args)


def _vmap_gumbel_softmax(apply: Any, info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
    """Uniforms make the batch a leading dimension; a seed numbers rows anew in each element."""
    if args[2] is None:
        return apply(*fronts(info, in_dims, args)), 0
    return one_by_one(apply, info, in_dims, args), 0


def _vmap_hard_backward(apply: Any, info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
    if args[2] is None:
        return apply(*fronts(info, in_dims, args)), (0, 0 if args[5] else None)
    grads = one_by_one(apply, info, in_dims, args)
    return (grads[0], grads[1] if args[5] else grads[1][0]), (0, 0 if args[5] else None)


def _vmap_softmax_backward(apply: Any, info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
    return apply(*fronts(info, in_dims, args)), (0, 0 if args[3] else None)


def _vmap_straight_through(apply: Any, info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
    return apply(*fronts(info, in_dims, args)), (0, 0)


def _vmap_jacobian_product(apply: Any, info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
    return apply(*fronts(info, in_dims, args)), 0


EagerGumbelSoftmax = eager_of(GumbelSoftmax)
EagerStraightThrough = eager_of(StraightThrough)
register(_ops.gumbel_softmax.default, GumbelSoftmax, _vmap_gumbel_softmax)
register(_ops.gumbel_softmax_backward.default, SoftmaxBackward, _vmap_softmax_backward)
torch.library.register_vmap(
    "pgest::gumbel_softmax_hard_backward",
    partial(_vmap_hard_backward, _ops.gumbel_softmax_hard_backward.default),
)
register(_ops.straight_through.default, StraightThrough, _vmap_straight_through)
register(_ops.straight_through_backward.default, JacobianProduct, _vmap_jacobian_product)
