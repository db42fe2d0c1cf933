"""The sum of an objective over the tokens that count."""

from __future__ import annotations

import math

import pytest
import torch
from every_token import assert_same, gradient, logits
from torch import Tensor

import pgest
from pgest import TokenStats
from pgest.objectives import (
    entropy_loss,
    gspo,
    k3,
    kl_penalty,
    ppo,
    reinforce,
    reinforce_loss,
    total,
    z_loss,
)

TOKENS = torch.tensor([[0, 1, 2], [3, 3, 0]])
MASK = torch.tensor([[True, False, True], [True, True, False]])
WEIGHT = torch.arange(1.0, 7.0, dtype=torch.float64).view(2, 3)


def everything(
    stats: TokenStats, advantage: Tensor, old_logp: Tensor, reference_logp: Tensor
) -> Tensor:
    loss = ppo(stats, advantage, old_logp) + 0.1 * kl_penalty(stats, reference_logp, old_logp)
    return loss + 0.01 * entropy_loss(stats) + 1e-4 * z_loss(stats)


def test_it_is_the_sum_over_the_normalizer() -> None:
    policy = logits()
    stats = pgest.token_stats(policy, TOKENS)
    old, reference = torch.full((2, 3), -1.0).double(), torch.full((3,), -2.0).double()
    loss = everything(stats, WEIGHT, old, reference)
    found = total(stats, everything, WEIGHT, old, reference, normalizer=3.0)
    assert_same(found, loss.sum() / 3)
    masked = total(stats, everything, WEIGHT, old, reference, mask=MASK, normalizer=MASK.sum())
    assert_same(masked, loss[MASK].sum() / 4)
    assert_same(gradient(masked, policy), gradient(loss[MASK].sum() / 4, policy))


def test_infinities_and_nans_behind_the_mask_reach_no_gradient() -> None:
    policy = logits().detach()
    policy[1, 1] = -math.inf  # the token that the mask hides
    policy.requires_grad_()
    rows = [
        x.where(MASK, torch.tensor(math.nan)).requires_grad_() for x in (WEIGHT, -WEIGHT, -WEIGHT)
    ]
    loss = total(pgest.token_stats(policy, TOKENS), everything, *rows, mask=MASK)
    grads = torch.autograd.grad(loss, (policy, rows[0], rows[1]))
    assert loss.isfinite()
    assert all(grad.isfinite().all() for grad in grads)
    assert (grads[1][~MASK] == 0).all()


def test_statistics_behind_the_mask_reach_no_gradient() -> None:
    logp = torch.tensor([-1.0, math.nan, -math.inf], requires_grad=True)
    mask = torch.tensor([True, False, False])
    loss = total(TokenStats(logp=logp), k3, torch.full((3,), -2.0), mask=mask)
    (grad,) = torch.autograd.grad(loss, logp)
    assert loss.item() == pytest.approx(math.exp(-1))
    assert grad.tolist() == [pytest.approx(1 - math.exp(-1)), 0, 0]


def test_rows_keep_their_dtype_behind_a_mask() -> None:
    stats = pgest.token_stats(logits(), TOKENS)
    rows = (WEIGHT > 2, WEIGHT.to(torch.int16), WEIGHT.half())

    def objective(stats: TokenStats, skip: Tensor, *others: Tensor) -> Tensor:
        assert stats.logp is not None
        assert [x.dtype for x in others] == [torch.int16, torch.float16]
        return torch.where(~skip, stats.logp, 0.0)

    assert stats.logp is not None
    expected = stats.logp[MASK & (WEIGHT <= 2)].sum()
    assert_same(total(stats, objective, *rows, mask=MASK), expected)


def test_the_term_of_a_row_counts_for_each_of_its_samples() -> None:
    policy = logits()
    stats = pgest.token_stats(policy, TOKENS)
    assert_same(total(stats, entropy_loss), 2 * entropy_loss(stats).sum())
    counts = MASK.sum(0)
    assert_same(total(stats, entropy_loss, mask=MASK), (counts * entropy_loss(stats)).sum())


