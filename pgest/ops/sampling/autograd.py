"""The gradient of a draw's statistics is token_stats' own: the pass that drew has kept its state."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgest.ops.library import call
from pgest.ops.sampling import kernel
from pgest.ops.stats.autograd import Backward

_op = torch.ops.pgest.sample.default
_NUM_INPUTS = 10


class Draw(Function):
    """The inputs of the op -> (tokens, logp, entropy, perturbed, state)."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        return tuple(call(_op, *args))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        logits, _, _, temperature, _, mask = inputs[:6]
        tokens, _, _, perturbed, state = output
        ctx.save_for_backward(logits, tokens, temperature, mask, state)
        ctx.mark_non_differentiable(tokens, perturbed, state)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        by_temperature = ctx.needs_input_grad[3]
        args = (*ctx.saved_tensors, grads[1], grads[2], None, by_temperature)
        results: list[Tensor | None] = [None] * _NUM_INPUTS
        # Only a gradient of this gradient needs a node of its own.
        if torch.is_grad_enabled():
            results[0], grad_temperature = Backward.apply(*args)
        else:
            results[0], grad_temperature = call(torch.ops.pgest.token_stats_backward.default, *args)
        results[3] = grad_temperature if by_temperature else None
        return tuple(results)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return kernel.vmap(Draw.apply, info, in_dims, *args)


class EagerDraw(Function):
    """`Draw` outside torch.func: without setup_context a call costs a third less."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        output = Draw.forward(*args)
        Draw.setup_context(ctx, args, output)
        return output

    backward = Draw.backward


torch.library.register_autograd(
    "pgest::sample", Draw.backward, setup_context=Draw.setup_context
)
torch.library.register_vmap("pgest::sample", partial(kernel.vmap, _op))
