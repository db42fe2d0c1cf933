"""Shapes, dtypes, strides, vmap and masks of what `token_stats` reads beside the logits."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from full_stats import DTYPES, change, draw, everything, loss, present, run, there
from torch import Tensor

import pgest
from pgest.reference import StatsInput


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bias_gets_the_sum_over_rows_in_its_own_dtype(dtype: torch.dtype) -> None:
    logits, bias = draw(40, 50).to(dtype), draw(50, seed=1).to(dtype).requires_grad_()
    tokens = torch.arange(40)
    pgest.token_logp(logits, tokens, bias=bias).sum().backward()
    assert bias.grad is not None
    assert bias.grad.dtype == dtype
    exact = bias.detach().double().requires_grad_()
    log_p = (logits.double() + exact).log_softmax(-1)
    log_p.gather(-1, tokens[:, None]).sum().backward()
    assert exact.grad is not None
    rounding = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(bias.grad.double(), exact.grad, rtol=rounding, atol=8 * rounding)
    row = torch.zeros(50, dtype=torch.float64, requires_grad=True)
    pgest.token_logp(logits[0].double(), tokens[0], bias=row).backward()
    assert row.grad is not None
    assert row.grad.shape == (50,)


@pytest.mark.parametrize("name", ["bias", "reference_logits", "values", "value_tokens"])
@pytest.mark.parametrize("way", ["values", "gradients"])
def test_vmap_over_what_stands_beside(name: str, way: str) -> None:
    x = StatsInput(
        draw(3, 6),
        torch.tensor([0, 1, 2]),
        bias=draw(6, seed=1),
        reference_logits=draw(3, 6, seed=2),
        values=draw(3, 2, seed=3),
        value_tokens=torch.tensor([[0, 5], [1, 1], [2, 3]]),
    )
    one = getattr(x, name)
    many = torch.stack([one, one.flip(-1), one.roll(1, -1)])

    def stats(value: Tensor, logits: Tensor) -> Tensor:
        found = run(
            change(x, logits=logits, **{name: value}), ("logp", "kl", "reverse_kl", "value")
        )
        return torch.stack(present(found))

    def grads(value: Tensor, logits: Tensor) -> Tensor:
        return torch.func.grad(lambda z: stats(value, z).square().sum())(logits)

    f: Callable[[Tensor, Tensor], Tensor] = stats if way == "values" else grads
    every = torch.vmap(f, in_dims=(0, None))(many, x.logits)
    torch.testing.assert_close(every, torch.stack([f(value, x.logits) for value in many]))


@pytest.mark.parametrize("op", ["token_stats", "sample"])
def test_vmap_over_a_bias_that_decides_what_top_p_leaves(op: str) -> None:
    logits, biases = draw(5, 40), draw(3, 40, seed=1, scale=4.0)
    uniforms = torch.linspace(0, 0.99, 5).double()[None]

    def run(bias: Tensor) -> Tensor:
        if op == "sample":
            return there(pgest.sample(logits, noise=uniforms, bias=bias, top_p=0.6).logp)[0]
        tokens = (logits + bias).argmax(-1)
        return pgest.token_logp(logits, tokens, bias=bias, top_p=0.6)

    torch.testing.assert_close(torch.vmap(run)(biases), torch.stack([run(b) for b in biases]))


def test_strides_of_everything_reach_the_kernel() -> None:
    x = everything(batch=(3, 4))
    wide = torch.full((3, 6, 705), math.nan, dtype=torch.float64)
    expected = run(x)
    for name in ("logits", "reference_logits", "values"):
        view = wide.clone()[:, 1:-1, 3:-2]
        view.copy_(getattr(x, name))
        torch.testing.assert_close(run(change(x, **{name: view})), expected, rtol=0, atol=0)
        strided = getattr(x, name).movedim(-1, 0).contiguous().movedim(0, -1)
        torch.testing.assert_close(run(change(x, **{name: strided})), expected, rtol=0, atol=0)


@pytest.mark.parametrize("batch", [(0,), (2, 0)], ids=str)
def test_no_rows_of_everything(batch: tuple[int, ...]) -> None:
    x = everything(batch=batch, vocab=7)
    leaf = x.logits.clone().requires_grad_()
    stats = run(x._replace(logits=leaf))
    assert [s.shape for s in present(stats)][1:6] == [batch] * 5
    assert torch.autograd.grad(loss(stats), leaf)[0].shape == (*batch, 7)


def test_rows_that_are_masked_may_hold_anything_beside() -> None:
    x = everything()
    assert x.mask is not None
    dead = ~x.mask[..., None]
    few = StatsInput(x.logits, mask=x.mask, values=torch.ones(4, 3, 2).double())
    few = few._replace(value_tokens=torch.where(dead, -100, torch.tensor([1, 2])))
    assert run(few, ("value",)).value is not None
    bad = x._replace(
        reference_logits=torch.where(dead, math.nan, there(x.reference_logits)),
        values=torch.where(dead, math.nan, there(x.values)),
    )
    torch.testing.assert_close(run(bad), run(x), rtol=0, atol=0)
