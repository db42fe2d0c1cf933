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


def check_inplace(logits: Tensor, beside: dict[str, Tensor | None]) -> None:
    """Logits whose memory may be overwritten: not a leaf, eager, contiguous, not what is beside."""
    if torch.compiler.is_compiling():
        raise ValueError("grad_inplace=True is not supported under torch.compile")
    if torch._C._are_functorch_transforms_active():
        raise ValueError("grad_inplace=True is not supported under torch.func transforms")
    owner = logits if logits._base is None else logits._base
    if owner.is_leaf and owner.requires_grad:
        raise ValueError(
            "grad_inplace=True would overwrite logits that are a leaf (a parameter or an input "
            "that requires grad) or a view of one; pass the output of a layer"
        )
    if logits.stride(-1) != 1 and logits.shape[-1] > 1:
        raise ValueError(
            f"grad_inplace=True needs logits with stride 1 in the last dimension, got strides "
            f"{logits.stride()}"
        )
    for name, x in beside.items():
        if x is not None and x.untyped_storage().data_ptr() == logits.untyped_storage().data_ptr():
            raise ValueError(f"grad_inplace=True would overwrite {name}, which shares its memory")
    if _overlaps(logits):
        raise ValueError(
            "grad_inplace=True needs logits whose elements share no memory, got an expanded "
            f"or overlapping view with shape {tuple(logits.shape)} and strides {logits.stride()}"
        )


def _overlaps(x: Tensor) -> bool:
    """Whether two indices may mean one place in memory; False only where that is certain."""
    extent = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1:
            if stride < extent:
                return True
            extent += (size - 1) * stride
    return False
