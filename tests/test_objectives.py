"""Each loss has the gradient that its definition, summed over all outcomes, has."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import pgest
from pgest.objectives import logit_l2, reinforce_loss

REWARD = torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64)


def example() -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(3, 4, generator=generator, dtype=torch.float64).requires_grad_()


def test_its_expected_gradient_is_that_of_the_expected_reward() -> None:
    logits = example()
    p = logits.softmax(-1).detach()
    expected = torch.zeros_like(logits)
    for token in range(4):  # every outcome, weighted by its probability
        tokens = torch.full((3,), token)
        loss = reinforce_loss(logits, tokens, p[:, token] * REWARD[token])
        expected += torch.autograd.grad(loss, logits)[0]
    (exact,) = torch.autograd.grad(-(logits.softmax(-1) * REWARD).sum(), logits)
    torch.testing.assert_close(expected, exact, rtol=1e-10, atol=1e-12)


def test_samples_sum_and_share_the_entropy() -> None:
    logits = example()
    tokens = torch.tensor([[0, 1, 2], [3, 3, 0]])
    weight = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    both = reinforce_loss(logits, tokens, weight, entropy_coef=0.1, normalizer=4.0)
    each = [reinforce_loss(logits, tokens[s], weight[s], entropy_coef=0.1) for s in (0, 1)]
    torch.testing.assert_close(both, (each[0] + each[1]) / 4)


def test_the_entropy_bonus_flattens() -> None:
    logits = example()
    loss = reinforce_loss(
        logits, torch.zeros(3, dtype=torch.long), torch.zeros(3), entropy_coef=2.0
    )
    entropy = torch.distributions.Categorical(logits=logits).entropy().sum()
    torch.testing.assert_close(loss, -2 * entropy)
    torch.testing.assert_close(
        torch.autograd.grad(loss, logits), torch.autograd.grad(-2 * entropy, logits)
    )


@pytest.mark.parametrize("per_sample", [False, True])
def test_what_is_masked_does_not_count(per_sample: bool) -> None:
    clean = example()
    tokens = torch.tensor([[0, 1, 2], [3, 3, 0]])
    weight = torch.arange(6.0, dtype=torch.float64).view(2, 3)
    mask = torch.tensor([[True, False, True], [False, False, True]])
    mask = mask if per_sample else mask[0]
    expected = -torch.where(mask, weight * pgest.token_logp(clean, tokens), 0.0).sum()
    dirty = clean.detach().clone()
    dirty[1] = math.nan
    dirty.requires_grad_()
    padded = torch.where(mask, tokens, -100)
    loss = reinforce_loss(dirty, padded, weight, mask=mask)
    torch.testing.assert_close(loss, expected)
    (grad,) = torch.autograd.grad(loss, dirty)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, clean)[0])


def test_masked_infinities_reach_neither_gradient() -> None:
    logits = example().detach()
    logits[1, 0] = -math.inf  # the token that stands in for a masked one
    logits.requires_grad_()
    tokens = torch.tensor([[0, 1, 2], [3, 2, 0]])
    mask = torch.tensor([[True, False, True], [True, True, True]])
    weight = torch.ones(2, 3, dtype=torch.float64)
    weight[0, 1] = math.nan
    weight.requires_grad_()
    loss = reinforce_loss(logits, tokens, weight, mask=mask, entropy_coef=0.1)
    by_logits, by_weight = torch.autograd.grad(loss, (logits, weight))
    assert by_logits.isfinite().all()
    assert by_weight.isfinite().all()
    assert by_weight[0, 1] == 0


def test_the_weight_learns() -> None:
    logits = example()
    tokens = torch.tensor([0, 1, 2])
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([True, True, False])
    reinforce_loss(logits, tokens, weight, mask=mask, normalizer=2.0).backward()
    logp = pgest.token_logp(logits, tokens).detach()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, -torch.where(mask, logp, 0.0) / 2)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("samples", [False, True])
def test_the_gradient_in_the_forward_is_the_same(samples: bool, per_sample: bool) -> None:
    logits, reference = example(), example().detach().flip(-1)
    tokens = torch.tensor([[0, 1, 2], [3, 3, 0]])
    mask = torch.tensor([[True, False, True], [False, False, True]])
    if not samples:
        tokens, mask = tokens[0], mask[0]
    mask = mask if per_sample or not samples else mask[0]
    weight = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(5)).double()
    weight = torch.where(mask, weight, math.nan).requires_grad_()
    found = []
    for grad_in_forward in (False, True):
        loss = reinforce_loss(
            logits,
            torch.where(mask, tokens, -100),
            weight,
            mask=mask,
            entropy_coef=0.3,
            kl_coef=0.7,
            reference_logits=reference,
            temperature=0.9,
            normalizer=mask.sum(),
            grad_in_forward=grad_in_forward,
        )
        found.append((loss, *torch.autograd.grad(2 * loss, (logits, weight))))
    torch.testing.assert_close(found[1], found[0])
    assert all(x.isfinite().all() for x in found[1])


def test_the_penalty_is_exact_and_counts_for_every_sample() -> None:
    logits, reference = example(), example().detach().flip(-1)
    tokens = torch.tensor([[0, 1, 2], [3, 3, 0]])
    p, q = logits.softmax(-1), reference.softmax(-1)
    expected = 2 * 0.7 * (p * (p / q).log()).sum()
    for grad_in_forward in (False, True):
        loss = reinforce_loss(
            logits,
            tokens,
            torch.zeros(2, 3),
            kl_coef=0.7,
            reference_logits=reference,
            grad_in_forward=grad_in_forward,
        )
        torch.testing.assert_close(loss, expected)


def test_second_order() -> None:
    logits = example()
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)

    def loss(z: Tensor, w: Tensor) -> Tensor:
        return reinforce_loss(z, torch.tensor([0, 1, 2]), w, entropy_coef=0.3)

    assert torch.autograd.gradgradcheck(loss, (logits, weight))


def test_misuse_is_refused_by_name() -> None:
    logits, tokens = example(), torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=r"weight must be broadcastable to \(3,\), .* got \(2,\)"):
        reinforce_loss(logits, tokens, torch.ones(2))
    with pytest.raises(TypeError, match="weight must be a tensor, got float"):
        reinforce_loss(logits, tokens, 1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"mask must be a bool tensor .* got list"):
        reinforce_loss(logits, tokens, torch.ones(3), mask=[True] * 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mask must have shape \(3,\) .* got \(1, 3\)"):
        reinforce_loss(logits, tokens, torch.ones(3), mask=torch.ones(1, 3, dtype=torch.bool))


def test_the_temperature_is_that_of_the_policy() -> None:
    logits = example()
    p = (logits / 0.5).softmax(-1)
    expected = torch.zeros_like(logits)
    for token in range(4):
        tokens = torch.full((3,), token)
        weight = p[:, token].detach() * REWARD[token]
        loss = reinforce_loss(logits, tokens, weight, temperature=0.5)
        expected += torch.autograd.grad(loss, logits)[0]
    (exact,) = torch.autograd.grad(-(p * REWARD).sum(), logits)
    torch.testing.assert_close(expected, exact, rtol=1e-10, atol=1e-12)


def test_the_logit_penalty_is_its_formula() -> None:
    logits = example()
    mask = torch.tensor([True, False, True])
    weight = torch.tensor([2.0, 7.0, 0.5], dtype=torch.float64)
    found = logit_l2(logits, weight=weight, mask=mask, normalizer=3.0)
    rows = logits.square().mean(-1)
    torch.testing.assert_close(found, (2 * rows[0] + 0.5 * rows[2]) / 3)
    torch.testing.assert_close(logit_l2(logits), rows.sum())


def test_the_logit_penalty_leaves_out_what_is_excluded_or_masked() -> None:
    logits = torch.tensor([[1.0, -torch.inf], [torch.nan, torch.nan]], requires_grad=True)
    loss = logit_l2(logits, mask=torch.tensor([True, False]))
    assert loss.item() == 0.5
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_the_logit_penalty_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"mask must have shape \(3,\), got \(4,\)"):
        logit_l2(example(), mask=torch.ones(4).bool())
    with pytest.raises(TypeError, match="logits must be a tensor, got list"):
        logit_l2([[0.0, 1.0]])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"logits must have shape \[\.\.\., V\]"):
        logit_l2(torch.tensor(0.0))
    with pytest.raises(ValueError, match=r"weight must be broadcastable to \(3,\)"):
        logit_l2(example(), weight=torch.ones(2))
    with pytest.raises(TypeError, match=r"weight must be .* real numbers, got torch\.bool"):
        logit_l2(example(), weight=torch.ones(3).bool())
    with pytest.raises(TypeError, match="mask must be"):
        logit_l2(example(), mask=torch.ones(3))


def test_the_reference_and_its_coefficient_come_together() -> None:
    logits, tokens, weight = example(), torch.tensor([0, 1, 2]), torch.ones(3)
    ways: list[dict[str, Any]] = [{}, {"grad_in_forward": True}]
    for options in ways:
        with pytest.raises(ValueError, match="reference_logits must be given"):
            reinforce_loss(logits, tokens, weight, kl_coef=0.1, **options)
        with pytest.raises(ValueError, match="reference_logits must be None unless"):
            reinforce_loss(logits, tokens, weight, reference_logits=logits.detach(), **options)
        with pytest.raises(TypeError, match="kl_coef must be a number, got str"):
            reinforce_loss(logits, tokens, weight, **{**options, "kl_coef": "1"})
