"""The gradient written over the logits: half the memory, no page faults, on request only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgest.ops.library import call
from pgest.ops.stats.autograd import TEMPERATURE, EagerForward, results, saved, spread


class ForwardInplace(Function):
    """`EagerForward` whose backward consumes the saved logits.

    torch's version check of saved tensors turns any later use of the lost logits (a second
    backward, another node that saved them) into its own error.
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        ctx.consumed = False
        return EagerForward.forward(ctx, *args)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ValueError("grad_inplace=True does not support create_graph=True")
        logits, *rest = saved(ctx)
        if ctx.consumed:  # saved-tensor hooks switch torch's own check off
            raise RuntimeError("grad_inplace=True has overwritten the logits: one backward only")
        ctx.consumed = True
        grad_logits = logits.detach()
        grad_temperature = call(
            torch.ops.pgest.token_stats_backward_.default,
            *(grad_logits, *rest, *spread(ctx.outputs, grads)),
            ctx.needs_input_grad[TEMPERATURE],
        )
        torch.autograd.graph.increment_version(logits)
        return results(ctx, grad_logits, grad_temperature)
