"""A loss whose gradients are made in its forward, chunk by chunk: three products, not four."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgest.ops.linear.autograd import PLACES
from pgest.ops.linear.gradients import Gradients
from pgest.ops.linear.head import SLAB_BYTES
from pgest.ops.linear.kernel import LinearInput, Results
from pgest.ops.linear.rows import Rows
from pgest.ops.linear.terms import Terms
from pgest.ops.stats.autograd import spread

ARGUMENTS = len(LinearInput._fields)
HALF = (torch.bfloat16, torch.float16)


class Loss(Function):
    """(terms, the fields of LinearInput, *flat rows) -> (loss, results of linear_token_stats)."""

    @staticmethod
    def forward(ctx: Any, terms: Terms, *inputs: Any) -> tuple[Tensor, ...]:
        x, extras = LinearInput(*inputs[:ARGUMENTS]), inputs[ARGUMENTS:]
        rows, results = x.rows(), Results(x)
        gradients = Gradients(
            rows.head, terms.wanted, rows.full, partial=rows.mask is not None, rounded=False
        )
        total, of_extras = evaluate(rows, terms, extras, results, gradients)
        ctx.save_for_backward(*gradients.results(), *of_extras)
        ctx.dtypes = [getattr(t, "dtype", None) for t in (*(x[i] for i in PLACES), *extras)]
        ctx.mark_non_differentiable(*results.tensors)
        return total.to(rows.head.wide), *results.tensors

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ValueError(
                "linear_objective does not support create_graph=True: its gradients are made in "
                "the forward; take linear_token_stats or token_stats and the loss on top of it"
            )
        scaled = [
            None if g is None else _scaled(g, grad, dtype)
            for g, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        results: list[Tensor | None] = [None] * ARGUMENTS
        for place, found in zip(PLACES, scaled, strict=False):
            results[place] = found
        return None, *results, *scaled[len(PLACES) :]


def _scaled(gradient: Tensor, by: Tensor, dtype: torch.dtype) -> Tensor:
    """A graph that ends here gives its gradients away; one that is kept keeps them."""
    kept = torch._C._autograd._get_current_graph_task_keep_graph()
    if dtype in HALF:
        return _rounded(gradient, by, dtype, kept)
    if kept:
        return gradient * by.to(gradient.dtype)
    one = by.device.type == "cpu" and by.item() == 1
    return gradient if one else gradient.mul_(by)


def _rounded(gradient: Tensor, by: Tensor, dtype: torch.dtype, kept: bool) -> Tensor:
    """Multiplied in `by`'s dtype and rounded once: a half type does not hold every loss scale."""
    gives = gradient.dtype == dtype and not kept
    result = gradient if gives else torch.empty_like(gradient, dtype=dtype)
    if gradient.is_cuda:  # one kernel, which multiplies in the wider type: `by` has a dimension
        return torch.mul(gradient, by.reshape(1), out=result)
    size = SLAB_BYTES // by.dtype.itemsize
    for out, part in zip(result.view(-1).split(size), gradient.view(-1).split(size), strict=True):
        out.copy_(part.to(by.dtype, copy=kept).mul_(by))
    return result


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
