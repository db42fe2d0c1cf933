"""The gradient of linear_token_stats, and the refusal of a second one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgest.ops.library import call
from pgest.ops.linear import kernel  # noqa: F401  (defines the ops)

_ops = torch.ops.pgest


class Forward(Function):
    """The op's arguments -> (logp, entropy, lse, state)."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        return call(_ops.linear_token_stats.default, *args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.entropy, ctx.chunk_rows, ctx.full = inputs
        ctx.save_for_backward(*tensors, output[3])
        ctx.mark_non_differentiable(output[3])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *tensors, state = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[i] for i in (0, 1, 2, 4)]
        options = (ctx.entropy, ctx.chunk_rows, ctx.full, state, *grads[:3], wanted)
        # Only what may be differentiated again needs a node, which refuses that.
        run = Backward.apply if torch.is_grad_enabled() else Backward.forward
        found = run(*tensors, *options)
        hidden, weight, bias, temperature = (
            g if w else None for g, w in zip(found, wanted, strict=True)
        )
        return hidden, weight, bias, None, temperature, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        raise ValueError(
            "linear_token_stats does not support torch.vmap: its leading dimensions are free, so "
            "make the mapped dimension one of them"
        )


class Backward(Function):
    """The backward op as a node whose own gradient is refused."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        return call(_ops.linear_token_stats_backward.default, *args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        raise ValueError(
            "linear_token_stats has no second derivative (create_graph=True): it would hold the "
            "logits; take token_stats(hidden @ weight.T, ...) for it"
        )


def _register(op: Any, function: type[Function]) -> None:
    torch.library.register_autograd(
        op._schema.name, function.backward, setup_context=function.setup_context
    )


_register(_ops.linear_token_stats.default, Forward)
_register(_ops.linear_token_stats_backward.default, Backward)
