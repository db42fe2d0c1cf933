"""Divergence estimates, entropy and z-loss: values and gradients over every token."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import pytest
import torch
from every_token import (
    assert_same,
    expectation,
    expected_gradient,
    gradient,
    logits,
    logp,
    stats,
)
from torch import Tensor

from pgest import TokenStats
from pgest.objectives import entropy_loss, k1, k2, k3, kl_penalty, reinforce, z_loss

Value = Literal["k1", "k2", "k3"]
VALUES: tuple[Value, ...] = ("k1", "k2", "k3")
POLICY, REFERENCE, OLD = logits(0), logits(1), logits(2)
REFERENCE_LOGP, OLD_LOGP = logp(REFERENCE).detach(), logp(OLD).detach()


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Exact KL(p || q), summed over rows."""
    return (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum()


@pytest.mark.parametrize("estimate", [k1, k3])
def test_their_values_are_unbiased(estimate: Callable[..., Tensor]) -> None:
    found = expectation(estimate(stats(POLICY), REFERENCE_LOGP), POLICY)
    assert_same(found, kl(POLICY, REFERENCE))


def test_the_second_is_biased_and_positive_as_the_third() -> None:
    found = expectation(k2(stats(POLICY), REFERENCE_LOGP), POLICY)
    assert (found - kl(POLICY, REFERENCE)).abs() > 0.1
    assert (k1(stats(POLICY), REFERENCE_LOGP) < 0).any()
    for estimate in (k2, k3):
        assert (estimate(stats(POLICY), REFERENCE_LOGP) >= 0).all()


def test_what_differentiating_each_gives() -> None:
    exact = gradient(kl(POLICY, REFERENCE), POLICY)
    other = gradient(kl(REFERENCE.detach(), POLICY), POLICY)
    assert (exact - other).abs().max() > 0.1
    grads = [
        expected_gradient(estimate, POLICY, REFERENCE_LOGP, drawn_from=POLICY)
        for estimate in (k1, k2, k3)
    ]
    assert_same(grads[0], torch.zeros_like(exact))
    assert_same(grads[1], exact)
    assert_same(grads[2], other)


@pytest.mark.parametrize("value", VALUES)
def test_the_penalty_has_the_value_asked_for_and_the_true_gradient(value: Value) -> None:
    objective = partial(kl_penalty, value=value)
    estimate = {"k1": k1, "k2": k2, "k3": k3}[value]
    found = objective(stats(POLICY), REFERENCE_LOGP)
    assert_same(found, estimate(stats(POLICY), REFERENCE_LOGP))
    grad = expected_gradient(objective, POLICY, REFERENCE_LOGP, drawn_from=POLICY)
    assert_same(grad, gradient(kl(POLICY, REFERENCE), POLICY))


@pytest.mark.parametrize("value", VALUES)
def test_the_penalty_of_tokens_of_an_older_policy(value: Value) -> None:
    objective = partial(kl_penalty, value=value)
    grad = expected_gradient(objective, POLICY, REFERENCE_LOGP, OLD_LOGP, drawn_from=OLD)
    assert_same(grad, gradient(kl(POLICY, REFERENCE), POLICY))
    if value != "k2":
        found = expectation(objective(stats(POLICY), REFERENCE_LOGP, OLD_LOGP), OLD)
        assert_same(found, kl(POLICY, REFERENCE))
    uncorrected = expected_gradient(objective, POLICY, REFERENCE_LOGP, drawn_from=OLD)
    assert (uncorrected - grad).abs().max() > 0.1


def test_the_gradient_is_that_of_differentiating_the_weighed_third() -> None:
    """r k3 differentiates, token by token, to what the penalty has: a second derivation."""
    leaf = logp(POLICY).detach().requires_grad_()
    held = TokenStats(logp=leaf)
    weighed = (leaf - OLD_LOGP).exp() * k3(held, REFERENCE_LOGP)
    assert_same(
        gradient(kl_penalty(held, REFERENCE_LOGP, OLD_LOGP).sum(), leaf),
        gradient(weighed.sum(), leaf),
    )


def test_in_the_reward_the_first_gives_the_same_gradient() -> None:
    weight = -k1(stats(POLICY), REFERENCE_LOGP).detach()
    found = expected_gradient(reinforce, POLICY, weight, drawn_from=POLICY)
    assert_same(found, gradient(kl(POLICY, REFERENCE), POLICY))


def test_the_same_policy_costs_nothing() -> None:
    same = logp(POLICY).detach()
    penalty = kl_penalty(stats(POLICY), same)
    assert penalty.abs().max() < 1e-12
    assert gradient(penalty.sum(), POLICY).abs().max() < 1e-12


def test_the_third_keeps_its_digits_near_0() -> None:
    near = TokenStats(logp=torch.tensor([-1.0 + 1e-4]))
    assert k3(near, torch.tensor([-1.0])).item() == pytest.approx(5e-9, rel=0.01)


def test_the_policies_that_are_given_are_not_trained() -> None:
    reference = REFERENCE_LOGP.clone().requires_grad_()
    old = OLD_LOGP.clone().requires_grad_()
    loss = kl_penalty(stats(POLICY), reference, old).sum()
    grads = torch.autograd.grad(loss, (POLICY, reference, old), allow_unused=True)
    assert [grad is None for grad in grads] == [False, True, True]


@pytest.mark.parametrize("value", VALUES)
def test_a_token_that_the_policy_excludes_now_counts_0(value: Value) -> None:
    held = torch.tensor([-math.inf, -math.inf, -1.0], requires_grad=True)
    reference, old = torch.tensor([-2.0, -math.inf, -2.0]), torch.full((3,), -1.0)
    loss = kl_penalty(TokenStats(logp=held), reference, old, value=value)
    assert loss[:2].tolist() == [0, 0]
    (grad,) = torch.autograd.grad(loss.sum(), held)
    assert grad.tolist() == [0, 0, 1]


def test_infinite_and_nan_divergences_stay_in_their_place() -> None:
    held = TokenStats(logp=torch.tensor([-1.0, math.nan, -1.0]))
    reference = torch.tensor([-math.inf, -1.0, -1.0])
    assert k1(held, reference)[0] == math.inf
    for estimate in (k1, k2, k3, kl_penalty):
        assert estimate(held, reference).isfinite().tolist() == [False, False, True]


def test_the_entropy_loss_is_minus_the_entropy() -> None:
    exact = (POLICY.softmax(-1) * POLICY.log_softmax(-1)).sum(-1)
    assert_same(entropy_loss(stats(POLICY)), exact)
    assert_same(gradient(entropy_loss(stats(POLICY)).sum(), POLICY), gradient(exact.sum(), POLICY))


def test_the_z_loss_is_the_squared_log_sum_exp() -> None:
    exact = POLICY.logsumexp(-1).square()
    assert_same(z_loss(stats(POLICY)), exact)
    assert_same(gradient(z_loss(stats(POLICY)).sum(), POLICY), gradient(exact.sum(), POLICY))


def test_misuse_is_refused_by_name() -> None:
    held = TokenStats(logp=torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"value must be one of \('k1', 'k2', 'k3'\), got 'k4'"):
        kl_penalty(held, torch.zeros(3), value="k4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"reference_logp must be broadcastable to \(2, 3\)"):
        k3(held, torch.zeros(2))
    with pytest.raises(ValueError, match=r"old_logp must be broadcastable to \(2, 3\)"):
        kl_penalty(held, torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match="stats must hold entropy, got None"):
        entropy_loss(held)
    with pytest.raises(ValueError, match="stats must hold lse, got None"):
        z_loss(held)
