"""The gradient of linear_token_stats, and the refusal of a second one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgest.ops.library import call
from pgest.ops.linear.gradients import Wanted
from pgest.ops.linear.kernel import LinearInput
from pgest.ops.stats.autograd import spread
from pgest.ops.stats.kernel import DIFFERENTIABLE

_ops = torch.ops.pgest
# The places of the inputs that may have a gradient, in the order in which it is made.
PLACES = tuple(LinearInput._fields.index(name) for name in Wanted._fields)


class Forward(Function):
    """(the fields of LinearInput) -> (what outputs ask for, state)."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        return tuple(call(_ops.linear_token_stats.default, *args))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.inputs = [None if isinstance(x, Tensor) else x for x in inputs]
        ctx.save_for_backward(*(x if isinstance(x, Tensor) else None for x in inputs), output[-1])
        outputs = LinearInput(*inputs).outputs
        ctx.mark_non_differentiable(*output[(outputs & DIFFERENTIABLE).bit_count() :])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *tensors, state = ctx.saved_tensors
        inputs = LinearInput(
            *(x if t is None else t for x, t in zip(ctx.inputs, tensors, strict=True))
        )
        wanted = [ctx.needs_input_grad[i] for i in PLACES]
        # Only what may be differentiated again needs a node, which refuses that.
        run = Backward.apply if torch.is_grad_enabled() else Backward.forward
        found = run(*inputs, state, *spread(inputs.outputs, grads), wanted)
        results: list[Tensor | None] = [None] * len(inputs)
        for place, grad, is_wanted in zip(PLACES, found, wanted, strict=True):
            results[place] = grad if is_wanted else None
        return tuple(results)

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


# torch hands the gradients of a list of results over as one list.
torch.library.register_autograd(
    "pgest::linear_token_stats",
    lambda ctx, grads: Forward.backward(ctx, *grads),
    setup_context=Forward.setup_context,
)
torch.library.register_autograd(
    "pgest::linear_token_stats_backward", Backward.backward, setup_context=Backward.setup_context
)
