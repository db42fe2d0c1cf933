"""Half types in linear_objective: their gradients are rounded once, and autocast adds nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from linear_inputs import Example, example, hidden_and_weight
from op_row import HALF, largest
from torch import Tensor

import pgest
from pgest import TokenStats


def loss_of(x: Example, *rows: Tensor, objective: Callable[..., Tensor], **options: Any) -> Tensor:
    given = {"bias": x.bias, "temperature": x.temperature, **options}
    loss: Tensor = pgest.linear_objective(x.hidden, x.weight, x.tokens, objective, *rows, **given)
    return loss


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("upstream", [65536.0, 1.003])
@pytest.mark.parametrize("kept", [False, True])
def test_half_types_are_rounded_after_the_upstream_gradient(
    dtype: torch.dtype, upstream: float, kept: bool
) -> None:
    x = example((64,), width=8, vocab=31, dtype=dtype)
    advantage = torch.linspace(-1e-2, 1e-2, 64).to(dtype).requires_grad_()
    assert x.bias is not None
    leaves = (x.hidden, x.weight, x.bias, advantage)
    scale = upstream / 1e5  # far below what float16 holds

    def objective(stats: TokenStats, advantage: Tensor) -> Tensor:
        assert stats.logp is not None
        return -advantage * stats.logp

    logp = x.run(outputs=("logp",), mask=None)[0]
    expected = torch.autograd.grad((-advantage * logp).sum() * scale, leaves)
    loss = loss_of(x, advantage, objective=objective, outputs=("logp",), normalizer=1e5)
    found = torch.autograd.grad(upstream * loss, leaves, retain_graph=kept)
    if kept:
        found = torch.autograd.grad(upstream * loss, leaves)
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype == dtype
        assert largest(b) > 0
        torch.testing.assert_close(a, b, rtol=torch.finfo(dtype).eps, atol=smallest)


@pytest.mark.parametrize("kept", [False, True])
def test_a_gradient_summed_in_a_half_type_takes_a_large_upstream_one(kept: bool) -> None:
    x = hidden_and_weight(example((64,), width=8, vocab=31, dtype=torch.float16))
    options: Any = {"objective": lambda s: -s.logp, "accumulate": "weight", "normalizer": 1e5}
    loss = loss_of(x, **options)
    (small,) = torch.autograd.grad(loss, x.weight, retain_graph=True)
    (large,) = torch.autograd.grad(65536 * loss, x.weight, retain_graph=kept)
    assert torch.equal(large, (small.float() * 65536).half())
    assert largest(large) > 0


@pytest.mark.parametrize("accumulate", ["full", "weight"])
def test_autocast_touches_no_product(accumulate: str) -> None:
    x = hidden_and_weight(example((64,), width=16, vocab=33, dtype=torch.bfloat16))
    options: Any = {"objective": lambda s: -s.logp, "accumulate": accumulate, "chunk_rows": 16}

    def gradients() -> tuple[Tensor, ...]:
        by_loss = torch.autograd.grad(loss_of(x, **options), (x.hidden, x.weight))
        logp = x.run(outputs=("logp",), accumulate=accumulate, chunk_rows=16)[0]
        return *by_loss, *torch.autograd.grad(logp.sum(), (x.hidden, x.weight))

    outside = gradients()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gradients()
    for a, b in zip(inside, outside, strict=True):
        assert torch.equal(a, b)
