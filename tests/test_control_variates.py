"""MuProp, double control variates and Stein operators: identities, forms, what they learn."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from enumeration import assert_unbiased, exact_gradient, moments
from test_estimators import BITS, LOGITS, interacting
from torch import Tensor, nn

import pgest
from pgest.advantages import leave_one_out
from pgest.comparison.outcomes import Kind, outcomes
from pgest.estimators import DoubleCV, MuProp, Rodeo, SlopeControl

F64 = torch.float64
FLOATING = [pgest.Bernoulli, pgest.OneHotCategorical]
C = torch.tensor([1.0, -2.0, 0.5], dtype=F64)


def linear(z: Tensor) -> Tensor:
    return (z @ C).flatten(2).sum(-1) if z.dim() == 4 else z @ C


def control(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def gradients(estimator: Any, kind: Kind, samples: int, f: Any = interacting) -> Tensor:
    """The estimates of all outcomes."""
    noise, p = outcomes(kind, LOGITS[kind], samples)
    rows = LOGITS[kind].expand(len(p), *LOGITS[kind].shape).clone().requires_grad_()
    q = kind(rows, event_dims=1)
    value = pgest.expect(f, q, estimator, num_samples=samples, noise=noise)
    return torch.autograd.grad(value.sum(), rows)[0]


class Zero(nn.Module):
    """No control."""

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x


@pytest.mark.parametrize("kind", FLOATING)
@pytest.mark.parametrize("samples", [2, 3])
def test_without_control_they_are_rloo(kind: Kind, samples: int) -> None:
    expected = gradients("rloo", kind, samples)
    none: list[SlopeControl] = [DoubleCV(alpha=0.0)]
    if kind is pgest.Bernoulli:
        none += [Rodeo(alpha=0.0, beta=0.0), Rodeo(Zero())]
    for estimator in none:
        found = gradients(estimator, kind, samples)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", FLOATING)
@pytest.mark.parametrize(
    ("estimator", "samples"), [(MuProp(), 1), (DoubleCV(), 2), (DoubleCV(), 3)]
)
def test_linear_costs_are_exact(kind: Kind, estimator: SlopeControl, samples: int) -> None:
    found = moments(kind, LOGITS[kind], linear, estimator, samples)
    assert_unbiased(found, *exact_gradient(kind, LOGITS[kind], linear))
    assert found.variance.max() < 1e-28


@pytest.mark.parametrize(("bits", "samples"), [(1, 2), (2, 2), (3, 2), (2, 3)])
def test_stein_operators_have_the_closed_form(bits: int, samples: int) -> None:
    """For linear f: g^2 p q (1 - 2 p)^2 / (4 S) a bit, whatever the number of bits."""
    logits, slope = BITS[:bits], C[:bits]
    found = moments(pgest.Bernoulli, logits, lambda z: z @ slope, Rodeo(), samples)
    p = logits.sigmoid()
    expected = slope**2 * p * (1 - p) * (1 - 2 * p) ** 2 / (4 * samples)
    torch.testing.assert_close(found.variance, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.mean, slope * p * (1 - p), rtol=0, atol=1e-12)


def test_muprop_has_the_closed_form() -> None:
    """Of one bit: the weights are those of REINFORCE for f minus its tangent."""
    logit = torch.tensor([0.8], dtype=F64)
    p, t = float(logit.sigmoid()), 0.45
    q, slope = 1 - p, 2 * (p - t)
    f0, f1 = ((z - t) ** 2 - (p - t) ** 2 - slope * (z - p) for z in (0.0, 1.0))
    found = moments(pgest.Bernoulli, logit, lambda z: ((z - t) ** 2).sum(-1), MuProp())
    mean = p * q * ((1 - t) ** 2 - t**2)
    square = q * (-p * f0) ** 2 + p * (q * f1) ** 2 - (mean - slope * p * q) ** 2
    assert float(found.mean) == pytest.approx(mean, abs=1e-12)
    assert float(found.variance) == pytest.approx(square, abs=1e-12)


@pytest.mark.parametrize("net", [None, control()])
def test_stein_operators_are_those_of_all_neighbours(net: nn.Module | None) -> None:
    """Against the definition, which makes every neighbour of every sample."""
    estimator = Rodeo(net, alpha=0.75, beta=0.25)
    noise = torch.rand(3, 5, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    logits = torch.randn(5, 3, dtype=F64, requires_grad=True)
    q = pgest.Bernoulli(logits, event_dims=1)
    value = pgest.expect(interacting, q, estimator, num_samples=3, noise=noise)
    (found,) = torch.autograd.grad(value.sum(), logits)

    z, p = q.sample((3,), noise=noise), logits.detach().sigmoid()
    leaf = z.clone().requires_grad_()
    cost = interacting(leaf)
    (slope,) = torch.autograd.grad(cost.sum(), leaf)
    cost = cost.detach()

    def h(y: Tensor, s: int) -> Tensor:
        others = [r for r in range(3) if r != s]
        tangent = ((y - p) * slope[others].mean(0)).sum(-1)
        if net is None:
            return torch.stack([tangent, tangent], -1)
        known = cost[others].mean(0).expand(tangent.shape)
        return net(torch.stack([tangent, known], -1)).detach()

    stein, stein_score = torch.zeros(3, 5, dtype=F64), torch.zeros(3, 5, 3, dtype=F64)
    for s in range(3):
        here = h(z[s], s)
        for i in range(3):
            flipped = z[s].clone()
            flipped[:, i] = 1 - flipped[:, i]
            changes = torch.where(z[s, :, i] > 0, 1 - p[:, i], p[:, i])
            there = h(flipped, s)
            stein[s] += changes * (there - here)[:, 0]
            difference = there[:, 1:] * (flipped - p) - here[:, 1:] * (z[s] - p)
            stein_score[s] += changes[:, None] * difference
    controlled = cost + 0.75 * stein
    weight = cost - (controlled.sum(0) - controlled) / 2
    expected = (weight[..., None] * (z - p) + 0.25 * stein_score).mean(0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", [Rodeo(control(), 0.7, 0.3), Rodeo(control(1))])
@pytest.mark.parametrize("samples", [2, 3])
def test_any_control_is_unbiased(estimator: Rodeo, samples: int) -> None:
    found = moments(pgest.Bernoulli, BITS, interacting, estimator, samples)
    assert_unbiased(found, *exact_gradient(pgest.Bernoulli, BITS, interacting))


EVEN = torch.zeros(2, dtype=F64)  # all outcomes are equally probable


def cubic(z: Tensor) -> Tensor:
    return (z[..., 0] - 2 * z[..., 1] + 0.3) ** 3 + z[..., 1]


@pytest.mark.parametrize("make", [lambda a: DoubleCV(alpha=a), lambda a: Rodeo(control(), a, 0.4)])
def test_fit_loss_is_the_second_moment(make: Any) -> None:
    """Of equally probable rows: their mean is the variance plus the square of the mean.

    A quadratic in alpha, so that a central difference is its slope.
    """
    noise, p = outcomes(pgest.Bernoulli, EVEN, 2)
    found = []
    for alpha in (0.5, 0.75, 0.25):
        estimator = make(alpha).double()
        rows = EVEN.expand(len(p), 2).clone().requires_grad_()
        q = pgest.Bernoulli(rows, event_dims=1)
        pgest.expect(cubic, q, estimator, num_samples=2, noise=noise)
        at = moments(pgest.Bernoulli, EVEN, cubic, estimator, 2)
        exact = (at.variance + at.mean**2).sum().detach()
        found.append(exact)
        if alpha == 0.5:
            pgest.expect(cubic, q, estimator, num_samples=2, noise=noise)
            assert float(estimator.fit_loss.detach()) / len(p) == pytest.approx(
                float(exact), rel=1e-6
            )
            estimator.fit_loss.backward()
            slope = float(estimator.alpha.grad) / len(p)
    assert slope == pytest.approx(2 * float(found[1] - found[2]), rel=1e-6)


@pytest.mark.parametrize("make", [DoubleCV, lambda: Rodeo(control())])
def test_what_learns_lowers_the_variance(make: Any) -> None:
    """By its own loss alone, from a start where the control does harm."""
    torch.manual_seed(0)
    estimator = make()
    logits = torch.tensor([1.0, -0.6, 0.2], dtype=F64)

    def f(z: Tensor) -> Tensor:
        return ((z - 0.45) ** 2).sum(-1)

    def spread() -> float:
        at = moments(pgest.Bernoulli, logits, f, estimator.eval(), 2)
        estimator.train()
        return float(at.variance.sum())

    before, optimizer = spread(), torch.optim.Adam(estimator.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        rows = logits.expand(200, 3).clone().requires_grad_()
        q = pgest.Bernoulli(rows, event_dims=1)
        pgest.expect(f, q, estimator, num_samples=2, generator=generator)
        optimizer.zero_grad()
        estimator.fit_loss.backward()
        optimizer.step()
    assert spread() < 0.5 * before


@pytest.mark.parametrize("make", [DoubleCV, lambda: Rodeo(control().float())])
def test_fit_loss_touches_only_the_estimator(make: Any) -> None:
    estimator, model, decoder = make(), nn.Linear(2, 3), nn.Linear(3, 1)
    q = pgest.Bernoulli(model(torch.ones(5, 2)), event_dims=1)
    value = pgest.expect(lambda z: decoder(z)[..., 0].tanh(), q, estimator, num_samples=4)
    value.sum().backward(retain_graph=True)
    assert all(p.grad is None for p in estimator.parameters())
    others = [*model.parameters(), *decoder.parameters()]
    kept = [copy.deepcopy(p.grad) for p in others]
    estimator.fit_loss.backward()
    assert all(p.grad is not None for p in estimator.parameters())
    after = [p.grad for p in others]
    torch.testing.assert_close(after, kept, rtol=0, atol=0)


def test_what_does_not_learn_sets_no_loss() -> None:
    bits = pgest.Bernoulli(torch.zeros(4, 3, requires_grad=True), event_dims=1)
    for estimator in (DoubleCV(learn=False), DoubleCV().eval(), Rodeo(learn=False), MuProp()):
        pgest.expect(lambda z: z.sum(-1) ** 2, bits, estimator, num_samples=2)
        assert estimator.fit_loss is None
    assert [*DoubleCV(learn=False).parameters(), *MuProp().parameters()] == []
    learned = DoubleCV()
    with torch.no_grad():
        value = pgest.expect(lambda z: z.sum(-1) ** 2, bits, learned, num_samples=2)
    assert value.isfinite().all()
    assert learned.fit_loss is None


class TangentWithItself(DoubleCV):
    """The slope of the sample itself, whose tangent has no known gradient."""

    def coefficients(self, cost: Tensor, z: Tensor, slope: Tensor, distribution: Any) -> Any:
        centred = z - distribution.mean.detach()
        tangent = (slope * centred).flatten(2).sum(-1)
        return leave_one_out(cost - tangent), slope.mean(0)


class NoTerm(DoubleCV):
    """Without the gradient of what was taken off."""

    def coefficients(self, cost: Tensor, z: Tensor, slope: Tensor, distribution: Any) -> Any:
        weight, extra = super().coefficients(cost, z, slope, distribution)
        return weight, 0 * extra


class WrongFlip(Rodeo):
    """Bits that change with the probability of staying as they are."""

    def coefficients(self, cost: Tensor, z: Tensor, slope: Tensor, distribution: Any) -> Any:
        mirrored = pgest.Bernoulli(-distribution.logits, event_dims=1)
        mirrored.__dict__["logits"] = -distribution.logits
        return super().coefficients(cost, z, slope, mirrored)


@pytest.mark.parametrize("wrong", [TangentWithItself(), NoTerm(), WrongFlip()])
def test_the_harness_catches_wrong_ones(wrong: SlopeControl) -> None:
    def f(z: Tensor) -> Tensor:
        return (linear(z) - 0.6) ** 3

    found = moments(pgest.Bernoulli, BITS, f, wrong, 2)
    with pytest.raises(AssertionError, match="biased by"):
        assert_unbiased(found, *exact_gradient(pgest.Bernoulli, BITS, f))


@pytest.mark.parametrize("name", ["muprop", "double_cv", "rodeo"])
def test_a_black_box_is_refused(name: str) -> None:
    bits = pgest.Bernoulli(torch.zeros(5, 3, requires_grad=True), event_dims=1)
    message = f"^{name} needs a cost that is differentiable in the sample"
    with pytest.raises(ValueError, match=message):
        pgest.expect(lambda z: (z.sum(-1) > 1).float(), bits, name, num_samples=2)
    with pytest.raises(TypeError, match=f"^{name} takes Bernoulli"):
        pgest.expect(lambda z: z.float(), pgest.Categorical(torch.zeros(3)), name, num_samples=2)


@pytest.mark.parametrize("kind", FLOATING)
@pytest.mark.parametrize("name", ["muprop", "double_cv", "rodeo"])
def test_infinite_logits_have_gradient_0(kind: Kind, name: str) -> None:
    if name == "rodeo" and kind is not pgest.Bernoulli:
        return
    logits = LOGITS[kind].clone()
    logits.view(-1)[0] = -torch.inf
    rows = logits.expand(20, *logits.shape).clone().requires_grad_()
    value = pgest.expect(linear, kind(rows, event_dims=1), name, num_samples=3)
    (gradient,) = torch.autograd.grad(value.sum(), rows)
    assert gradient.isfinite().all()
    assert gradient.flatten(1)[:, 0].abs().max() == 0
    assert gradient.abs().max() > 0