def test_reinforce_loss_is_one_of_them() -> None:
    policy = logits()
    stats = pgest.token_stats(policy, TOKENS)
    found = total(stats, reinforce, WEIGHT, mask=MASK, normalizer=2.0)
    assert_same(found, reinforce_loss(policy, TOKENS, WEIGHT, mask=MASK, normalizer=2.0))


def test_an_excluded_token_of_no_weight_costs_nothing() -> None:
    policy = torch.tensor([[0.0, -math.inf], [0.0, 0.0]], requires_grad=True)
    weight = torch.tensor([0.0, 1.0], requires_grad=True)
    loss = reinforce_loss(policy, torch.tensor([1, 0]), weight)
    assert loss.item() == pytest.approx(math.log(2))
    grads = torch.autograd.grad(loss, (policy, weight))
    assert grads[0].tolist() == [[0, 0], [-0.5, 0.5]]
    assert grads[1].isfinite().all()


def test_chunks_of_tokens_add_up() -> None:
    """What lets a fused layer compute the loss and its gradient chunk by chunk."""
    policy = logits()
    stats = pgest.token_stats(policy, TOKENS)
    rows = (WEIGHT, -WEIGHT, -WEIGHT)
    whole = everything(stats, *rows)
    for row in range(3):
        part = slice(row, row + 1)
        chunk = pgest.token_stats(policy[part], TOKENS[:, part])
        assert torch.equal(everything(chunk, *(x[:, part] for x in rows)), whole[:, part])


def test_objectives_compile_and_map() -> None:
    policy = logits()
    rows = (WEIGHT, -WEIGHT, -WEIGHT)

    def loss(z: Tensor) -> Tensor:
        return total(pgest.token_stats(z, TOKENS), everything, *rows, mask=MASK)

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    assert_same(compiled(policy), loss(policy))
    assert_same(gradient(compiled(policy), policy), gradient(loss(policy), policy))
    many = torch.stack([policy, 2 * policy]).detach()
    assert_same(torch.func.vmap(loss)(many), torch.stack([loss(many[0]), loss(many[1])]))
    assert_same(torch.func.grad(loss)(policy.detach()), gradient(loss(policy), policy))


def test_misuse_is_refused_by_name() -> None:
    stats = pgest.token_stats(logits(), TOKENS)
    with pytest.raises(
        ValueError, match=r"rows\[1\] must be broadcastable to \(2, 3\).*got \(2,\)"
    ):
        total(stats, ppo, WEIGHT, torch.ones(2))
    with pytest.raises(TypeError, match=r"rows\[0\] must be a tensor, got float"):
        total(stats, reinforce, 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mask must be broadcastable to \(2, 3\)"):
        total(stats, reinforce, WEIGHT, mask=MASK[:, 0])
    with pytest.raises(TypeError, match="mask must be a bool tensor"):
        total(stats, reinforce, WEIGHT, mask=WEIGHT)
    with pytest.raises(TypeError, match=r"stats must be a TokenStats, .* got Tensor"):
        total(WEIGHT, reinforce, WEIGHT)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stats must hold a statistic, got none"):
        total(TokenStats(), reinforce, WEIGHT)
    with pytest.raises(
        TypeError, match=r"objective\(stats, \*rows\) must be a tensor, got NoneType"
    ):
        total(stats, lambda stats: None)  # type: ignore[arg-type, return-value]


def test_a_hidden_mean_or_a_loss_of_sequences_is_refused() -> None:
    stats = TokenStats(logp=torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"one loss for each token, \(4, 4\), .* got shape \(\)"):
        total(stats, lambda stats: stats.logp.mean())
    with pytest.raises(ValueError, match=r"one loss for each token, \(4, 4\), .* got shape \(4,\)"):
        total(stats, lambda stats: gspo(stats, torch.ones(4), torch.zeros(4, 4)))
