"""A loss whose gradients are made in its forward, chunk by chunk: three products, not four."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgest.ops.linear.autograd import PLACES
from pgest.ops.linear.gradients import Gradients
from pgest.ops.linear.kernel import LinearInput, Results
from pgest.ops.linear.rows import Rows
from pgest.ops.linear.terms import Terms
from pgest.ops.stats.autograd import spread

ARGUMENTS = len(LinearInput._fields)


class Loss(Function):
    """(terms, the fields of LinearInput, *flat rows) -> (loss, results of linear_token_stats)."""

    @staticmethod
    def forward(ctx: Any, terms: Terms, *inputs: Any) -> tuple[Tensor, ...]:
        x, extras = LinearInput(*inputs[:ARGUMENTS]), inputs[ARGUMENTS:]
        rows, results = x.rows(), Results(x)
        gradients = Gradients(rows.head, terms.wanted, rows.full, rows.mask is not None)
        total, of_extras = evaluate(rows, terms, extras, results, gradients)
        ctx.save_for_backward(*gradients.results(), *of_extras)
        ctx.mark_non_differentiable(*results.tensors)
        return total.to(rows.head.dtype), *results.tensors

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ValueError(
                "linear_objective does not support create_graph=True: its gradients are made in "
                "the forward; take linear_token_stats or token_stats and the loss on top of it"
            )
        scaled = [None if g is None else _scaled(g, grad) for g in ctx.saved_tensors]
        results: list[Tensor | None] = [None] * ARGUMENTS
        for place, found in zip(PLACES, scaled, strict=False):
            results[place] = found
        return None, *results, *scaled[len(PLACES) :]


def _scaled(gradient: Tensor, by: Tensor) -> Tensor:
    """A graph that ends here gives its gradients away; one that is kept keeps them."""
    if torch._C._autograd._get_current_graph_task_keep_graph():
        return gradient * by.to(gradient.dtype)
    one = by.device.type == "cpu" and by.item() == 1
    return gradient if one else gradient.mul_(by)


def evaluate(
    rows: Rows, terms: Terms, extras: Sequence[Tensor], results: Results, gradients: Gradients
) -> tuple[Tensor, list[Tensor | None]]:
    """The loss and the gradients of `extras`; fills `results` and `gradients` on the way."""
    total = torch.zeros((), dtype=torch.float64, device=rows.head.hidden.device)
    of_extras = [
        torch.zeros_like(x) if wanted else None
        for x, wanted in zip(extras, terms.extras_wanted, strict=True)
    ]
    for chunk in rows.chunks(rows.mask):
        *stats, state = rows.stats(chunk)
        results.put(chunk, [*stats, state])
        samples = () if rows.tokens is None else rows.tokens.shape[:-1]
        shape = torch.Size((*samples, len(chunk.hidden)))
        found = terms.of_chunk(stats, [x[..., chunk.at] for x in extras], shape)
        total += found.total
        for whole, grad in zip(of_extras, found.extras, strict=True):
            if whole is not None and grad is not None:
                whole[..., chunk.at] = grad
        if any(gradients.wanted):
            rows.backward(chunk, state, spread(rows.outputs, found.stats), gradients)
    return total, of_extras
