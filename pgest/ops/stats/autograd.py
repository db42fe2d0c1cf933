"""One gradient formula, registered twice: for autograd and torch.func, and for direct callers.

`Forward` and `Backward` are complete `autograd.Function`s (setup_context, vmap); the same static
methods are the `register_autograd` and `register_vmap` rules of the ops. Forward mode is refused by
torch, because a Function without `jvp` raises.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgest import reference
from pgest.ops.library import call
from pgest.ops.stats import kernel  # noqa: F401  (defines the ops)

_ops = torch.ops.pgest


class Forward(Function):
    """(logits, tokens, temperature, mask, entropy) -> (logp, entropy, lse, state)."""

    @staticmethod
    def forward(
        logits: Tensor,
        tokens: Tensor | None,
        temperature: Tensor | None,
        mask: Tensor | None,
        entropy: bool,
    ) -> tuple[Tensor, ...]:
        return call(_ops.token_stats.default, logits, tokens, temperature, mask, entropy)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:4], output[3])
        ctx.mark_non_differentiable(output[3])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        logits, tokens, temperature, mask, state = ctx.saved_tensors
        by_temperature = ctx.needs_input_grad[2]
        args = (logits, tokens, temperature, mask, state, *grads[:3], by_temperature)
        # Only a gradient of this gradient needs a node of its own.
        if torch.is_grad_enabled():
            grad_logits, grad_temperature = Backward.apply(*args)
        else:
            grad_logits, grad_temperature = call(_ops.token_stats_backward.default, *args)
        return grad_logits, None, grad_temperature if by_temperature else None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _vmap_forward(Forward.apply, info, in_dims, *args)


class EagerForward(Function):
    """`Forward` outside torch.func: without setup_context a call costs a third."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        output = Forward.forward(*args)
        Forward.setup_context(ctx, args, output)
        return output

    backward = Forward.backward


class Backward(Function):
    """(logits, tokens, temperature, mask, state, three gradients, by_temperature) -> gradients.

    Its own gradient, which is the second order, differentiates the closed form in `reference`.
    """

    @staticmethod
    def forward(
        logits: Tensor,
        tokens: Tensor | None,
        temperature: Tensor | None,
        mask: Tensor | None,
        state: Tensor,
        grad_logp: Tensor | None,
        grad_entropy: Tensor | None,
        grad_lse: Tensor | None,
        by_temperature: bool,
    ) -> tuple[Tensor, ...]:
        inputs = (logits, tokens, temperature, mask, state)
        grads = (grad_logp, grad_entropy, grad_lse)
        return call(_ops.token_stats_backward.default, *inputs, *grads, by_temperature)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:4], *inputs[5:8])
        ctx.by_temperature = inputs[8]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = list(ctx.saved_tensors)
        # (logits, temperature, three gradients); a gradient for T counts only where it was asked.
        wanted = [i for i in (0, 2, 4, 5, 6) if saved[i] is not None]
        given = [cotangents[0], cotangents[1] if ctx.by_temperature else None]
        results: list[Tensor | None] = [None] * 9
        if all(v is None for v in given):
            return tuple(results)

        def closed_form(*values: Tensor) -> tuple[Tensor, ...]:
            args = list(saved)
            for i, value in zip(wanted, values, strict=True):
                args[i] = value
            outputs = reference.token_stats_backward(*args)
            return tuple(
                o for o, v in zip(outputs, given, strict=True) if not (o is None or v is None)
            )

        outputs, pullback, *_ = torch.func.vjp(closed_form, *(saved[i] for i in wanted))
        present = [v for v in given if v is not None]
        grads = pullback(tuple(v.to(o.dtype) for v, o in zip(present, outputs, strict=True)))
        for i, grad in zip(wanted, grads, strict=True):
            results[i if i < 4 else i + 1] = grad  # `state` stands between them in the inputs
        return tuple(results)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _vmap_backward(Backward.apply, info, in_dims, *args)


class _Fold:
    """Makes vmap's batch dimension one more leading dimension of the logits.

    An argument that has none is expanded with stride 0, which the kernels read without a copy.
    """

    def __init__(self, batch_size: int, in_dims: tuple[Any, ...], args: tuple[Any, ...]) -> None:
        self.batch_size, self.in_dims, self.args = batch_size, in_dims, args
        samples = args[1] is not None and self._dim(1) == self._dim(0)
        self.tokens_at = 1 if samples else 0

    def _dim(self, i: int) -> int:
        """Dimensions of an argument as the caller of vmap sees it."""
        return self.args[i].dim() - (self.in_dims[i] is not None)

    def front(self, i: int, at: int = 0) -> Any:
        """Argument `i` with the batch dimension at `at`."""
        x, dim = self.args[i], self.in_dims[i]
        if x is None:
            return None
        if dim is not None:
            return x.movedim(dim, at)
        return x.unsqueeze(at).expand(*x.shape[:at], self.batch_size, *x.shape[at:])

    def inputs(self) -> tuple[Any, ...]:
        return self.front(0), self.front(1, at=self.tokens_at), self.front(2), self.front(3)


def _vmap_forward(apply: Any, info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
    fold = _Fold(info.batch_size, in_dims, args)
    outputs = apply(*fold.inputs(), args[4])
    return outputs, (None if args[1] is None else fold.tokens_at, 0 if args[4] else None, 0, 1)


def _vmap_backward(apply: Any, info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
    fold = _Fold(info.batch_size, in_dims, args)
    state, grad_logp = fold.front(4, at=1), fold.front(5, at=fold.tokens_at)
    outputs = apply(*fold.inputs(), state, grad_logp, fold.front(6), fold.front(7), args[8])
    return outputs, (0, 0 if args[8] else None)


def _register(op: Any, function: type[Function], vmap: Any) -> None:
    torch.library.register_autograd(
        op._schema.name, function.backward, setup_context=function.setup_context
    )
    torch.library.register_vmap(op._schema.name, partial(vmap, op))


_register(_ops.token_stats.default, Forward, _vmap_forward)
_register(_ops.token_stats_backward.default, Backward, _vmap_backward)
