"""`token_stats_sum`: a weighted sum of statistics, its gradient made in the forward."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from full_stats import DTYPES, INF, draw, there
from torch import Tensor

import pgest


def example(vocab: int = 7) -> tuple[Tensor, Tensor]:
    logits = draw(4, 3, vocab, seed=1).requires_grad_()
    return logits, torch.randint(vocab, (4, 3), generator=torch.Generator().manual_seed(2))


def gradient(loss: Tensor, *leaves: Tensor, **options: Any) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, leaves, **options)


def test_weights_learn_and_broadcast() -> None:
    logits, tokens = example()
    advantage = draw(4, 1, seed=3).requires_grad_()
    bonus = torch.tensor(0.1, requires_grad=True)
    mask = draw(4, 3, seed=4) > -1
    options: dict[str, Any] = {"mask": mask, "temperature": 0.7}
    weights: dict[str, float | Tensor] = {"entropy": bonus, "logp": advantage, "lse": 0.5}
    loss = pgest.token_stats_sum(logits, tokens, weights, normalizer=mask.sum(), **options)
    stats = pgest.token_stats(logits, tokens, **options)
    logp, entropy, lse = (there(s) for s in (stats.logp, stats.entropy, stats.lse))
    expected = torch.where(mask, advantage * logp + bonus * entropy + 0.5 * lse, 0.0).sum()
    expected = expected / mask.sum()
    torch.testing.assert_close(loss, expected)
    leaves = (logits, advantage, bonus)
    torch.testing.assert_close(gradient(loss, *leaves), gradient(expected, *leaves))


def test_weights_learn_where_logits_do_not() -> None:
    logits, tokens = example()
    weight = draw(4, 3, seed=3).requires_grad_()
    loss, stats = pgest.token_stats_sum(
        logits.detach(), tokens, {"logp": weight}, normalizer=2.0, return_stats=True
    )
    assert torch.equal(gradient(loss, weight)[0], there(stats.logp) / 2)
    assert stats.entropy is None


def test_without_a_gradient_none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from pgest.ops.stats import total

    logits, tokens = example()
    expected = pgest.token_stats_sum(logits, tokens, {"logp": 1.0}).detach()
    monkeypatch.setattr(total, "_forward", None)
    with torch.no_grad():
        found = pgest.token_stats_sum(logits, tokens, {"logp": 1.0}, grad_inplace=True)
    assert not found.requires_grad
    assert torch.equal(found, expected)
    assert torch.equal(pgest.token_stats_sum(logits.detach(), tokens, {"logp": 1.0}), expected)


def test_a_weight_of_zero_counts_as_zero() -> None:
    logits = torch.tensor([[0.0, -INF], [0.0, 1.0]], requires_grad=True)
    weight = torch.tensor([0.0, 2.0], requires_grad=True)
    loss = pgest.token_stats_sum(logits, torch.tensor([1, 1]), {"logp": weight})
    torch.testing.assert_close(loss, 2 * logits[1].log_softmax(-1)[1])
    by_logits, by_weight = gradient(loss, logits, weight)
    assert by_logits.isfinite().all()
    assert by_weight[0] == 0


def test_masked_weights_are_not_read() -> None:
    logits, tokens = example()
    weight = torch.full((4, 3), math.nan).double()
    weight[0] = 1.0
    mask = torch.tensor([True, False, False, False])[:, None].expand(4, 3)
    weight.requires_grad_()
    loss = pgest.token_stats_sum(logits, tokens, {"logp": weight}, mask=mask)
    by_logits, by_weight = gradient(loss, logits, weight)
    assert loss.isfinite()
    assert by_logits.isfinite().all()
    assert (by_weight[1:] == 0).all()


def test_nothing_over_zero_is_zero() -> None:
    logits, tokens = example()
    mask = torch.zeros(4, 3, dtype=torch.bool)
    loss = pgest.token_stats_sum(logits, tokens, {"logp": 1.0}, mask=mask, normalizer=mask.sum())
    assert loss == 0
    assert (gradient(loss, logits)[0] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_backward_scales_and_gives_away_what_is_there(dtype: torch.dtype) -> None:
    values, tokens = example(3000)
    logits = values.detach().to(dtype).requires_grad_()
    loss = pgest.token_stats_sum(logits, tokens, {"logp": 1.0, "entropy": 0.1})
    (ready, _) = loss.grad_fn.saved_tensors  # type: ignore[union-attr]
    (kept,) = gradient(loss, logits, retain_graph=True)
    assert kept.data_ptr() != ready.data_ptr()
    (tripled,) = gradient(3 * loss, logits, retain_graph=True)
    torch.testing.assert_close(tripled, (3 * kept.to(loss.dtype)).to(dtype), rtol=0, atol=0)
    assert torch.equal(kept, ready)
    (given,) = gradient(loss, logits)
    assert given.data_ptr() == ready.data_ptr()
    assert torch.equal(given, kept)


def inplace(leaf: Tensor, tokens: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """The logits and the loss whose gradient lies over them."""
    logits = leaf * 1
    weights = {"logp": 1.0, "entropy": -0.3}
    return logits, pgest.token_stats_sum(logits, tokens, weights, grad_inplace=True, **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_place_the_same_bits_lie_over_the_logits(dtype: torch.dtype) -> None:
    values, tokens = example(3000)
    leaf = values.detach().to(dtype).requires_grad_()
    fresh = pgest.token_stats_sum(leaf, tokens, {"logp": 1.0, "entropy": -0.3}, temperature=0.8)
    logits, loss = inplace(leaf, tokens, temperature=0.8)
    seen: list[int] = []
    logits.register_hook(lambda grad: seen.append(grad.data_ptr()))
    assert torch.equal(fresh, loss)
    assert torch.equal(gradient(fresh, leaf)[0], gradient(loss, leaf)[0])
    assert seen == [logits.data_ptr()]


def test_in_place_a_slice_stays_in_the_slice_and_is_scaled_there() -> None:
    leaf, tokens = example()
    logits = leaf * 1
    weights = {"logp": 1.0}
    part = pgest.token_stats_sum(logits[:, :-1], tokens[:, :-1], weights, grad_inplace=True)
    expected = pgest.token_stats_sum(leaf[:, :-1], tokens[:, :-1], weights)
    assert torch.equal(logits[:, -1], leaf[:, -1])
    assert torch.equal(gradient(3 * part, leaf)[0], gradient(3 * expected, leaf)[0])


def test_in_place_whoever_needs_the_lost_logits_gets_an_error() -> None:
    leaf, tokens = example()
    logits = leaf.exp()  # its backward reads its result
    loss = pgest.token_stats_sum(logits, tokens, {"logp": 1.0}, grad_inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    logits, loss = inplace(leaf, tokens)
    with torch.no_grad():
        logits.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_in_place_is_refused_where_it_would_be_wrong() -> None:
    leaf, tokens = example()
    weights: dict[str, float | Tensor] = {"logp": 1.0}
    with pytest.raises(ValueError, match="would overwrite logits that are a leaf"):
        pgest.token_stats_sum(leaf, tokens, weights, grad_inplace=True)
    logits = leaf * 1
    with pytest.raises(ValueError, match="would overwrite reference_logits, which shares"):
        pgest.token_stats_sum(
            logits, None, {"kl": 1.0}, reference_logits=logits.detach(), grad_inplace=True
        )
    with pytest.raises(Exception, match=r"grad_inplace=True .* torch\.compile"):
        torch.compile(inplace, fullgraph=True, backend="eager")(leaf, tokens)


MISUSE: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (TypeError, "weights must be a dict .* got tuple", {"weights": ("logp",)}),
    (ValueError, r"weights must be of names from \('logp', .*, got none", {"weights": {}}),
    (ValueError, "weights must be of names .* got 'rank'", {"weights": {"rank": 1.0}}),
    (
        TypeError,
        r'weights\["logp"\] must be a number or a tensor, got str',
        {"weights": {"logp": "1"}},
    ),
    (
        TypeError,
        r'weights\["lse"\] must be of real numbers, got torch\.bool',
        {"weights": {"lse": torch.ones(4, 3) > 0}},
    ),
    (
        ValueError,
        r'weights\["entropy"\] must be broadcastable to \(4, 3\), got \(2, 4, 3\)',
        {"weights": {"entropy": torch.ones(2, 4, 3)}},
    ),
    (
        ValueError,
        r'weights\["logp"\] must be on cpu like logits, got meta',
        {"weights": {"logp": torch.ones(4, 3, device="meta")}},
    ),
    (ValueError, "normalizer must not be the number 0", {"normalizer": 0}),
    (ValueError, "reference_logits must be given", {"weights": {"kl": 1.0}}),
    (ValueError, "values must be None unless", {"values": torch.ones(4, 3, 7)}),
    (ValueError, "tokens must be a tensor", {"tokens": None}),
    (ValueError, r"tokens must be in \[0, 7\)", {"tokens": torch.full((4, 3), 7)}),
    (TypeError, "logits must be a tensor, got float", {"logits": 0.0}),
]


@pytest.mark.parametrize(("kind", "message", "change"), MISUSE, ids=[m[1] for m in MISUSE])
def test_misuse_is_refused_by_name(
    kind: type[Exception], message: str, change: dict[str, Any]
) -> None:
    logits, tokens = example()
    given = {"logits": logits, "tokens": tokens, "weights": {"logp": 1.0}, **change}
    with pytest.raises(kind, match=message):
        pgest.token_stats_sum(**given)
