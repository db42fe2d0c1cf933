"""Sparse expectations: weights by their own definition, value and gradient by brute force."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from enumeration import exact_gradient
from test_estimators import LOGITS, interacting
from torch import Tensor

import pgest
from pgest.comparison.outcomes import Kind
from pgest.estimators import Entmax15, SparseExpectation, Sparsemax

BOTH: list[tuple[SparseExpectation, float]] = [(Sparsemax(), 2.0), (Entmax15(), 1.5)]


def by_bisection(scores: Tensor, alpha: float) -> Tensor:
    """max(0, (alpha - 1) s - tau)^(1 / (alpha - 1)) with the tau that makes the sum 1."""
    s = (alpha - 1) * scores
    high = s.amax(0)
    low = high - 1
    for _ in range(100):
        tau = (low + high) / 2
        more = (s - tau).clamp_min(0).pow(1 / (alpha - 1)).sum(0) > 1
        low, high = torch.where(more, tau, low), torch.where(more, high, tau)
    return (s - low).clamp_min(0).pow(1 / (alpha - 1))


def falling(*shape: int, scale: float = 1.0) -> Tensor:
    g = torch.Generator().manual_seed(0)
    x = scale * torch.randn(shape, dtype=torch.float64, generator=g)
    return x.sort(0, descending=True).values


@pytest.mark.parametrize(("estimator", "alpha"), BOTH)
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_weights_are_their_definition(
    estimator: SparseExpectation, alpha: float, scale: float
) -> None:
    scores = falling(12, 200, scale=scale)
    scores[9:, 50:] = -torch.inf
    weight = estimator.weights(scores)
    torch.testing.assert_close(weight, by_bisection(scores, alpha), rtol=0, atol=1e-12)
    torch.testing.assert_close(weight.sum(0), torch.ones(200).double(), rtol=0, atol=1e-12)
    assert ((weight == 0).any(0)).any() == (scale > 0.1 or bool(scores.isinf().any()))
    shifted = estimator.weights(scores + 100)
    torch.testing.assert_close(shifted, weight, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("estimator", "alpha"), BOTH)
def test_the_jacobian_is_the_known_one(estimator: SparseExpectation, alpha: float) -> None:
    """diag(q) - q q^T / sum(q), q = w^(2 - alpha) where w > 0."""
    scores = falling(7)
    weight = estimator.weights(scores)
    q = torch.where(weight > 0, weight ** (2 - alpha), 0.0)
    assert (q == 0).any()
    expected = q.diag() - q[:, None] * q / q.sum()
    found = torch.autograd.functional.jacobian(estimator.weights, scores)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def brute_force(kind: Kind, logits: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Value and gradient from all values, in another order, with the Jacobian above."""
    leaf = logits.clone().requires_grad_()
    q: Any = kind(leaf[None], event_dims=1)
    support = q.enumerate_support()
    scores = q.log_prob(support)
    weight = by_bisection(scores.detach(), alpha)
    cost = interacting(support)
    slope = torch.where(weight > 0, weight ** (2 - alpha), 0.0)
    by_score = slope * (cost - (slope * cost).sum(0) / slope.sum(0))
    (gradient,) = torch.autograd.grad((by_score * scores).sum(), leaf)
    return (weight * cost).sum(), gradient


@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize(("estimator", "alpha"), BOTH)
def test_the_value_is_the_sparse_model_s(
    kind: Kind, estimator: SparseExpectation, alpha: float
) -> None:
    logits = LOGITS[kind]
    seen: list[int] = []

    def f(z: Tensor) -> Tensor:
        seen.append(len(z))
        return interacting(z)

    leaf = logits.clone().requires_grad_()
    value = pgest.expect(f, kind(leaf[None], event_dims=1), estimator)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    expected, slope = brute_force(kind, logits, alpha)
    torch.testing.assert_close(value.detach().sum(), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, slope, rtol=0, atol=1e-12)
    assert seen[0] < kind(logits, event_dims=1).support_size
    true, exact = exact_gradient(kind, logits, interacting)
    assert (value.detach().sum() - true).abs() > 1e-2
    assert (gradient - exact).abs().max() > 1e-2


