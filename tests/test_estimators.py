"""Expectation and variance of every estimator, by enumerating all samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from enumeration import Moments, assert_unbiased, exact_gradient, moments
from torch import Tensor

import pgest
from pgest.comparison.outcomes import Kind
from pgest.estimators import (
    Constant,
    DoubleCV,
    MovingAverage,
    Rodeo,
    ScoreFunction,
    SumAndSample,
    Traits,
    registry,
)
from pgest.estimators.registry import resolve

BITS = torch.tensor([0.3, -1.1, 0.8], dtype=torch.float64)
ROWS = torch.tensor([[0.3, -1.1, 0.8], [1.0, 0.2, -0.4]], dtype=torch.float64)
LOGITS: dict[Kind, Tensor] = {
    pgest.Bernoulli: BITS,
    pgest.Categorical: ROWS,
    pgest.OneHotCategorical: ROWS,
}
TABLE = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 0.7], [2.0, 2.0, -1.0]], dtype=torch.float64)


def interacting(z: Tensor) -> Tensor:
    """A cost without structure that an estimator could profit from: every value has its own."""
    if z.dtype == torch.int64:
        return TABLE[z[..., 0], z[..., 1]]
    if z.shape[-1] == z.shape[-2] + 1 and z.dim() == 4:
        return torch.einsum("...i,ij,...j", z[..., 0, :], TABLE, z[..., 1, :])
    return 1.5 * z[..., 0] * z[..., 1] - 2 * z[..., 1] * z[..., 2] + z.prod(-1) + (z[..., 0] - 0.4)


def warm(decay: float = 0.9) -> MovingAverage:
    """A moving average that has seen costs and is frozen, so that outcomes do not share state."""
    estimator = MovingAverage(decay)
    pgest.expect(lambda z: 0 * z + 2.0, pgest.Bernoulli(torch.zeros(5)), estimator)
    return estimator.eval()


UNBIASED: list[tuple[Any, int]] = [
    ("reinforce", 1),
    ("reinforce", 2),
    ("rloo", 2),
    ("rloo", 3),
    (warm(), 1),
    (Constant(1.5), 1),
    ("self_critical", 1),
    ("self_critical", 2),
    ("exact", 1),
    ("dice", 1),
    ("dice", 2),
    ("arm", 2),
    ("disarm", 2),
    ("disarm", 4),
    ("arms", 2),
    ("arms", 3),
    ("arsm", 1),
    ("antithetic", 4),
    ("stratified", 2),
    ("sum_and_sample", 1),
    ("sum_and_sample", 3),
    (SumAndSample(samples=2), 2),
    (SumAndSample(samples=2), 3),
    ("without_replacement", 2),
    ("unordered_set", 2),
    ("unordered_set", 3),
    ("measure_valued", 1),
    ("measure_valued", 2),
    ("muprop", 1),
    ("muprop", 2),
    ("double_cv", 2),
    (DoubleCV(alpha=0.3), 3),
    ("rodeo", 2),
    (Rodeo(alpha=0.4, beta=0.2), 3),
]
CASES = [
    (kind, estimator, samples)
    for kind in LOGITS
    for estimator, samples in UNBIASED
    if issubclass(kind, resolve(estimator).traits.distributions)
]


@pytest.mark.parametrize(("kind", "estimator", "samples"), CASES)
def test_the_unbiased_are(kind: Kind, estimator: Any, samples: int) -> None:
    logits = LOGITS[kind]
    found = moments(kind, logits, interacting, estimator, samples)
    assert_unbiased(found, *exact_gradient(kind, logits, interacting))


def test_unbiased_is_declared_truly() -> None:
    """No estimator of the registry claims what the enumeration above does not show."""
    tried = {name for name, _ in UNBIASED if isinstance(name, str)}
    assert tried == {name for name, estimator in registry.items() if estimator.traits.unbiased}


class BatchMean(ScoreFunction):
    """A baseline that includes the sample itself."""

    name: ClassVar[str] = "batch_mean"
    traits: ClassVar[Traits] = Traits(unbiased=True)

    def weight(self, cost: Tensor) -> Tensor:
        return cost - cost.mean(0)


class WrongFactor(ScoreFunction):
    """Leave-one-out with the factor S / (S - 1) once too often."""

    name: ClassVar[str] = "wrong_factor"
    traits: ClassVar[Traits] = Traits(unbiased=True, min_samples=2)

    def weight(self, cost: Tensor) -> Tensor:
        samples = cost.shape[0]
        return (cost - cost.mean(0)) * (samples / (samples - 1)) ** 2


@pytest.mark.parametrize(("wrong", "scale"), [(BatchMean(), 2 / 3), (WrongFactor(), 3 / 2)])
def test_the_harness_catches_wrong_ones(wrong: ScoreFunction, scale: float) -> None:
    value, gradient = exact_gradient(pgest.Bernoulli, BITS, interacting)
    found = moments(pgest.Bernoulli, BITS, interacting, wrong, 3)
    torch.testing.assert_close(found.mean, scale * gradient, rtol=0, atol=1e-10)
    with pytest.raises(AssertionError, match="biased by"):
        assert_unbiased(found, value, gradient)


def one_bit(p: float, f: Callable[[Tensor], Tensor], estimator: Any, samples: int) -> Moments:
    logit = torch.tensor([p], dtype=torch.float64).logit()
    return moments(pgest.Bernoulli, logit, lambda z: f(z[..., 0]), estimator, samples)


@pytest.mark.parametrize("p", [0.5, 0.75, 0.9, 0.2])
@pytest.mark.parametrize("t", [0.45, 0.499])
def test_one_bit_has_the_closed_forms(p: float, t: float) -> None:
    q, f0, f1 = 1 - p, t**2, (1 - t) ** 2
    delta, slope0, slope1 = f1 - f0, -2 * t, 2 * (1 - t)
    baseline = float(warm().baseline)
    forms = {
        ("reinforce", 1): p * q * (q * f1 + p * f0) ** 2,
        ("reinforce", 2): p * q * (q * f1 + p * f0) ** 2 / 2,
        ("rloo", 2): delta**2 * (p * q / 2 - p**2 * q**2),
        (warm(), 1): p * q * (q * (f1 - baseline) + p * (f0 - baseline)) ** 2,
        ("exact", 1): 0.0,
        ("straight_through", 1): (p * q) ** 3 * (slope1 - slope0) ** 2,
    }
    for (estimator, samples), variance in forms.items():
        found = one_bit(p, lambda z: (z - t) ** 2, estimator, samples)
        biased = estimator == "straight_through"
        mean = p * q * (p * slope1 + q * slope0 if biased else delta)
        assert float(found.mean) == pytest.approx(mean, abs=1e-12)
        assert float(found.variance) == pytest.approx(variance, abs=1e-12)


@pytest.mark.parametrize(
    ("t", "p", "true", "reinforce", "rloo", "straight_through"),
    [
        (0.45, 0.5, 0.025, 0.01594, 6.25e-4, 0.025),
        (0.45, 0.9, 0.009, 0.004064, 3.69e-4, 0.081),
        (0.499, 0.75, 3.75e-4, 0.01167, 2.344e-7, 0.09413),
    ],
)
def test_one_bit_has_the_known_numbers(
    t: float, p: float, true: float, reinforce: float, rloo: float, straight_through: float
) -> None:
    def f(z: Tensor) -> Tensor:
        return (z - t) ** 2

    assert float(one_bit(p, f, "exact", 1).mean) == pytest.approx(true, rel=1e-9)
    assert float(one_bit(p, f, "reinforce", 1).variance) == pytest.approx(reinforce, rel=5e-4)
    assert float(one_bit(p, f, "rloo", 2).variance) == pytest.approx(rloo, rel=5e-4)
    assert float(one_bit(p, f, "straight_through", 1).mean) == pytest.approx(
        straight_through, rel=5e-4
    )


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_many_bits_have_the_closed_form(bits: int) -> None:
    p, q, delta = 0.75, 0.25, 0.7
    logits = torch.full((bits,), p, dtype=torch.float64).logit()
    found = moments(pgest.Bernoulli, logits, lambda z: delta * z.sum(-1), "rloo", 2)
    variance = delta**2 * (p * q / 2 + (bits - 2) * p**2 * q**2)
    torch.testing.assert_close(found.mean, torch.full_like(logits, p * q * delta))
    torch.testing.assert_close(found.variance, torch.full_like(logits, variance))


def test_three_bits_that_share_a_logit() -> None:
    """The toy problem of Liu et al. (2019): the gradient at 0 is -0.045, the best loss 0.6705."""
    target = torch.tensor([0.6, 0.51, 0.48], dtype=torch.float64)
    logit = torch.zeros((), dtype=torch.float64, requires_grad=True)
    bits = pgest.Bernoulli(logit.expand(3), event_dims=1)
    value = pgest.expect(lambda z: ((z - target) ** 2).sum(-1), bits, "exact")
    (gradient,) = torch.autograd.grad(value, logit)
    assert float(gradient) == pytest.approx(-0.045, abs=1e-12)
    ones = pgest.Bernoulli(torch.full((3,), torch.inf, dtype=torch.float64), event_dims=1)
    best = pgest.expect(lambda z: ((z - target) ** 2).sum(-1), ones, "exact")
    assert float(best) == pytest.approx(0.6705, abs=1e-12)


@pytest.mark.parametrize("kind", [pgest.Bernoulli, pgest.OneHotCategorical])
def test_straight_through_is_exact_for_linear_f_only(kind: Kind) -> None:
    logits = LOGITS[kind]
    c = torch.randn(logits.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def linear(z: Tensor) -> Tensor:
        return (c * z).flatten(2).sum(-1)

    found = moments(kind, logits, linear, "straight_through")
    assert_unbiased(found, *exact_gradient(kind, logits, linear))
    assert found.variance.max() < 1e-20
    found = moments(kind, logits, lambda z: linear(z) ** 3, "straight_through")
    value, gradient = exact_gradient(kind, logits, lambda z: linear(z) ** 3)
    assert (found.mean - gradient).abs().max() > 1e-2
    torch.testing.assert_close(found.value, value)


@pytest.mark.parametrize("kind", LOGITS)
def test_a_constant_changes_reinforce_but_not_rloo(kind: Kind) -> None:
    def shifted(z: Tensor) -> Tensor:
        return interacting(z) + 100

    logits = LOGITS[kind]
    plain, more = (moments(kind, logits, f, "rloo", 2) for f in (interacting, shifted))
    torch.testing.assert_close(more.variance, plain.variance)
    plain, more = (moments(kind, logits, f, "reinforce", 2) for f in (interacting, shifted))
    assert more.variance.max() > 100 * plain.variance.max()


@pytest.mark.parametrize(("kind", "estimator", "samples"), CASES)
def test_f_may_use_the_logits(kind: Kind, estimator: Any, samples: int) -> None:
    """A small ELBO, E[log q(z) + cost(z)]: the gradient that does not pass through z is kept."""

    def elbo(z: Tensor, q: Any) -> Tensor:
        return q.log_prob(z) + interacting(z) * q.logits.flatten(1).sum(-1)

    logits = LOGITS[kind]
    found = moments(kind, logits, elbo, estimator, samples, closes_over=True)
    assert_unbiased(found, *exact_gradient(kind, logits, elbo, closes_over=True))


def test_the_moving_average_excludes_the_present() -> None:
    estimator = MovingAverage(decay=0.5)
    assert float(estimator.baseline) == 0
    for cost, before, after in [(4.0, 0.0, 4.0), (1.0, 4.0, 2.0), (0.0, 2.0, 6 / 7)]:
        assert float(estimator.baseline) == pytest.approx(before)
        assert float(estimator.weight(torch.full((2, 3), cost))[0, 0]) == pytest.approx(
            cost - before
        )
        assert float(estimator.baseline) == pytest.approx(after)
    frozen = estimator.eval().baseline.clone()
    estimator.weight(torch.full((2, 3), 50.0))
    assert torch.equal(estimator.baseline, frozen)
    other = MovingAverage(decay=0.5)
    other.load_state_dict(estimator.state_dict())
    assert torch.equal(other.baseline, frozen)


@pytest.mark.parametrize("kind", LOGITS)
def test_exact_is_differentiable_twice(kind: Kind) -> None:
    def value(logits: Tensor) -> Tensor:
        return pgest.expect(lambda z: interacting(z), kind(logits[None], event_dims=1), "exact")

    assert torch.autograd.gradgradcheck(value, LOGITS[kind].clone().requires_grad_())
