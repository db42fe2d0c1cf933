"""A surrogate term that gives a first derivative and refuses to be taken for a second one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters


def add_surrogate(value: Tensor, surrogate: Tensor, name: str) -> Tensor:
    """Return `value`, with the gradient of `surrogate` added to its own.

    The gradient of a score-function surrogate estimates that of E[f]; its second derivative
    estimates nothing, for the weights are constants to it. So the gradients carry a node that
    raises where they are differentiated through the distribution's parameters, in eager code and
    in torch.func (where a derivative of a forward-mode one is refused for f's own parameters too).
    torch.compile refuses a second derivative of compiled code itself, save for the backend "eager",
    which differentiates the weights as the constants they are. Transforms within compiled code it
    does not refuse, nor can it trace the guards: there a second level of them is refused at once.

    Args:
        value, surrogate: of equal shape; where the surrogate is NaN or infinite the value is NaN,
            so that a broken row of logits does not pass unseen.
        name: the estimator's.
    """
    if torch.compiler.is_compiling():
        if torch._C._are_functorch_transforms_active() and _derivatives() > 1:
            raise _refusal(name)
        return value + (surrogate - surrogate.detach()).to(value.dtype)
    added: Tensor = _AddSurrogate.apply(value, surrogate, name)
    return added


def _derivatives() -> int:
    """How many of torch.func's transforms around this call differentiate."""
    interpreters = retrieve_all_functorch_interpreters()
    return sum(i.key() != TransformType.Vmap for i in interpreters)


# The mark of torch.compiler.assume_constant_result, which would import the compiler with pgest: the
# stack cannot be read in compiled code, but stands as it will run while that is being traced.
_derivatives._dynamo_marked_constant = True  # type: ignore[attr-defined]


class _AddSurrogate(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, surrogate: Tensor, name: str) -> Tensor:
        return value + (surrogate - surrogate).to(value.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        value, surrogate, ctx.name = inputs
        ctx.save_for_backward(value, surrogate)
        ctx.save_for_forward(value, surrogate)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        value, surrogate = ctx.saved_tensors
        of_value, of_surrogate = (grad if needed else None for needed in ctx.needs_input_grad[:2])
        # Guards are there for create_graph only; torch.func always counts as that. The plain
        # gradient may be differentiated by f's own parameters, but not by the distribution's.
        if of_value is not None and torch.is_grad_enabled():
            of_value = of_value * _Guard.apply(ctx.name, surrogate)
        if of_surrogate is not None and torch.is_grad_enabled():
            guard = _Guard.apply(ctx.name, value, surrogate)
            of_surrogate = of_surrogate * guard
        if of_surrogate is not None:
            of_surrogate = of_surrogate.to(surrogate.dtype)
        return of_value, of_surrogate, None

    @staticmethod
    def jvp(ctx: Any, value: Tensor, surrogate: Tensor, name: None) -> Tensor:
        guard = _Guard.apply(ctx.name, *ctx.saved_tensors)
        return value + (surrogate * guard).to(value.dtype)


class _Guard(torch.autograd.Function):
    """The number 1, which depends on `sources` as far as autograd knows, but has no derivative.

    A factor rather than an identity around a gradient: what reaches that gradient by another way,
    as a learned weight of the loss does, may be differentiated.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(name: str, *sources: Tensor) -> Tensor:
        return sources[-1].new_ones(())

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.name = inputs[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise _refusal(ctx.name)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        raise _refusal(ctx.name)


def _refusal(name: str) -> RuntimeError:
    return RuntimeError(
        f"expect: {name} is of first order only: the second derivative of a sampled estimate is "
        "not that of E[f]; the estimators exact and dice have every derivative"
    )
