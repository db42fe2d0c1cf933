"""One gradient formula, registered twice: for autograd and torch.func, and for direct callers.

`Forward` and `Backward` are complete `autograd.Function`s (setup_context, vmap); the same static
methods are the `register_autograd` and `register_vmap` rules of the ops. Forward mode is refused by
torch, because a Function without `jvp` raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgest import reference
from pgest.ops.library import call
from pgest.ops.rules import eager_of, pull_back
from pgest.ops.stats import batching
from pgest.ops.stats.kernel import BITS, DIFFERENTIABLE
from pgest.reference import StatsGrads, StatsInput

_forward = torch.ops.pgest.token_stats.default
_backward = torch.ops.pgest.token_stats_backward.default
# Places among the inputs; the one that is no tensor, and those that may need a gradient.
NUM_INPUTS = len(StatsInput._fields)
SOFTCAP = StatsInput._fields.index("softcap")
BIAS = StatsInput._fields.index("bias")
TEMPERATURE = StatsInput._fields.index("temperature")
_NOTHING: tuple[None, ...] = (None,) * NUM_INPUTS
_NOTHING_BESIDE: list[Tensor | None] = [None, None, None]
_GRADS = tuple(BITS[name] for name in StatsGrads._fields)


def save(ctx: Any, inputs: tuple[Any, ...], *more: Any) -> None:
    """Keep the fields of StatsInput and more tensors. Tiny inputs feel every None that is kept."""
    logits, tokens, bias, ctx.softcap, temperature, threshold, mask, *beside = inputs
    ctx.plain = not (ctx.softcap or bias is not None or threshold is not None)
    ctx.plain = ctx.plain and beside == _NOTHING_BESIDE
    if ctx.plain:
        ctx.save_for_backward(logits, tokens, temperature, mask, *more)
    else:
        ctx.save_for_backward(logits, tokens, bias, temperature, threshold, mask, *beside, *more)


def saved(ctx: Any) -> tuple[Any, ...]:
    """What `save` kept, in the order of the backward op."""
    if ctx.plain:
        logits, tokens, temperature, mask, *more = ctx.saved_tensors
        return logits, tokens, None, 0.0, temperature, None, mask, None, None, None, *more
    tensors = ctx.saved_tensors
    return *tensors[:SOFTCAP], ctx.softcap, *tensors[SOFTCAP:]


def spread(outputs: int, grads: tuple[Tensor | None, ...]) -> Sequence[Tensor | None]:
    """Gradients of what was asked for, as gradients of all differentiable statistics."""
    known = outputs & DIFFERENTIABLE
    if known & (known + 1) == 0:  # the first, and no others
        return (*grads[: known.bit_count()], *_NOTHING)[: len(_GRADS)]
    given = iter(grads)
    return [next(given) if outputs & bit else None for bit in _GRADS]


def by_bias(grad_logits: Tensor) -> Tensor:
    """The gradient for a bias [V]: the sum of the logits' over the rows."""
    dtype, rows = reference.statistics_dtype(grad_logits), grad_logits.unsqueeze(0)
    return rows.sum(list(range(grad_logits.dim())), dtype=dtype)


def results(ctx: Any, grad_logits: Tensor, grad_temperature: Tensor) -> tuple[Any, ...]:
    """Gradients in the places of the inputs. That for the bias is their sum over the rows."""
    needs = ctx.needs_input_grad
    grads: list[Any] = [grad_logits, *_NOTHING]
    if needs[BIAS]:
        grads[BIAS] = by_bias(grad_logits)
    if needs[TEMPERATURE]:
        grads[TEMPERATURE] = grad_temperature
    return tuple(grads)


class Forward(Function):
    """(the fields of StatsInput, outputs) -> (what outputs ask for, state)."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        return tuple(call(_forward, *args))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        outputs = ctx.outputs = inputs[-1]
        save(ctx, inputs[:-1], output[-1])
        ctx.mark_non_differentiable(*output[(outputs & DIFFERENTIABLE).bit_count() :])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        by_temperature = ctx.needs_input_grad[TEMPERATURE]
        args = (*saved(ctx), *spread(ctx.outputs, grads), by_temperature)
        # Only a gradient of this gradient needs a node of its own.
        if torch.is_grad_enabled():
            return results(ctx, *Backward.apply(*args))
        return results(ctx, *call(_backward, *args))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return batching.forward(Forward.apply, info.batch_size, in_dims, args)


class Backward(Function):
    """(the fields of StatsInput, state, those of StatsGrads, by_temperature) -> gradients.

    Its own gradient, which is the second order, differentiates the closed form in `reference`.
    """

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        return call(_backward, *args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        save(ctx, inputs[:NUM_INPUTS], *inputs[NUM_INPUTS:-1])
        ctx.by_temperature = inputs[-1]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        def closed_form(*args: Any) -> tuple[Tensor, Tensor | None]:
            x, grads = StatsInput(*args[:NUM_INPUTS]), StatsGrads(*args[NUM_INPUTS + 1 :])
            return reference.token_stats_backward(x, grads)

        inputs = saved(ctx)
        places = (0, BIAS, TEMPERATURE, *range(NUM_INPUTS + 1, len(inputs)))
        # A gradient for T counts only where it was asked.
        given = [cotangents[0], cotangents[1] if ctx.by_temperature else None]
        return (*pull_back(closed_form, inputs, places, given), None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return batching.backward(Backward.apply, info.batch_size, in_dims, args)


EagerForward = eager_of(Forward)


def _register() -> None:
    # torch hands the gradients of a list of results over as one list.
    torch.library.register_autograd(
        "pgest::token_stats",
        lambda ctx, grads: Forward.backward(ctx, *grads),
        setup_context=Forward.setup_context,
    )
    torch.library.register_autograd(
        "pgest::token_stats_backward", Backward.backward, setup_context=Backward.setup_context
    )
    torch.library.register_vmap(
        "pgest::token_stats",
        lambda info, in_dims, *args: batching.forward(_forward, info.batch_size, in_dims, args),
    )
    torch.library.register_vmap(
        "pgest::token_stats_backward",
        lambda info, in_dims, *args: batching.backward(_backward, info.batch_size, in_dims, args),
    )


_register()
