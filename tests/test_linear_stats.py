"""linear_token_stats: the statistics and gradients of its definition, without the logits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from linear_inputs import STATS, Example, example, hidden_and_weight, products
from op_row import HALF, largest, weighted
from torch import Tensor

import pgest
from pgest.ops.linear.checks import OUTPUTS


def gradients(outputs: tuple[Tensor, ...], x: Example) -> tuple[Tensor, ...]:
    return torch.autograd.grad(weighted(outputs), x.leaves())


@pytest.mark.parametrize("outputs", [("logp",), ("entropy",), ("lse",), ("lse", "logp")], ids=str)
def test_outputs_that_are_not_asked_for_are_none(outputs: tuple[str, ...]) -> None:
    x = example(samples=2)
    stats = pgest.linear_token_stats(x.hidden, x.weight, x.tokens, outputs=outputs)
    whole = pgest.linear_token_stats(x.hidden, x.weight, x.tokens)
    for name in STATS:
        found = getattr(stats, name)
        assert (found is None) == (name not in outputs)
        if found is not None:
            torch.testing.assert_close(found, getattr(whole, name))
    if "logp" not in outputs:
        assert pgest.linear_token_stats(x.hidden, x.weight, None, outputs=outputs).logp is None


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
def test_is_as_close_to_float64_as_plain_pytorch(dtype: torch.dtype) -> None:
    x = hidden_and_weight(example((64,), width=96, vocab=3001, dtype=dtype))

    def plain(x: Example) -> tuple[Tensor, ...]:
        log_p = F.linear(x.hidden, x.weight).log_softmax(-1)
        logp = log_p.gather(-1, x.tokens[..., None])[..., 0]
        return logp, -(log_p.exp() * log_p).sum(-1), F.linear(x.hidden, x.weight).logsumexp(-1)

    exact = x.to(torch.float64)
    factor = 1.5 if dtype == torch.float32 else 0.1  # a product's rounding depends on its blocks
    results = x.run(chunk_rows=24), plain(x), exact.define()
    assert all(out.dtype == torch.float32 for out in results[0])
    for a, b, c in zip(*results, strict=True):
        assert largest(a - c) <= max(factor * largest(b - c), 4e-7 * largest(c))
    leaves = [y.leaves()[:2] for y in (x, x, exact)]
    found = [torch.autograd.grad(weighted(r), y) for r, y in zip(results, leaves, strict=True)]
    for a, b, c in zip(*found, strict=True):
        assert a.dtype == b.dtype == dtype
        rounding = torch.finfo(dtype).eps * largest(c)
        assert largest(a - c) <= max(1.5 * largest(b - c), rounding)


def test_the_weights_gradient_is_summed_in_the_dtype_that_is_asked_for() -> None:
    x = hidden_and_weight(example((256,), width=8, vocab=50, dtype=torch.bfloat16))
    exact = x.to(torch.float64)
    (truth_weight,) = torch.autograd.grad(weighted(exact.define()), exact.weight)
    error = {}
    for accumulate in ("full", "weight"):
        outputs = x.run(chunk_rows=4, accumulate=accumulate)
        (grad,) = torch.autograd.grad(weighted(outputs), x.weight)
        assert grad.dtype == torch.bfloat16
        error[accumulate] = largest(grad - truth_weight) / largest(truth_weight)
    assert error["full"] <= torch.finfo(torch.bfloat16).eps
    assert 2 * error["full"] < error["weight"] < 0.2


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
def test_a_large_weight_is_converted_slab_by_slab(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = example(vocab=11, dtype=dtype)
    whole = x.run()
    expected = gradients(whole, x)
    monkeypatch.setattr("pgest.ops.linear.head.SLAB_BYTES", 3 * 5 * 4)
    for accumulate in ("full", "weight"):
        slabs = x.run(accumulate=accumulate)
        torch.testing.assert_close(slabs, whole)
        torch.testing.assert_close(gradients(slabs, x), expected)


@pytest.mark.parametrize(
    ("needs", "expected"),
    [((), 1), (("hidden",), 3), (("weight",), 3), (("hidden", "weight"), 4), (("bias",), 2)],
    ids=str,
)
def test_only_gradients_that_are_needed_cost_products(
    needs: tuple[str, ...], expected: int
) -> None:
    x = example((12,))
    for name in ("hidden", "weight", "bias", "temperature"):
        getattr(x, name).requires_grad_(name in needs)

    def run() -> None:
        outputs = x.run(chunk_rows=5)
        if needs:
            torch.autograd.backward(weighted(outputs))

    assert products(run, 12 * 5 * 7) == expected
    for name in ("hidden", "weight", "bias", "temperature"):
        assert (getattr(x, name).grad is not None) == (name in needs)


def test_masked_rows_are_dropped_before_the_products() -> None:
    x = example((10,), vocab=6)
    mask = torch.arange(10) % 5 < 2
    hidden = torch.where(mask[:, None], x.hidden.detach(), math.nan).requires_grad_()
    tokens = torch.where(mask, x.tokens, 99)
    x = replace(x, mask=mask, hidden=hidden, tokens=tokens)
    assert products(lambda: gradients(x.run(), x), 4 * 5 * 6) == 4
    outputs = x.run()
    grads = gradients(outputs, x)
    for out in (*outputs, grads[0]):
        assert (out[~mask] == 0).all()
        assert out.isfinite().all()
    assert all(g.isfinite().all() for g in grads)


def test_rows_without_a_gradient_are_dropped_in_the_backward() -> None:
    x = example((10,), vocab=6)
    weight = (torch.arange(10) % 5 < 2).double()

    def run() -> None:
        (weight * x.run(outputs=("logp",))[0]).sum().backward()

    assert products(run, 10 * 5 * 6) == pytest.approx(1 + 3 * 0.4)
    expected = replace(x, mask=weight > 0)
    for a, b in zip(x.leaves(), gradients_of_logp(expected), strict=True):
        torch.testing.assert_close(a.grad, b)


def gradients_of_logp(x: Example) -> tuple[Tensor, ...]:
    return torch.autograd.grad(x.define()[0].sum(), x.leaves())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF], ids=str)
def test_impossible_tokens_and_broken_rows_stay_in_their_row(dtype: torch.dtype) -> None:
    x = example((4,), vocab=6, dtype=dtype)
    bias = torch.zeros(6, dtype=dtype)
    bias[1] = -math.inf
    hidden = x.hidden.detach().clone()
    hidden[3] = math.nan
    tokens = torch.tensor([0, 1, 2, 3])
    x = replace(x, bias=bias, hidden=hidden.requires_grad_(), tokens=tokens)
    logp, entropy, lse = x.run()
    assert logp[1] == -math.inf
    assert logp[[0, 2]].isfinite().all()
    for out in (logp, entropy, lse):
        assert out[3].isnan()
    assert entropy[:3].isfinite().all()
    grad, by_weight = torch.autograd.grad((entropy + logp)[:3].sum(), (x.hidden, x.weight))
    assert grad.isfinite().all()
    assert by_weight.isfinite().all()
    bias[:] = -math.inf
    logp, entropy, lse = x.run()
    assert (lse[:3] == -math.inf).all()
    assert logp.isnan().all()


def test_strided_inputs_are_read_where_they_are() -> None:
    x = example((4, 3, 2), width=6)
    hidden = torch.full((4, 5, 2, 9), math.nan, dtype=torch.float64)
    hidden[:, 1:4, :, 2:8] = x.hidden.detach()
    weight = x.weight.detach().t().contiguous().t()
    view = replace(
        x, hidden=hidden[:, 1:4, :, 2:8].requires_grad_(), weight=weight.requires_grad_()
    )
    torch.testing.assert_close(view.run(), x.run())
    torch.testing.assert_close(gradients(view.run(), view), gradients(x.run(), x))


def test_every_statistic_and_restriction_equals_its_definition() -> None:
    x = replace(example((2, 3), vocab=9, samples=2, masked=True), bias=None)
    other = (torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64))
    for bias in ((), (torch.randn(9, dtype=torch.float64),)):
        reference = (*other, *bias)
        given: Any = {"softcap": 1.5, "reference": reference, "outputs": OUTPUTS}
        x = replace(x, bias=None if not bias else bias[0].requires_grad_())
        reference = tuple(r.detach() for r in reference)
        given["reference"] = reference
        ours = x.run(chunk_rows=2, **given)
        whole = x.defined(1.5, other=reference)
        theirs = tuple(getattr(whole, name) for name in OUTPUTS)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
        n = OUTPUTS.index("argmax")
        assert largest(ours[OUTPUTS.index("kl")]) > 0.1
        for a, b in zip(gradients(ours[:n], x), gradients(theirs[:n], x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_softcap_reaches_impossible_tokens_of_the_reference() -> None:
    x = hidden_and_weight(example((40,), vocab=5))
    bias = torch.tensor([0.0, 0.0, -math.inf, 0.0, 0.0], dtype=torch.float64)
    same = (x.hidden.detach(), x.weight.detach(), bias)
    stats = pgest.linear_token_stats(
        x.hidden, x.weight, None, outputs=("kl", "reverse_kl"), softcap=2.0, reference=same
    )
    assert stats.kl is not None
    assert stats.reverse_kl is not None
    assert (stats.kl == math.inf).all()  # the policy may draw what the reference never does
    assert stats.reverse_kl.isfinite().all()
    capped = pgest.linear_token_stats(
        x.hidden, x.weight, None, outputs=("kl",), bias=bias, softcap=2.0, reference=same
    ).kl
    torch.testing.assert_close(capped, torch.zeros(40, dtype=torch.float64))


def test_a_threshold_restricts_the_rows() -> None:
    x = hidden_and_weight(example((6,), vocab=8, samples=3))
    logits = (x.hidden @ x.weight.t()).detach().requires_grad_()
    threshold = logits.detach().sort(-1).values[:, 3]
    ours = pgest.linear_token_stats(
        x.hidden, x.weight, x.tokens, threshold=threshold - 1e-9, chunk_rows=4
    )
    theirs = pgest.token_stats(logits, x.tokens, threshold=threshold - 1e-9)
    assert ours.logp is not None
    assert (ours.logp == -math.inf).any()
    for a, b in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(a, b)


def test_a_tied_embedding_gets_both_gradients() -> None:
    table = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([[1, 8, 3, 3]])

    def loss(fused: bool) -> Tensor:
        hidden = torch.tanh(F.embedding(tokens[:, :-1], table))
        if fused:
            return pgest.linear_token_stats(hidden, table, tokens[:, 1:]).logp.sum()  # type: ignore[union-attr]
        return pgest.token_logp(hidden @ table.t(), tokens[:, 1:]).sum()

    ours, theirs = (torch.autograd.grad(loss(fused), table)[0] for fused in (True, False))
    torch.testing.assert_close(ours, theirs)


def test_a_low_rank_head_gets_its_gradients() -> None:
    x = hidden_and_weight(example(vocab=9))
    frozen = x.weight.detach()
    a = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    b = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)

    def grads(run: str) -> tuple[Tensor, ...]:
        outputs = getattr(replace(x, weight=frozen + b @ a), run)()
        return torch.autograd.grad(weighted(outputs), (a, b, x.hidden))

    torch.testing.assert_close(grads("run"), grads("define"))


def test_autocast_is_that_of_a_linear_layer() -> None:
    x = hidden_and_weight(example((6,), width=16, vocab=33, dtype=torch.float32))
    x = replace(x, hidden=x.hidden.detach().bfloat16().requires_grad_())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = x.run()
        logits = F.linear(x.hidden, x.weight)
    assert logits.dtype == torch.bfloat16
    rounded = replace(x, weight=x.weight.detach().bfloat16().requires_grad_())
    torch.testing.assert_close(ours, rounded.run(), rtol=0, atol=0)
    for a, b in zip(ours, pgest.token_stats(logits, x.tokens), strict=False):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)
    by_hidden, by_weight = torch.autograd.grad(ours[0].sum(), (x.hidden, x.weight))
    assert (by_hidden.dtype, by_weight.dtype) == (torch.bfloat16, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert example().run()[0].dtype == torch.float64
