"""Sums over the most probable values, draws without replacement, measure-valued derivatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from enumeration import assert_unbiased, exact_gradient, moments
from test_estimators import LOGITS, interacting
from torch import Tensor

import pgest
from benchmarks.joint_outcomes import of_rest
from benchmarks.noise import noise_for
from pgest.comparison.outcomes import Kind
from pgest.estimators import (
    MeasureValued,
    SumAndSample,
)
from pgest.estimators.sum_and_sample import _baseline

F64 = torch.float64
ROW = torch.tensor([0.3, -0.8, 0.5, 1.1, -0.2], dtype=F64)
COST = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.7], dtype=F64)


def estimate(estimator: Any, noise: Tensor, samples: int, cost: Tensor = COST) -> list[Tensor]:
    """Value and gradient of one token's cost, for noise [..., rows]."""
    rows = ROW.expand(noise.shape[-1], -1).clone().requires_grad_()
    q = pgest.Categorical(rows)
    value = pgest.expect(lambda z: cost[z], q, estimator, num_samples=samples, noise=noise)
    return [value.detach(), *torch.autograd.grad(value.sum(), rows)]


def test_sum_and_sample_is_reinforce_or_rloo_at_the_ends() -> None:
    noise = torch.rand(3, 50, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = estimate(SumAndSample(), noise[:1], 1)
    torch.testing.assert_close(found, estimate("reinforce", noise[:1], 1), rtol=0, atol=1e-12)
    found = estimate(SumAndSample(samples=3), noise, 3)
    torch.testing.assert_close(found, estimate("rloo", noise, 3), rtol=0, atol=1e-12)


JOINT = ("sum_and_sample", "without_replacement", "unordered_set")


@pytest.mark.parametrize("name", [*JOINT, "normalised_without_replacement"])
@pytest.mark.parametrize("kind", LOGITS)
def test_the_whole_support_is_exact(kind: Kind, name: str) -> None:
    logits = LOGITS[kind]
    for samples in (9, 12):
        found = moments(kind, logits, interacting, name, samples)
        assert_unbiased(found, *exact_gradient(kind, logits, interacting))
        assert found.variance.max() < 1e-28


@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("sum_and_sample", 2),
        ("normalised_without_replacement", 2),
        ("unordered_set", 3),
        ("measure_valued", 1),
        ("muprop", 1),
        ("double_cv", 2),
        ("rodeo", 2),
    ],
)
def test_a_constant_changes_nothing(kind: Kind, name: str, samples: int) -> None:
    if not issubclass(kind, pgest.estimators.registry[name].traits.distributions):
        return
    logits = LOGITS[kind]
    noise, p = noise_for(name, kind, logits, samples)
    plain: list[Tensor] = []
    more: list[Tensor] = []
    for shift, found in ((0.0, plain), (100.0, more)):
        rows = logits.expand(len(p), *logits.shape).clone().requires_grad_()

        def f(z: Tensor, shift: float = shift) -> Tensor:
            return interacting(z) + shift

        q = kind(rows, event_dims=1)
        value = pgest.expect(f, q, name, num_samples=samples, noise=noise)
        found.extend(torch.autograd.grad(value.sum(), rows))
    torch.testing.assert_close(plain, more, rtol=0, atol=1e-10)


def test_the_top_and_one_sample_have_the_closed_form() -> None:
    """Two values of three: the most probable one, and one of the others with p(rest)."""
    logits = torch.tensor([[1.0, 0.2, -0.5]], dtype=F64)
    p, cost = logits[0].softmax(-1), torch.tensor([1.0, 4.0, -2.0], dtype=F64)
    found = moments(pgest.Categorical, logits, lambda z: cost[z[..., 0]], "sum_and_sample", 2)
    eye, rest = torch.eye(3, dtype=F64), 1 - p[0]
    # The baseline is the top's cost, so that only the sample counts.
    estimates = [rest * (cost[v] - cost[0]) * (eye[v] - p) for v in (1, 2)]
    mean = sum(p[v] / rest * g for v, g in zip((1, 2), estimates, strict=True))
    square = sum(p[v] / rest * g**2 for v, g in zip((1, 2), estimates, strict=True))
    torch.testing.assert_close(found.mean[0], mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.variance[0], square - mean**2, rtol=0, atol=1e-12)


