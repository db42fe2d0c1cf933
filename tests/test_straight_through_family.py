"""The straight-through family: what is exact, what is biased, and what all pathwise ones share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from enumeration import assert_unbiased, exact_gradient, moments
from test_estimators import LOGITS
from test_expect import uniforms
from torch import Tensor

import pgest
from pgest.comparison.outcomes import Kind
from pgest.estimators import (
    DecoupledSTGumbel,
    GappedST,
    GumbelRao,
    GumbelSoftmax,
    ReinMax,
)

KINDS = (pgest.Bernoulli, pgest.OneHotCategorical)


def linear(z: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(z.shape[2:], dtype=torch.float64, generator=generator)
    return (c * z).flatten(2).sum(-1)


def quadratic(z: Tensor) -> Tensor:
    """With cross terms, within variables and across."""
    x = z.flatten(2)
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(x.shape[-1], x.shape[-1], dtype=torch.float64, generator=generator)
    return torch.einsum("...i,ij,...j", x, a, x) + linear(z) - 0.7


def cubic(z: Tensor) -> Tensor:
    return linear(z) ** 3


def bias(kind: Kind, f: Callable[[Tensor], Tensor], estimator: Any) -> float:
    """Relative to the true gradient's length, by enumeration."""
    found = moments(kind, LOGITS[kind], f, estimator)
    value, gradient = exact_gradient(kind, LOGITS[kind], f)
    torch.testing.assert_close(found.value, value)
    return float((found.mean - gradient).norm() / gradient.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_reinmax_is_exact_to_the_second_degree(kind: Kind) -> None:
    for f in (linear, quadratic):
        found = moments(kind, LOGITS[kind], f, "reinmax")
        assert_unbiased(found, *exact_gradient(kind, LOGITS[kind], f))
    assert bias(kind, cubic, "reinmax") > 0.02
    assert bias(kind, cubic, "straight_through") > 1.1 * bias(kind, cubic, "reinmax")


@pytest.mark.parametrize("kind", KINDS)
def test_another_temperature_is_caught(kind: Kind) -> None:
    wrong = ReinMax(1.1)
    assert wrong.traits.exact_for == ""
    assert ReinMax().traits.exact_for == "quadratic f"
    found = moments(kind, LOGITS[kind], linear, wrong)
    with pytest.raises(AssertionError, match="biased by"):
        assert_unbiased(found, *exact_gradient(kind, LOGITS[kind], linear))
    assert 0.005 < bias(kind, linear, wrong) < bias(kind, linear, ReinMax(1.3))


@pytest.mark.parametrize("p", [0.5, 0.75, 0.9, 0.2])
def test_one_bit_of_reinmax_has_the_closed_form(p: float) -> None:
    t, q, logit = 0.45, 1 - p, torch.tensor([p], dtype=torch.float64).logit()
    slope0, slope1 = -2 * t, 2 * (1 - t)
    found = moments(pgest.Bernoulli, logit, lambda z: ((z - t) ** 2).sum(-1), "reinmax")
    assert float(found.mean) == pytest.approx(p * q * ((1 - t) ** 2 - t**2), abs=1e-12)
    variance = p * q / 4 * (q * slope1 - p * slope0) ** 2
    assert float(found.variance) == pytest.approx(variance, abs=1e-12)


@pytest.mark.parametrize(("p", "variance"), [(0.5, 0.0625), (0.75, 0.0423), (0.9, 0.01904)])
def test_one_bit_of_reinmax_has_the_known_numbers(p: float, variance: float) -> None:
    logit = torch.tensor([p], dtype=torch.float64).logit()
    found = moments(pgest.Bernoulli, logit, lambda z: ((z - 0.45) ** 2).sum(-1), "reinmax")
    assert float(found.variance) == pytest.approx(variance, rel=5e-4)


def passed(distribution: Any, estimator: Any, sample: Tensor, g: Tensor) -> Tensor:
    """J^T g of a hard sample."""
    path = estimator.passed(distribution, sample)
    assert torch.equal(path.detach(), sample)
    return torch.autograd.grad((path * g).sum(), distribution.logits)[0]


def random_case(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    logits, grad = (torch.randn(shape, dtype=torch.float64, generator=g) for _ in range(2))
    return (2 * logits).requires_grad_(), grad


def test_reinmax_has_the_closed_form_of_zgr() -> None:
    logits, g = random_case((500, 6))
    q = pgest.OneHotCategorical(logits)
    x, p = q.sample(noise=uniforms(500)), q.probs.detach()
    inner = (g * p).sum(-1, keepdim=True)
    expected = 0.5 * (p * (g - inner) + (x - p) * ((x - p) * g).sum(-1, keepdim=True))
    torch.testing.assert_close(passed(q, ReinMax(), x, g), expected, rtol=0, atol=1e-12)
    logits, g = random_case((500,))
    b = pgest.Bernoulli(logits)
    x = b.sample(noise=uniforms(500))
    expected = 0.5 * (x - b.probs.detach()).abs() * g
    torch.testing.assert_close(passed(b, ReinMax(), x, g), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "estimator", [ReinMax(), ReinMax(1.3), ReinMax(0.6), GappedST(), GappedST(0.7, 2.5)], ids=repr
)
def test_a_bit_is_two_logits(estimator: Any) -> None:
    logits, g = random_case((500,))
    bits = pgest.Bernoulli(logits)
    pairs = pgest.OneHotCategorical(torch.stack([torch.zeros_like(logits), logits], -1))
    b = bits.sample(noise=uniforms(500))
    path = estimator.passed(pairs, torch.stack([1 - b, b], -1))[..., 1]
    (expected,) = torch.autograd.grad((path * g).sum(), logits)
    torch.testing.assert_close(passed(bits, estimator, b, g), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 1.3])
def test_the_jacobian_of_bits_may_be_differentiated(temperature: float) -> None:
    logits, g = random_case((20,))
    sample = (uniforms(20) < 0.5).double()

    def gradient(x: Tensor) -> Tensor:
        path = ReinMax(temperature).passed(pgest.Bernoulli(x), sample)
        return torch.autograd.grad((path * g).sum(), x, create_graph=True)[0]

    assert torch.autograd.gradcheck(gradient, logits)


@pytest.mark.parametrize("kind", KINDS)
def test_gapped_st_is_the_paper_s(kind: Kind) -> None:
    """softmax((logits + m1 - m2) / T): m1 lifts the sample to the top, m2 lowers the others."""
    gap, temperature = 0.8, 0.6
    logits, g = random_case((300, 4))
    q = pgest.OneHotCategorical(logits)
    x = q.sample(noise=uniforms(300))
    z = logits.detach()
    top = z.amax(-1, keepdim=True)
    m1, m2 = (top - z) * x, (z - top + gap).clamp_min(0) * (1 - x)
    moved = z + m1 - m2
    others = torch.where(x == 1, -torch.inf, moved).amax(-1)
    assert ((moved * x).sum(-1) - others).min() >= gap - 1e-12
    soft = ((logits + m1 - m2) / temperature).softmax(-1)
    (expected,) = torch.autograd.grad((soft * g).sum(), logits)
    found = passed(q, GappedST(temperature, gap), x, g)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert bias(kind, linear, "gapped_st") > 0.02


@pytest.mark.parametrize("temperature", [1.0, 1.3])
def test_reinmax_is_the_package_s(temperature: float) -> None:
    reinmax = pytest.importorskip("reinmax", reason="pip install reinmax")
    logits, g = random_case((64, 5))
    torch.manual_seed(0)
    sample, _ = reinmax.reinmax(logits, temperature)
    (expected,) = torch.autograd.grad((sample * g).sum(), logits)
    found = passed(pgest.OneHotCategorical(logits), ReinMax(temperature), sample.detach(), g)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


HARD = [
    "straight_through",
    "reinmax",
    "mve",
    "gapped_st",
    "st_gumbel",
    "decoupled_st_gumbel",
    "gumbel_rao",
]


@pytest.mark.parametrize("name", [*HARD, "gumbel_softmax"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_impossible_values_have_no_gradient(name: str, kind: Kind, dtype: torch.dtype) -> None:
    logits = torch.tensor([[-torch.inf, 0.5, 1.0], [0.0, 0.3, -torch.inf]], dtype=dtype)
    logits.requires_grad_()
    q = kind(logits, event_dims=1) if kind is pgest.Bernoulli else kind(logits)
    g = torch.Generator().manual_seed(0)
    c = torch.tensor([2.0, -1.0, 3.0])
    value = pgest.expect(lambda z: (c * z).sum(-1) ** 2, q, name, num_samples=50, generator=g)
    (found,) = torch.autograd.grad(value.sum(), logits)
    assert found.dtype == dtype
    assert found.isfinite().all()
    assert found[logits.isinf()].abs().max() == 0
    assert found[~logits.isinf()].abs().min() > 0
    with torch.no_grad():
        z = pgest.estimators.registry[name].draw(q, (50,), None, None)  # type: ignore[attr-defined]
    assert z[:, logits.isinf()].max() == 0
    if name != "gumbel_softmax":
        assert ((z == 0) | (z == 1)).all()


@pytest.mark.parametrize("name", HARD)
def test_certain_bits_are_certain(name: str) -> None:
    logits = torch.tensor([torch.inf, -torch.inf], requires_grad=True)
    value = pgest.expect(lambda z: 3 * z + 1, pgest.Bernoulli(logits), name, num_samples=3)
    assert value.tolist() == [4.0, 1.0]
    assert torch.autograd.grad(value.sum(), logits)[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ReinMax(0), "temperature must be positive and finite, got 0"),
        (lambda: ReinMax(torch.ones(())), "temperature must be a number, got Tensor"),  # type: ignore[arg-type]
        (lambda: GappedST(gap=-1), "gap must be positive and finite, got -1"),
        (lambda: GappedST(temperature=0), "temperature must be positive and finite, got 0"),
        (lambda: DecoupledSTGumbel(0, 1), "forward_temperature must be positive and finite, got 0"),
        (lambda: DecoupledSTGumbel(1, -1), "backward_temperature must be positive and finite"),
        (lambda: GumbelRao(draws=0), "draws must be at least 1, got 0"),
        (lambda: GumbelRao(draws=1.5), "draws must be an integer, got float"),  # type: ignore[arg-type]
        (lambda: GumbelSoftmax(-1.0), "temperature must be positive and finite"),
        (lambda: pgest.estimators.HardConcrete(0), "temperature must be positive and finite"),
        (lambda: pgest.estimators.HardConcrete(low=0.1), "low must be negative and finite, got"),
        (lambda: pgest.estimators.HardConcrete(high=1), "high must be above 1 and finite, got 1"),
    ],
)
def test_settings_are_refused_by_name(build: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        build()


@pytest.mark.parametrize(
    ("word", "name"),
    [("zgr", "reinmax"), ("gumbel_softmax_hard", "st_gumbel"), ("ST-GS", "st_gumbel")],
)
def test_other_words_are_told_the_one(word: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"^estimator '{word}' is called '{name}' here$"):
        pgest.expect(lambda z: z, pgest.Bernoulli(torch.zeros(3)), word)
