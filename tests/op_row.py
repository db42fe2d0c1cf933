"""A row of the table of ops: everything that `test_ops.py` needs to check an op completely.

A row gives the public function, its definition in `pgest.reference` and example inputs; every check
(back end, parity, gradients, transforms, compile, half types, strides, ...) is written once, for
all rows. A new op is a new row, in a file `rows_*.py` of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

Outputs = tuple[Tensor, ...]
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Inputs:
    """Arguments of one call. `logits` and `extras` are differentiated; the rest is not."""

    logits: Tensor
    tokens: Tensor
    extras: tuple[Tensor, ...] = ()
    mask: Tensor | None = None
    fixed: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Op:
    """One row: `run` is what users call, `define` says what it means, `plain` is usual PyTorch."""

    name: str
    run: Callable[[Inputs], Outputs]
    define: Callable[[Inputs], Outputs]
    plain: Callable[[Inputs], Outputs]
    extras: Callable[[torch.Size, torch.dtype], tuple[Tensor, ...]]
    raw: str  # "" where torch's library has no such op, so that nothing compiles or transforms it
    raw_args: Callable[[Inputs], tuple[Any, ...]]
    raw_backward: str
    raw_backward_args: Callable[[Inputs], tuple[Any, ...]]
    compile_backend: str = "inductor"
    slack: float = 1.0  # more roundings than others may be off where plain PyTorch is closer
    inplace: bool = True  # whether a backward that overwrites the logits exists
    surrogate: bool = False  # whether the gradient is not that of the forward, but `define`'s
    sample: bool = False  # whether outputs are samples, in the logits' dtype, not statistics
    chunked: bool = False  # a loop in Python: no kernel of its own, second derivative or vmap
    once: bool = False  # its gradient is made in the forward: no second derivative or torch.func

    @property
    def whole(self) -> bool:
        """Whether it has a second derivative and takes vmap."""
        return not (self.chunked or self.once)

    def inputs(
        self,
        dtype: torch.dtype = torch.float64,
        batch: tuple[int, ...] = (2, 3),
        vocab: int = 7,
        samples: int | None = None,
        scale: float = 2.0,
        masked: bool = False,
    ) -> Inputs:
        """Random arguments, the same for the same call."""
        generator = torch.Generator().manual_seed(0)
        logits = scale * torch.randn(*batch, vocab, generator=generator, dtype=torch.float64)
        shape = batch if samples is None else (samples, *batch)
        tokens = torch.randint(vocab, shape, generator=generator)
        mask = torch.rand(batch, generator=generator) > 0.3 if masked else None
        return Inputs(logits.to(dtype), tokens, self.extras(torch.Size(batch), dtype), mask)


def differentiable(x: Inputs) -> tuple[Tensor, ...]:
    return x.logits, *x.extras


def with_values(x: Inputs, values: tuple[Tensor, ...]) -> Inputs:
    return replace(x, logits=values[0], extras=tuple(values[1:]))


def as_leaves(x: Inputs) -> Inputs:
    return with_values(x, tuple(t.detach().requires_grad_() for t in differentiable(x)))


def weighted(outputs: Outputs) -> Tensor:
    """A scalar that gives every entry of every output its own upstream gradient."""
    total = outputs[0].new_zeros(())
    for i, out in enumerate(outputs):
        total = total + (weight_of(i, out.shape).to(out.dtype) * out).sum()
    return total


def weight_of(i: int, shape: torch.Size) -> Tensor:
    """Upstream gradients of output i, the same numbers in every dtype."""
    weight = torch.linspace(-1 + 0.1 * i, 1, shape.numel(), dtype=torch.float64)
    return ((64 * weight).round() / 64).view(shape)


def gradients(outputs: Outputs, x: Inputs) -> tuple[Tensor, ...]:
    return torch.autograd.grad(weighted(outputs), differentiable(x))


def assert_same(op: Op, ours: Outputs, theirs: Outputs) -> None:
    """Bit for bit, but for products with a head: torch chooses how it rounds those."""
    allowed = None if op.chunked else 0.0
    torch.testing.assert_close(ours, theirs, rtol=allowed, atol=allowed)


def in_float64(x: Inputs) -> Inputs:
    return with_values(x, tuple(t.double() for t in differentiable(x)))


def largest(x: Tensor) -> float:
    return float(x.detach().double().abs().max())