def test_measure_valued_bits_have_the_closed_form() -> None:
    """Bit 0 is averaged exactly; what is left is the variance that the other bits give."""
    logits = torch.tensor([0.4, -0.7], dtype=F64)
    (p0, p1), q1 = logits.sigmoid(), 1 - logits.sigmoid()[1]

    def f(z: Tensor) -> Tensor:
        return z[..., 0] * (2 + 3 * z[..., 1])

    found = moments(pgest.Bernoulli, logits, f, "measure_valued")
    slope = p0 * (1 - p0)
    assert float(found.mean[0]) == pytest.approx(float(slope * (2 + 3 * p1)), abs=1e-12)
    assert float(found.variance[0]) == pytest.approx(float(slope**2 * 9 * p1 * q1), abs=1e-12)


@pytest.mark.parametrize("kind", LOGITS)
def test_measure_valued_is_exact_for_additive_f(kind: Kind) -> None:
    table = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 0.7], [2.0, 2.0, -1.0]], dtype=F64)

    def additive(z: Tensor) -> Tensor:
        if z.dtype == torch.int64:
            return table[0][z[..., 0]] + table[1][z[..., 1]]
        return (z * table[: z.shape[-2]]).flatten(2).sum(-1) if z.dim() == 4 else z @ table[0]

    found = moments(kind, LOGITS[kind], additive, "measure_valued")
    assert_unbiased(found, *exact_gradient(kind, LOGITS[kind], additive))
    assert found.variance.max() < 1e-28


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("sum_and_sample", 3),
        ("without_replacement", 2),
        ("unordered_set", 3),
        ("measure_valued", 1),
    ],
)
@pytest.mark.parametrize("kind", LOGITS)
def test_f_learns_without_bias_from_weighted_values(kind: Kind, name: str, samples: int) -> None:
    logits, theta = LOGITS[kind], torch.tensor(0.7, dtype=F64, requires_grad=True)
    noise, p = noise_for(name, kind, logits, samples)
    q = kind(logits.expand(len(p), *logits.shape), event_dims=1)

    def f(z: Tensor) -> Tensor:
        return (theta * interacting(z)).sin()

    value = pgest.expect(f, q, name, num_samples=samples, noise=noise)
    exact = pgest.expect(f, kind(logits[None], event_dims=1), "exact")
    (found,) = torch.autograd.grad(p @ value, theta)
    (expected,) = torch.autograd.grad(exact.sum(), theta)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", JOINT)
@pytest.mark.parametrize("kind", [pgest.Categorical, pgest.OneHotCategorical])
def test_what_is_impossible_is_never_shown(kind: Kind, name: str) -> None:
    """Three samples where two values are possible: the row is exact, and f sees no other."""
    logits = torch.tensor([[0.3, -torch.inf, 0.9, -torch.inf, -torch.inf]] * 6, dtype=F64)
    logits = torch.cat([logits, ROW[None]]).requires_grad_()
    cost = torch.tensor([1.0, torch.nan, 3.0, torch.nan, torch.nan], dtype=F64)

    def f(z: Tensor) -> Tensor:
        tokens = z if kind is pgest.Categorical else z.argmax(-1)
        return torch.where(torch.arange(7) < 6, cost[tokens], COST[tokens])

    found = pgest.expect(f, kind(logits), name, num_samples=3)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    possible = torch.tensor([0.3, 0.9], dtype=F64, requires_grad=True)
    exact = (possible.softmax(-1) * torch.tensor([1.0, 3.0])).sum()
    (expected,) = torch.autograd.grad(exact, possible)
    torch.testing.assert_close(found[:6], exact.detach().expand(6))
    torch.testing.assert_close(gradient[:6, [0, 2]], expected.expand(6, 2))
    assert gradient[:6, [1, 3, 4]].abs().max() == 0
    assert gradient[6].isfinite().all()


@pytest.mark.parametrize("kind", LOGITS)
def test_infinite_logits_of_measure_valued_bits(kind: Kind) -> None:
    logits = LOGITS[kind].clone().float()
    logits.view(-1)[0] = -torch.inf
    rows = logits.expand(8, *logits.shape).clone().requires_grad_()
    q = kind(rows, event_dims=1)

    def f(z: Tensor) -> Tensor:
        return interacting(z if z.dtype == torch.int64 else z.double())

    value = pgest.expect(f, q, "measure_valued")
    (gradient,) = torch.autograd.grad(value.sum(), rows)
    assert gradient.isfinite().all()
    assert gradient.flatten(1)[:, 0].abs().max() == 0


