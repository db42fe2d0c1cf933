"""What `token_stats` computes beyond logp, entropy and lse, to the number."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from full_stats import DTYPES, INF, change, draw, everything, loss, run, there

import pgest
from pgest import reference
from pgest.ops.stats import kernel
from pgest.ops.stats.kernel import BITS, OUTPUTS
from pgest.reference import StatsGrads, StatsInput


def test_everything_at_once_equals_the_definition() -> None:
    x = everything()
    x = x._replace(
        reference_logits=torch.where(draw(4, 3, 700) < -2, -INF, there(x.reference_logits))
    )
    for changes in ({}, {"threshold": None}, {"softcap": 0.0}, {"bias": None}, {"mask": None}):
        given = change(x, **changes)
        for ours, theirs in zip(run(given), reference.token_stats(given), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_each_alone_equals_all_together(dtype: torch.dtype) -> None:
    x = everything()
    theirs, values = there(x.reference_logits).to(dtype), there(x.values).to(dtype)
    logits = x.logits.to(dtype)
    x = x._replace(logits=logits, reference_logits=theirs, values=values)
    every = run(x)
    for name in OUTPUTS:
        alone = run(x, (name,))
        assert [n for n, s in alone._asdict().items() if s is not None] == [name]
        torch.testing.assert_close(getattr(alone, name), getattr(every, name))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_grad_inplace_gives_the_same_bits_for_everything(dtype: torch.dtype) -> None:
    x = everything(vocab=3000)
    theirs, values = there(x.reference_logits).to(dtype), there(x.values).to(dtype)
    x = x._replace(reference_logits=theirs, values=values)
    for changes in ({}, {"softcap": 0.0, "threshold": None}, {"values": values.float().to(dtype)}):
        grads = []
        for inplace in (False, True):
            leaf = x.logits.to(dtype).requires_grad_()
            scale = there(x.temperature).clone().requires_grad_()
            given = change(x, **{**changes, "logits": leaf * 1, "temperature": scale})
            stats = run(given, grad_inplace=inplace)
            grads.append(torch.autograd.grad(loss(stats), (leaf, scale)))
        assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
        assert grads[0][0].abs().max() > 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_that_rise_lose_nothing(dtype: torch.dtype) -> None:
    """Each block lies far above the last, or far below it: the pivot moves with every one."""
    steps = torch.linspace(-1, 1, 6000, dtype=torch.float64).to(dtype)
    logits = 90 * torch.stack([steps, -steps, steps.flip(0), steps])
    theirs = 90 * torch.stack([-steps, -steps, steps, steps * 0.5])
    logits, theirs = logits.to(dtype), theirs.to(dtype)
    x = StatsInput(logits, torch.tensor([5999, 0, 3, 5000]), reference_logits=theirs)
    exact = x._replace(logits=logits.double(), reference_logits=theirs.double())
    outputs = ("logp", "entropy", "lse", "kl", "reverse_kl", "argmax", "rank")
    truth = reference.token_stats(exact)
    ours = run(x, outputs)
    for name in outputs:
        a, b = getattr(ours, name), getattr(truth, name)
        torch.testing.assert_close(a, b.to(a.dtype), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_extreme_rows_of_both_policies(dtype: torch.dtype) -> None:
    logits, theirs = (draw(7, 1500, seed=s).to(dtype) for s in (0, 1))
    logits[0, ::2] = theirs[0, ::2] = -INF  # the same mask on both
    theirs[1, 3] = -INF  # excluded by the reference alone
    logits[2, 3] = -INF  # excluded by the policy alone
    theirs[3, 7] = math.nan
    logits[4, 7] = math.nan
    theirs[5] = -INF
    tokens = torch.full((7,), 1)
    leaf = logits.clone().requires_grad_()
    names = ("logp", "kl", "reverse_kl", "value")
    values = draw(7, 1500, seed=2).to(dtype)
    values[0, 2] = math.nan  # where p is 0
    stats = pgest.token_stats(leaf, tokens, outputs=names, reference_logits=theirs, values=values)
    logp, kl, reverse_kl, value = stats.logp, stats.kl, stats.reverse_kl, stats.value
    assert logp is not None
    assert kl is not None
    assert reverse_kl is not None
    assert value is not None
    assert kl[[0, 2, 6]].isfinite().all()
    assert kl[1] == INF
    assert reverse_kl[[0, 1, 6]].isfinite().all()
    assert reverse_kl[2] == INF
    assert kl[[3, 4, 5]].isnan().all()
    assert reverse_kl[[3, 4, 5]].isnan().all()
    assert value.isnan().nonzero().tolist() == [[4]]
    assert logp.isnan().nonzero().tolist() == [[4]]
    # Masked afterwards, an infinite or NaN divergence leaves the rest of its row's gradient alone.
    total = logp + torch.where(kl.isfinite(), kl, 0.0) + reverse_kl.where(kl.isfinite(), 0.0)
    (grad,) = torch.autograd.grad(total.sum() + value.sum(), leaf, retain_graph=True)
    assert grad.isfinite().all(-1).tolist() == [True, True, True, True, False, True, True]
    assert (grad[0, ::2] == 0).all()
    (grad,) = torch.autograd.grad(kl[1] + kl[2], leaf)
    assert not grad[1].isfinite().all()
    assert grad[2].isfinite().all()


def test_without_a_compiler_the_same_rows_stay_finite() -> None:
    logits, theirs = draw(4, 30), draw(4, 30, seed=1)
    theirs[0, 3] = -INF
    theirs[1, 7] = math.nan
    logits[2, 3] = -INF
    x = StatsInput(logits, torch.arange(4), reference_logits=theirs)
    outputs = BITS["logp"] | BITS["kl"] | BITS["reverse_kl"]
    ones, some = torch.ones(4).double(), torch.tensor([0.0, 0.0, 1.0, 1.0]).double()
    grads = StatsGrads(logp=ones, kl=some, reverse_kl=some)
    found = []
    for op, way in (
        (torch.ops.pgest.token_stats, torch.ops.pgest.token_stats_backward),
        (kernel._token_stats, kernel._token_stats_backward),
    ):
        *stats, state = op(*x, outputs)
        found.append((*stats, *way(*x, state, *grads, False)))
    torch.testing.assert_close(found[0], found[1], equal_nan=True)
    assert found[0][3].isfinite().all()


def test_the_reference_is_squashed_by_whoever_gives_it() -> None:
    logits, bias = draw(4, 900, scale=20), draw(900, seed=1)
    options: dict[str, Any] = {"outputs": ("kl",), "bias": bias, "softcap": 15.0}
    raw = logits + bias
    squashed = 15.0 * torch.tanh(raw / 15.0)
    kl = there(pgest.token_stats(logits, None, reference_logits=squashed, **options).kl)
    torch.testing.assert_close(kl, torch.zeros_like(kl), rtol=0, atol=1e-12)
    assert (there(pgest.token_stats(logits, None, reference_logits=raw, **options).kl) > 0.1).all()


def test_argmax_is_the_first_of_ties_and_rank_counts_what_is_larger() -> None:
    logits = torch.zeros(6, 5000)
    logits[0, [4000, 4321]] = 3.0
    logits[1] = torch.arange(5000.0)
    logits[2] = -INF
    logits[3, 2500] = math.nan
    logits[4, 9] = INF
    tokens = torch.tensor([[4321, 4990, 7, 0, 9, 3], [0, 0, 0, 2500, 1, 3]])
    mask = torch.tensor([True] * 5 + [False])
    stats = pgest.token_stats(logits, tokens, outputs=("argmax", "rank"), mask=mask)
    assert stats.argmax is not None
    assert stats.rank is not None
    assert stats.argmax.tolist() == [4000, 4999, 0, 2500, 9, 0]
    assert stats.rank.tolist() == [[0, 9, 0, 1, 0, 0], [2, 4999, 0, 5000, 1, 0]]
    assert stats.rank.dtype == stats.argmax.dtype == torch.int64
    capped = pgest.token_stats(logits[1:2], tokens[:, 1:2], outputs=("rank",), threshold=4000)
    assert capped.rank is not None
    assert capped.rank.tolist() == [[9], [1000]]


def test_argmax_and_rank_carry_no_gradient() -> None:
    logits = draw(2, 5).requires_grad_()
    stats = pgest.token_stats(logits, torch.zeros(2, dtype=torch.long), outputs=("rank", "lse"))
    assert stats.rank is not None
    assert not stats.rank.requires_grad
    assert stats.lse is not None
    assert stats.lse.requires_grad


def test_what_the_threshold_excludes_is_impossible_and_has_no_gradient() -> None:
    logits = draw(8, 2500).requires_grad_()
    threshold = torch.full((8,), 0.5)
    tokens = logits.detach().argmin(-1)
    stats = pgest.token_stats(logits, tokens, outputs=("logp", "entropy"), threshold=threshold)
    kept = torch.where(logits.detach() >= 0.5, logits.detach(), -INF)
    expected = pgest.token_stats(kept, tokens, outputs=("entropy",))
    assert stats.logp is not None
    assert stats.entropy is not None
    assert (stats.logp == -INF).all()
    torch.testing.assert_close(stats.entropy.detach(), expected.entropy)
    (grad,) = torch.autograd.grad(stats.logp.sum() + stats.entropy.sum(), logits)
    assert grad.isfinite().all()
    assert (grad[kept == -INF] == 0).all()
    assert grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("limits", [{"top_k": 40}, {"top_p": 0.8, "min_p": 0.01}], ids=str)
def test_restrictions_are_the_softmax_of_what_they_keep(
    dtype: torch.dtype, limits: dict[str, Any]
) -> None:
    logits, tokens = draw(6, 2500).to(dtype).requires_grad_(), torch.arange(6)
    tokens = torch.where(tokens < 4, logits.detach().argmax(-1), logits.detach().argmin(-1))
    shape: dict[str, Any] = {"bias": draw(2500, seed=1), "softcap": 6.0, "temperature": 0.8}
    stats = pgest.token_stats(logits, tokens, **shape, **limits)
    exact = logits.detach().double().requires_grad_()
    v = 6.0 * torch.tanh((exact + shape["bias"].to(reference.statistics_dtype(logits))) / 6.0)
    kept = v >= pgest.row_threshold(logits, **shape, **limits)[:, None] - 1e-6
    assert 1 < kept.sum(-1).min() <= kept.sum(-1).max() < 300
    truth = pgest.token_stats(v.masked_fill(~kept, -INF), tokens, temperature=0.8)
    for ours, theirs in zip(stats[:3], truth[:3], strict=True):
        torch.testing.assert_close(there(ours).double(), there(theirs), rtol=1e-5, atol=1e-5)
    (grad,) = torch.autograd.grad(there(stats.logp)[:4].sum(), logits)
    (expected,) = torch.autograd.grad(there(truth.logp)[:4].sum(), exact)
    assert (grad[:4][~kept[:4]] == 0).all()
    rounding = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(grad.double(), expected, rtol=rounding, atol=max(rounding, 1e-6))
    logp = pgest.token_logp(logits, tokens, **shape, **limits)
    assert torch.equal(logp, there(stats.logp))
    assert (logp[4:] == -INF).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("height", [150.0, 2000.0])
def test_infinite_divergences_do_not_depend_on_the_order(dtype: torch.dtype, height: float) -> None:
    """The one token that q never takes has p of 0 or not, in whichever block it stands."""
    logits = torch.zeros(1024, dtype=dtype)
    logits[:512] = -height
    theirs = torch.zeros(1024, dtype=dtype)
    theirs[0] = -INF
    possible = height == 150 and dtype == torch.float64
    for x, y in ((logits, theirs), (logits.flip(0), theirs.flip(0))):
        kl = pgest.token_stats(x, None, outputs=("kl",), reference_logits=y).kl
        reverse = pgest.token_stats(y, None, outputs=("reverse_kl",), reference_logits=x).reverse_kl
        for found in (there(kl), there(reverse)):
            expected = INF if possible else math.log(1023 / 512)
            torch.testing.assert_close(found.double(), torch.tensor(expected).double())


def test_divergences_of_policies_that_exclude_each_other_are_infinite() -> None:
    logits, theirs = draw(5, 1500), draw(5, 1500, seed=1)
    logits[:, 3] = theirs[:, 1400] = -INF
    stats = pgest.token_stats(logits, None, outputs=("kl", "reverse_kl"), reference_logits=theirs)
    assert (there(stats.kl) == INF).all()
    assert (there(stats.reverse_kl) == INF).all()