def test_a_bit_is_a_hard_sigmoid() -> None:
    x = torch.linspace(-3, 3, 41, dtype=torch.float64, requires_grad=True)
    value = pgest.expect(lambda z: z, pgest.Bernoulli(x), "sparsemax")
    torch.testing.assert_close(value, ((1 + x) / 2).clamp(0, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [Sparsemax, Entmax15])
def test_k_bounds_the_evaluations(kind: Any) -> None:
    logits = torch.tensor([[3.0, 2.8, 2.9, 2.7, -9.0]], dtype=torch.float64, requires_grad=True)
    cost = torch.tensor([1.0, 2.0, 5.0, 7.0, 100.0], dtype=torch.float64)
    seen: list[Tensor] = []

    def run(estimator: SparseExpectation) -> list[Tensor]:
        def f(z: Tensor) -> Tensor:
            seen.append(z)
            return cost[z]

        value = pgest.expect(f, pgest.Categorical(logits), estimator)
        return [value.detach(), *torch.autograd.grad(value.sum(), logits)]

    torch.testing.assert_close(run(kind(k=4)), run(kind()))
    assert [len(z) for z in seen] == [4, 4]
    value, gradient = run(kind(k=1))
    torch.testing.assert_close(value, torch.ones_like(value))
    assert gradient.abs().max() == 0
    run(kind(k=2))
    assert seen[-1].flatten().tolist() == [0, 2]


def test_f_has_the_plain_gradient_of_its_own_parameters() -> None:
    net = torch.tensor([1.0, 2.0, 5.0], requires_grad=True)
    q = pgest.Categorical(torch.tensor([1.0, 0.5, -3.0]))
    (found,) = torch.autograd.grad(pgest.expect(lambda z: net[z], q, "sparsemax"), net)
    torch.testing.assert_close(found, torch.tensor([0.75, 0.25, 0.0]))


@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_impossible_and_broken_rows(name: str, dtype: torch.dtype) -> None:
    logits = torch.tensor([[0.5, -torch.inf, 0.2], [torch.nan, 0.0, 1.0]], dtype=dtype)
    logits.requires_grad_()
    cost = torch.tensor([1.0, torch.nan, 3.0])
    value = pgest.expect(lambda z: cost[z], pgest.Categorical(logits), name)
    (gradient,) = torch.autograd.grad(value[0], logits)
    assert value.isnan().tolist() == [False, True]
    assert gradient.dtype == dtype
    assert gradient[0].isfinite().all()
    assert gradient[0, 1] == 0
    assert gradient[0].abs().max() > 0.1


@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
def test_they_are_the_package_s(name: str) -> None:
    entmax = pytest.importorskip("entmax", reason="pip install entmax")
    logits = falling(9, 30).T.contiguous().requires_grad_()
    cost = torch.arange(9.0, dtype=torch.float64) ** 2
    expected = getattr(entmax, name)(logits, dim=-1) @ cost
    value = pgest.expect(lambda z: cost[z], pgest.Categorical(logits), name)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)
    slopes = [torch.autograd.grad(v.sum(), logits)[0] for v in (value, expected)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0, atol=1e-10)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"^k must be at least 1, got 0$"):
        Sparsemax(k=0)
    bits = pgest.Bernoulli(torch.zeros(40), event_dims=1)
    with pytest.raises(ValueError, match=r"^sparsemax lists at most 65536 values .* than 1e9$"):
        pgest.expect(lambda z: z.sum(-1), bits, "sparsemax")
    three = pgest.Bernoulli(torch.zeros(3), event_dims=1)
    with pytest.raises(ValueError, match=r"^entmax15 lists at most 4 values of one draw, got 8$"):
        pgest.expect(lambda z: z.sum(-1), three, Entmax15(max_support=4))
