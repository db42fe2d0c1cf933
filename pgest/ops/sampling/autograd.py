"""The gradient of a draw's statistics is token_stats' own, from the state that the draw kept."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgest.ops.library import call
from pgest.ops.rules import eager_of
from pgest.ops.sampling import kernel
from pgest.ops.stats.autograd import Backward, by_bias, save, saved
from pgest.reference import StatsGrads, StatsInput

_op = torch.ops.pgest.sample.default
_NUM_INPUTS, _BIAS, _TEMPERATURE = 10, 1, 3  # places among the inputs


class Draw(Function):
    """The inputs of the op -> (logp, entropy, tokens, perturbed, state)."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        return tuple(call(_op, *args))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, _, tokens, perturbed, state = output
        save(ctx, (*StatsInput(inputs[0], tokens, *inputs[1:6]), state))
        ctx.mark_non_differentiable(tokens, perturbed, state)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad
        args = (*saved(ctx), *StatsGrads(*grads[:2]), needs[_TEMPERATURE])
        # Only a gradient of this gradient needs a node of its own.
        if torch.is_grad_enabled():
            grad_logits, grad_temperature = Backward.apply(*args)
        else:
            op = torch.ops.pgest.token_stats_backward.default
            grad_logits, grad_temperature = call(op, *args)
        results: list[Tensor | None] = [None] * _NUM_INPUTS
        results[0] = grad_logits
        if needs[_BIAS]:
            results[_BIAS] = by_bias(grad_logits)
        if needs[_TEMPERATURE]:
            results[_TEMPERATURE] = grad_temperature
        return tuple(results)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return kernel.vmap(Draw.apply, info, in_dims, *args)


EagerDraw = eager_of(Draw)
torch.library.register_autograd("pgest::sample", Draw.backward, setup_context=Draw.setup_context)
torch.library.register_vmap("pgest::sample", partial(kernel.vmap, _op))
