"""DiCE: derivatives of any order, by enumerating all samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from enumeration import exact_gradient, moments
from test_estimators import LOGITS, interacting
from torch import Tensor

import pgest
from pgest.comparison.outcomes import Kind, outcomes
from pgest.estimators import DiCE

F64 = torch.float64
SMALL = {kind: x[:2] if kind is pgest.Bernoulli else x for kind, x in LOGITS.items()}


def cost(z: Tensor, q: Any) -> Tensor:
    """It uses the distribution too: mixed derivatives."""
    x = z.double().flatten(2)
    plain = (x.sum(-1) - 0.4) ** 3 + x[..., 0] * x[..., 1]
    return plain * (1 + q.logits.flatten(1).sum(-1) ** 2) + q.log_prob(z)


def derivatives(value: Tensor, logits: Tensor, order: int) -> list[Tensor]:
    """All derivatives up to an order of a value [rows], for each row by its own logits."""
    rows, found = len(value), [value]
    for _ in range(order):
        last = found[-1].reshape(rows, -1)
        columns = [
            torch.autograd.grad(x.sum(), logits, create_graph=True)[0].reshape(rows, -1)
            for x in last.unbind(1)
        ]
        found.append(torch.stack(columns, 1))
    return [x.detach().reshape(rows, -1) for x in found]


def estimated(kind: Kind, samples: int, order: int, estimator: Any = "dice") -> list[Tensor]:
    logits = SMALL[kind]
    noise, p = outcomes(kind, logits, samples)
    rows = logits.expand(len(p), *logits.shape).clone().requires_grad_()
    q = kind(rows, event_dims=1)
    value = pgest.expect(lambda z: cost(z, q), q, estimator, num_samples=samples, noise=noise)
    return [p @ x for x in derivatives(value, rows, order)]


def truth(kind: Kind, order: int) -> list[Tensor]:
    rows = SMALL[kind][None].clone().requires_grad_()
    q = kind(rows, event_dims=1)
    return [x[0] for x in derivatives(pgest.expect(lambda z: cost(z, q), q, "exact"), rows, order)]


@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize("samples", [1, 2])
def test_second_derivatives_are_unbiased(kind: Kind, samples: int) -> None:
    for found, expected in zip(estimated(kind, samples, 2), truth(kind, 2), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("samples", [1, 2])
def test_third_derivatives_of_bits_are_unbiased(samples: int) -> None:
    found = estimated(pgest.Bernoulli, samples, 3)[3]
    torch.testing.assert_close(found, truth(pgest.Bernoulli, 3)[3], rtol=0, atol=1e-10)


class Surrogate(DiCE):
    """A weight times log p, whose second derivative estimates nothing."""

    def estimate(self, f: Any, distribution: Any, num_samples: int, g: Any, noise: Any) -> Tensor:
        z = distribution.sample((num_samples,), noise=noise)
        known, score = f(z), distribution.score(z)
        return (known + known.detach() * (score - score.detach())).mean(0)


def test_the_harness_sees_a_wrong_second_derivative() -> None:
    found = estimated(pgest.Bernoulli, 1, 2, Surrogate())
    expected = truth(pgest.Bernoulli, 2)
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-10)
    assert (found[2] - expected[2]).abs().max() > 1e-2


@pytest.mark.parametrize("kind", LOGITS)
def test_the_first_derivative_is_that_of_rloo(kind: Kind) -> None:
    logits = LOGITS[kind]
    dice, rloo = (moments(kind, logits, interacting, name, 2) for name in ("dice", "rloo"))
    torch.testing.assert_close(dice.mean, exact_gradient(kind, logits, interacting)[1])
    torch.testing.assert_close(dice.variance, rloo.variance, rtol=0, atol=1e-12)


def test_a_hessian_by_transforms() -> None:
    logits, noise = LOGITS[pgest.Bernoulli], torch.rand(4, 3, dtype=F64)

    def value(x: Tensor) -> Tensor:
        q = pgest.Bernoulli(x, event_dims=1)
        return pgest.expect(interacting_row, q, "dice", num_samples=4, noise=noise)

    def interacting_row(z: Tensor) -> Tensor:
        return interacting(z[:, None])[:, 0]

    found = torch.func.hessian(value)(logits)
    expected = torch.autograd.functional.hessian(value, logits.clone())
    torch.testing.assert_close(found, expected)
    assert found.abs().max() > 0.01
