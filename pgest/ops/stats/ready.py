"""Gradients that are there before the backward, which has only to multiply them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgest.ops.library import define
from pgest.ops.memory import scale_
from pgest.ops.stats.autograd import by_bias
from pgest.reference import statistics_dtype

# Places among the inputs.
_VALUE, _LOGITS, _BIAS, _TEMPERATURE = range(4)


class WithGradients(Function):
    """(value, logits, bias, temperature, grad_logits, grad_temperature) -> value."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *inputs: Tensor | None) -> Tensor:
        ctx.save_for_backward(*inputs[-2:])
        return value.clone()  # not a view, which nobody could add to in place

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ValueError(
                "token_stats_sum does not support create_graph=True: its gradients are made in "
                "the forward; take token_stats and the sum on top of it"
            )
        return _gradients(ctx, grad, _multiplied)


def _gradients(
    ctx: Any, grad: Tensor, product: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor | None, ...]:
    """In the places of the inputs. That for the bias is the logits' summed over the rows."""
    needs = ctx.needs_input_grad
    grad_logits, grad_temperature = ctx.saved_tensors
    found: list[Tensor | None] = [grad, None, None, None, None, None]
    if needs[_LOGITS] or needs[_BIAS]:
        found[_LOGITS] = scaled = product(grad_logits, grad)
        found[_BIAS] = by_bias(scaled) if needs[_BIAS] else None
    if needs[_TEMPERATURE]:
        found[_TEMPERATURE] = grad_temperature * grad
    return tuple(found)


def _multiplied(gradient: Tensor, by: Tensor) -> Tensor:
    """A graph that ends here gives its gradient away; one that is kept keeps it."""
    kept = torch._C._autograd._get_current_graph_task_keep_graph()
    gradient = gradient.clone() if kept else gradient
    scale_(gradient, by)
    return gradient


def _fused(gradient: Tensor, by: Tensor) -> Tensor:
    """For a compiler, and with one rounding."""
    return (gradient.to(statistics_dtype(gradient)) * by).to(gradient.dtype)


def with_gradients(value: Tensor, *inputs: Tensor | None) -> Tensor:
    """`value`, whose gradients for logits, bias and temperature are given.

    Example:
        >>> logits, ready = torch.zeros(2, requires_grad=True), torch.tensor([1.0, -1.0])
        >>> value = with_gradients(torch.tensor(5.0), logits, None, None, ready, torch.empty(0))
        >>> (2 * value).backward()
        >>> logits.grad
        tensor([ 2., -2.])
    """
    if torch.compiler.is_compiling():
        found: Tensor = torch.ops.pgest.with_gradients.default(value, *inputs)
    else:
        found = WithGradients.apply(value, *inputs)
    return found


define(
    "with_gradients(Tensor value, Tensor logits, Tensor? bias, Tensor? temperature, "
    "Tensor grad_logits, Tensor grad_temperature) -> Tensor",
    lambda value, *inputs: value.clone(),
    lambda value, *inputs: torch.empty_like(value),
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[-2:])


torch.library.register_autograd(
    "pgest::with_gradients", lambda ctx, grad: _gradients(ctx, grad, _fused), setup_context=_save
)
