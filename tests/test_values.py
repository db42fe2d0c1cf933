"""The expected reward of `token_stats` and its gradient over all actions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from full_stats import DTYPES, INF, draw, there

import pgest
from pgest import reference
from pgest.reference import StatsInput


def test_values_give_the_gradient_over_all_actions() -> None:
    logits, values = draw(3, 9).requires_grad_(), draw(3, 9, seed=1)
    stats = pgest.token_stats(logits, None, outputs=("value",), values=values, temperature=0.7)
    assert stats.value is not None
    (grad,) = torch.autograd.grad(stats.value.sum(), logits)
    p = (logits.detach() / 0.7).softmax(-1)
    mean = (p * values).sum(-1, keepdim=True)
    torch.testing.assert_close(stats.value.detach(), mean[:, 0])
    torch.testing.assert_close(grad, p * (values - mean) / 0.7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("odd", [INF, -INF, math.nan])
def test_a_reward_that_is_not_finite_makes_its_row_nan_in_any_order(
    dtype: torch.dtype, odd: float
) -> None:
    """Of a token that is likely, or less and less so, down to one whose p underflows."""
    depths = torch.tensor([0.0, 60.0, 100.0, 150.0, 800.0, 2000.0, INF])
    logits, values = draw(7, 1500).to(dtype), draw(7, 1500, seed=1).to(dtype)
    logits[:, 700] = (logits.amax(-1) - depths).to(dtype)
    logits[:, 300] += 12  # the pivot rises, or is there from the beginning
    values[:, 700] = odd
    expected = torch.tensor([True] * 6 + [False])
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(1500, generator=generator) for _ in range(6)]
    for order in (torch.arange(1500), torch.arange(1500).flip(0), *orders):
        x = logits[:, order].requires_grad_()
        options: dict[str, Any] = {"outputs": ("value",), "values": values[:, order]}
        value = there(pgest.token_stats(x, None, **options).value)
        assert torch.equal(value.isnan(), expected)
        assert value[-1].isfinite()
        (grad,) = torch.autograd.grad(value.sum(), x)
        assert torch.equal(grad.isnan().any(-1), expected)
        defined = reference.token_stats(StatsInput(x.detach(), values=options["values"]))
        assert torch.equal(there(defined.value).isnan(), expected)
    few = torch.tensor([odd, 1.0]).to(reference.statistics_dtype(logits)).expand(7, 2)
    places = torch.tensor([700, 3]).expand(7, 2)
    options = {"outputs": ("value",), "values": few, "value_tokens": places}
    assert torch.equal(there(pgest.token_stats(logits, None, **options).value).isnan(), expected)
    kept = pgest.token_stats(logits, None, threshold=logits.amax(-1).double() - 1, **options)
    assert there(kept.value).isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_of_some_tokens_are_dense_values_elsewhere_zero(dtype: torch.dtype) -> None:
    logits = draw(5, 3000).to(dtype)
    tokens = torch.tensor([[0, 2999, 17, 17]]).expand(5, 4)
    few = torch.tensor([1.0, -2.0, 0.5, 3.0]).to(reference.statistics_dtype(logits)).expand(5, 4)
    dense = torch.zeros(5, 3000, dtype=few.dtype).scatter_add(-1, tokens, few)
    found = []
    sparse = {"values": few, "value_tokens": tokens.to(torch.int32)}
    ways: list[dict[str, Any]] = [{"values": dense}, sparse]
    for options in ways:
        leaf = logits.clone().requires_grad_()
        value = pgest.token_stats(leaf, None, outputs=("value",), **options).value
        assert value is not None
        found.append((value.detach(), *torch.autograd.grad(value.sum(), leaf)))
    torch.testing.assert_close(
        found[0], found[1], rtol=1e-5 if dtype.itemsize > 2 else 1e-2, atol=1e-7
    )
