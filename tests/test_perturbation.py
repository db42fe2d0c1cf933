"""Finite differences, SPSA and evolution strategies: what they estimate exactly, and how wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from enumeration import exact_gradient, moments
from test_estimators import BITS
from torch import Tensor

import pgest
from benchmarks.perturbed_outcomes import directions
from pgest.comparison.outcomes import Kind
from pgest.estimators import SPSA, EvolutionStrategies, FiniteDifferences
from pgest.estimators.perturbation import Perturbed

F64 = torch.float64
ROW = torch.tensor([[0.3, -0.8, 0.5]], dtype=F64)
LOGITS = {pgest.Bernoulli: BITS, pgest.Categorical: ROW, pgest.OneHotCategorical: ROW}
COST = torch.tensor([1.0, -2.0, 0.5], dtype=F64)


def f(z: Tensor) -> Tensor:
    """Of three bits, or of one of three."""
    if z.dtype == torch.int64:
        return COST[z[..., 0]]
    if z.dim() == 4:
        return (z[..., 0, :] @ COST) ** 3 / 4
    return (z @ COST - 0.6) ** 3 + z.prod(-1)


def expected(kind: Kind, logits: Tensor, estimator: Perturbed) -> Tensor:
    """Differences of the exact E[f], for all directions and their probability."""
    n = logits.numel()
    _, p, moves = directions(estimator, n)
    along = (estimator.step * moves).reshape(-1, *logits.shape)

    def value(x: Tensor) -> Tensor:
        return pgest.expect(f, kind(x, event_dims=1), "exact")

    slope = (value(logits + along) - value(logits - along)) / (2 * estimator.step)
    total = (slope.view(*moves.shape[:2], 1) * moves).sum(1)
    return (p @ total).view_as(logits)


@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize("step", [0.3, 1.0])
@pytest.mark.parametrize("make", [FiniteDifferences, SPSA, EvolutionStrategies])
def test_their_expectation_is_the_difference_of_expectations(
    kind: Kind, step: float, make: Any
) -> None:
    logits, estimator = LOGITS[kind], make(step)
    found = moments(kind, logits, f, estimator)
    wanted = expected(kind, logits, estimator)
    torch.testing.assert_close(found.mean, wanted, rtol=0, atol=1e-10)
    value, _ = exact_gradient(kind, logits, f)
    torch.testing.assert_close(found.value, value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize("make", [FiniteDifferences, SPSA, EvolutionStrategies])
def test_the_bias_is_of_second_order_in_the_step(kind: Kind, make: Any) -> None:
    logits = LOGITS[kind]
    _, gradient = exact_gradient(kind, logits, f)
    far, near = (
        float((expected(kind, logits, make(step)) - gradient).norm()) for step in (0.2, 0.1)
    )
    assert far > 1e-4
    assert far / near == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize(
    ("make", "own", "others"),
    [(FiniteDifferences, 1 / 6, 0.0), (SPSA, 1 / 6, 1 / 2), (EvolutionStrategies, 1 / 2, 1 / 2)],
)
def test_the_bias_is_that_of_third_derivatives(
    kind: Kind, make: Any, own: float, others: float
) -> None:
    """c^2 times `own` d^3 / dlogit_i^3 + `others` sum over j != i of d^3 / dlogit_i dlogit_j^2."""
    logits = LOGITS[kind]

    def exact(x: Tensor) -> Tensor:
        return pgest.expect(f, kind(x.view(1, *logits.shape), event_dims=1), "exact").sum()

    jacrev = torch.func.jacrev
    third = jacrev(jacrev(jacrev(exact)))(logits.flatten())
    by_pair = third.diagonal(dim1=0, dim2=1)  # [i, j]: d^3 / dlogit_i dlogit_j^2
    itself = by_pair.diagonal()
    predicted = own * itself + others * (by_pair.sum(1) - itself)
    _, gradient = exact_gradient(kind, logits, f)
    step = 0.02
    found = (expected(kind, logits, make(step)) - gradient).flatten() / step**2
    torch.testing.assert_close(found, predicted, rtol=0, atol=1e-2 * float(predicted.abs().max()))
    assert predicted.abs().max() > 1e-2


@pytest.mark.parametrize("step", [0.1, 0.5])
def test_differences_of_one_bit_have_the_closed_form(step: float) -> None:
    """The samples differ with the probability that lies between the two: then by f(1) - f(0)."""
    logit = torch.tensor([0.8], dtype=F64)
    between = float((logit + step).sigmoid() - (logit - step).sigmoid())
    delta = 0.55**2 - 0.45**2
    for make in (FiniteDifferences, SPSA):  # of one logit, where a sign makes no difference
        found = moments(pgest.Bernoulli, logit, lambda z: ((z - 0.45) ** 2).sum(-1), make(step))
        mean = delta * between / (2 * step)
        assert float(found.mean) == pytest.approx(mean, abs=1e-12)
        square = delta**2 * between / (4 * step**2)
        assert float(found.variance) == pytest.approx(square - mean**2, abs=1e-12)


@pytest.mark.parametrize("make", [FiniteDifferences, SPSA, EvolutionStrategies])
def test_samples_are_averaged(make: Any) -> None:
    torch.manual_seed(0)
    estimator, rows = make(), torch.randn(5, 3, dtype=F64).requires_grad_()
    q = pgest.Bernoulli(rows, event_dims=1)
    noise = torch.rand(estimator.noise_shape(q, 4), dtype=F64)
    values = [pgest.expect(f, q, estimator, num_samples=1, noise=u[None]) for u in noise]
    expected = torch.autograd.grad(torch.stack(values).sum() / 4, rows)
    value = pgest.expect(f, q, estimator, num_samples=4, noise=noise)
    torch.testing.assert_close(torch.autograd.grad(value.sum(), rows), expected)


class Doubled(FiniteDifferences):
    """Without the half of a central difference."""

    def directions(self, noise: Tensor, n: int) -> Tensor:
        return 2 * super().directions(noise, n)


@pytest.mark.parametrize("wrong", [Doubled(0.3)])
def test_the_harness_catches_wrong_ones(wrong: FiniteDifferences) -> None:
    found = moments(pgest.Bernoulli, BITS, f, wrong)
    wanted = expected(pgest.Bernoulli, BITS, FiniteDifferences(0.3))
    assert (found.mean - wanted).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["finite_differences", "spsa", "evolution_strategies"])
@pytest.mark.parametrize("kind", LOGITS)
def test_impossible_values_stay_impossible(kind: Kind, name: str) -> None:
    logits = LOGITS[kind].clone()
    logits.view(-1)[1] = -torch.inf
    rows = logits.expand(50, *logits.shape).clone().requires_grad_()
    value = pgest.expect(f, kind(rows, event_dims=1), name, num_samples=4)
    (gradient,) = torch.autograd.grad(value.sum(), rows)
    assert gradient.isfinite().all()
    assert gradient.flatten(1)[:, 1].abs().max() == 0
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", ["finite_differences", "spsa", "evolution_strategies"])
@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize("infinity", [-torch.inf, torch.inf])
def test_large_costs_do_not_meet_the_number_that_stands_for_infinity(
    kind: Kind, name: str, infinity: float
) -> None:
    logits = LOGITS[kind].clone()
    logits.view(-1)[1] = infinity if kind is pgest.Bernoulli else -torch.inf
    rows = logits.expand(50, *logits.shape).clone().requires_grad_()
    g, q = torch.Generator().manual_seed(0), kind(rows, event_dims=1)
    value = pgest.expect(lambda z: 1000 * f(z), q, name, num_samples=4, generator=g)
    (gradient,) = torch.autograd.grad(value.sum(), rows)
    assert value.isfinite().all()
    assert 10 < value.detach().abs().max() < 1e5
    assert gradient.isfinite().all()
    assert gradient.flatten(1)[:, 1].abs().max() == 0
    assert gradient.abs().max() > 0


def test_a_step_is_a_positive_number() -> None:
    makes: tuple[Any, ...] = (FiniteDifferences, SPSA, EvolutionStrategies)
    for make in makes:
        for wrong in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=r"^step must be positive and finite, got"):
                make(wrong)
        with pytest.raises(TypeError, match=r"^step must be a number, got str"):
            make("1")
