"""A loss whose gradients are made in its forward, chunk by chunk: three products, not four."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgest.ops.linear.gradients import Gradients
from pgest.ops.linear.kernel import ARGUMENTS, Outputs, flat_rows
from pgest.ops.linear.rows import Rows
from pgest.ops.linear.terms import Terms


class Loss(Function):
    """(terms, the arguments of linear_token_stats, *flat rows) -> (loss, its statistics)."""

    @staticmethod
    def forward(ctx: Any, terms: Terms, *inputs: Any) -> tuple[Tensor, ...]:
        args, extras = inputs[:ARGUMENTS], inputs[ARGUMENTS:]
        outputs = Outputs(*args)
        rows = flat_rows(*args)
        gradients = Gradients(rows.head, terms.wanted, rows.full, rows.mask is not None)
        total, of_extras = evaluate(rows, terms, extras, outputs, gradients)
        hidden, weight, bias, temperature = gradients.results()
        ctx.save_for_backward(hidden, weight, bias, temperature, *of_extras)
        ctx.mark_non_differentiable(*outputs.tensors)
        return total.to(outputs.tensors[0].dtype), *outputs.tensors

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ValueError(
                "linear_objective does not support create_graph=True: its gradients are made in "
                "the forward; take linear_token_stats or token_stats and the loss on top of it"
            )
        hidden, weight, bias, temperature, *extras = (
            None if g is None else _scaled(g, grad) for g in ctx.saved_tensors
        )
        unused_arguments = (None,) * (ARGUMENTS - 5)
        return None, hidden, weight, bias, None, temperature, *unused_arguments, *extras


def _scaled(gradient: Tensor, by: Tensor) -> Tensor:
    """A graph that ends here gives its gradients away; one that is kept keeps them."""
    if torch._C._autograd._get_current_graph_task_keep_graph():
        return gradient * by.to(gradient.dtype)
    one = by.device.type == "cpu" and by.item() == 1
    return gradient if one else gradient.mul_(by)


def evaluate(
    rows: Rows, terms: Terms, extras: Sequence[Tensor], outputs: Outputs, gradients: Gradients
) -> tuple[Tensor, list[Tensor | None]]:
    """The loss and the gradients of `extras`; fills `outputs` and `gradients` on the way."""
    total = torch.zeros((), dtype=torch.float64, device=rows.head.hidden.device)
    of_extras = [
        torch.zeros_like(x) if wanted else None
        for x, wanted in zip(extras, terms.extras_wanted, strict=True)
    ]
    for chunk in rows.chunks(rows.mask):
        values = rows.stats(chunk)
        outputs.put(chunk, values)
        found = terms.of_chunk(values, [x[..., chunk.at] for x in extras])
        total += found.total
        for whole, grad in zip(of_extras, found.extras, strict=True):
            if whole is not None and grad is not None:
                whole[..., chunk.at] = grad
        if any(gradients.wanted):
            rows.backward(chunk, values[-1], found.stats, gradients)
    return total, of_extras