def test_the_harness_catches_a_baseline_that_sees_its_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(weight: Tensor, cost: Tensor, samples: int) -> Tensor:
        return (weight * cost).sum(0).expand(cost.shape)

    monkeypatch.setattr("pgest.estimators.sum_and_sample._baseline", wrong)
    kind, logits = pgest.Categorical, LOGITS[pgest.Categorical]
    found = moments(kind, logits, interacting, SumAndSample(samples=2), 3)
    with pytest.raises(AssertionError, match="biased by"):
        assert_unbiased(found, *exact_gradient(kind, logits, interacting))


def test_the_baseline_of_a_sample_leaves_it_out() -> None:
    weight = torch.tensor([0.5, 0.25, 0.25], dtype=F64)
    cost = torch.tensor([1.0, 3.0, 7.0], dtype=F64)
    found = _baseline(weight, cost, 2)
    assert found.tolist() == pytest.approx([(4.0 + 2.0) / 2, 0.5 + 0.5 * 7, 0.5 + 0.5 * 3])
    noise, _ = of_rest(ROW.softmax(-1), 2, 2)
    assert noise.shape == (2, 9, 1)


def test_refusals() -> None:
    bits, tokens = pgest.Bernoulli(torch.zeros(20), event_dims=1), pgest.Categorical(ROW)
    for name in JOINT:
        with pytest.raises(ValueError, match=rf"^{name} enumerates at most 65536 .* got 1048576"):
            pgest.expect(lambda z: z.sum(-1), bits, name, num_samples=2)
    many = pgest.Categorical(torch.zeros(50))
    with pytest.raises(ValueError, match=r"^num_samples must be at most 12 for unordered_set"):
        pgest.expect(lambda z: z.float(), many, "unordered_set", num_samples=13)
    with pytest.raises(ValueError, match=r"^num_samples must be at least 2 for unordered_set"):
        pgest.expect(lambda z: z.float(), tokens, "unordered_set")
    with pytest.raises(ValueError, match=r"^num_samples must be at least 3 for SumAndSample"):
        pgest.expect(lambda z: z.float(), tokens, SumAndSample(samples=3), num_samples=2)
    with pytest.raises(ValueError, match=r"^samples must be at least 1, got 0"):
        SumAndSample(samples=0)
    options: dict[str, Any] = {"num_samples": 2, "noise": torch.rand(3)}
    with pytest.raises(ValueError, match=r"noise must have shape .2, 3., got \(3,\)"):
        pgest.expect(lambda z: z.float(), tokens, "without_replacement", **options)
    with pytest.raises(
        TypeError, match=r"^measure_valued takes Bernoulli or Categorical or OneHot"
    ):
        pgest.expect(lambda z: z, Other(torch.zeros(3)), MeasureValued())


class Other(pgest.distributions.Distribution):
    """A distribution of the user, with three values."""

    probs = property(lambda self: self.logits.softmax(-1))
    support_size = 3

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits, 0, logits.shape[:-1])

    def sample(self, sample_shape: Any = (), *, generator: Any = None, noise: Any = None) -> Tensor:
        raise NotImplementedError

    def log_prob(self, value: Tensor) -> Tensor:
        log_p = self.logits.log_softmax(-1).expand(*value.shape, 3)
        return log_p.gather(-1, (value * 2).long()[..., None])[..., 0]

    def entropy(self) -> Tensor:
        raise NotImplementedError

    def enumerate_support(self) -> Tensor:
        values = torch.tensor([0.0, 0.5, 1.0], dtype=self.logits.dtype)
        return values.view(3, *[1] * len(self.batch_shape)).expand(3, *self.batch_shape)


@pytest.mark.parametrize("name", JOINT)
def test_a_distribution_of_the_user_is_listed(name: str) -> None:
    logits = torch.randn(2, 3, dtype=F64, requires_grad=True)
    found = pgest.expect(lambda z: z**2, Other(logits), name, num_samples=3)
    torch.testing.assert_close(found, logits.softmax(-1) @ torch.tensor([0, 0.25, 1]).double())
    noise = torch.rand(2, 3, 2, dtype=F64)[:, : 2 + (name == "without_replacement")]
    noise = noise[:1, 0] if name == "sum_and_sample" else noise
    mine, theirs = (
        pgest.expect(lambda z: z.double(), q, name, num_samples=2, noise=noise)
        for q in (Other(logits), pgest.Categorical(logits))
    )
    torch.testing.assert_close(2 * mine, theirs)
