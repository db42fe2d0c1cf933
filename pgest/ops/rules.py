"""What the rules of several ops share: entries, vmap, second derivatives and registration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

Rule = Callable[..., Any]


def front(x: Any, dim: int | None, size: int, at: int = 0) -> Any:
    """An argument with vmap's batch dimension first, or at `at`.

    One that has none is expanded with stride 0, which the kernels read without a copy.
    """
    if not isinstance(x, Tensor):
        return x
    if dim is not None:
        return x.movedim(dim, at)
    return x.unsqueeze(at).expand(*x.shape[:at], size, *x.shape[at:])


def fronts(info: Any, in_dims: Sequence[int | None], args: Sequence[Any]) -> list[Any]:
    """All arguments with vmap's batch dimension first."""
    return [front(x, dim, info.batch_size) for x, dim in zip(args, in_dims, strict=True)]


def biased(logits: Tensor, bias: Tensor) -> Tensor:
    """Logits [batch, ..., V] with a bias [batch, V] of its own for each element of vmap's batch.

    The ops' bias is one for all rows. The sum is the one that they would make, in its dtype.
    """
    rows = [None] * (logits.dim() - 2)
    return logits.to(bias.dtype) + bias[(slice(None), *rows)]


def one_by_one(apply: Rule, info: Any, in_dims: Sequence[int | None], args: Sequence[Any]) -> Any:
    """The op for each element of vmap's batch, stacked: where they share no pass."""
    each = fronts(info, in_dims, args)
    runs = [
        apply(*(x[i] if isinstance(x, Tensor) else x for x in each)) for i in range(info.batch_size)
    ]
    if isinstance(runs[0], Tensor):
        return torch.stack(runs)
    return tuple(map(torch.stack, zip(*runs, strict=True)))


def pull_back(
    closed_form: Rule, args: Sequence[Any], wanted: Sequence[int], cotangents: Sequence[Any]
) -> list[Any]:
    """Gradients of a backward in closed form for its arguments at `wanted`: the second order.

    Outputs without a cotangent do not count. The list has an entry for each of `args`.
    """
    results: list[Any] = [None] * len(args)
    wanted = [i for i in wanted if args[i] is not None]
    given = [i for i, v in enumerate(cotangents) if v is not None]
    if not given:
        return results

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        complete = list(args)
        for i, value in zip(wanted, values, strict=True):
            complete[i] = value
        outputs = closed_form(*complete)
        return tuple(outputs[i] for i in given)

    outputs, pullback, *_ = torch.func.vjp(run, *(args[i] for i in wanted))
    grads = pullback(tuple(cotangents[i].to(o.dtype) for i, o in zip(given, outputs, strict=True)))
    for i, grad in zip(wanted, grads, strict=True):
        results[i] = grad
    return results


def entry(
    bare: Rule, function: type[Function], eager: type[Function], *leaves: Tensor | None
) -> Rule:
    """The cheapest way into an op that keeps every promise: without a gradient the bare op.

    Compiled code takes the bare op too, which has the same rules registered. Forward mode takes a
    Function, because that refuses it and the bare op would not. `leaves`: what may need a gradient.
    """
    if torch.compiler.is_compiling():
        return bare
    if forward_ad._current_level < 0 and not (torch.is_grad_enabled() and any_need(leaves)):
        return bare
    return function.apply if torch._C._are_functorch_transforms_active() else eager.apply


def any_need(leaves: Sequence[Tensor | None]) -> bool:
    """Whether one of the tensors requires a gradient."""
    needs = False
    for x in leaves:  # without a generator, which tiny inputs would feel
        needs = needs or (x is not None and x.requires_grad)
    return needs


def eager_of(function: Any) -> Any:
    """A Function outside torch.func: without setup_context a call costs a third less."""

    def forward(ctx: Any, *args: Any) -> Any:
        output = function.forward(*args)
        function.setup_context(ctx, args, output)
        return output

    name = "Eager" + function.__name__
    members = {"forward": staticmethod(forward), "backward": staticmethod(function.backward)}
    return type(name, (Function,), members)


def register(op: Any, function: Any, vmap: Rule) -> None:
    """Give the op, for direct callers, the rules of its Function."""
    torch.library.register_autograd(
        op._schema.name, function.backward, setup_context=function.setup_context
    )
    torch.library.register_vmap(op._schema.name, partial(vmap, op))
