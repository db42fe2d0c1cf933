"""What REBAR and RELAX learn: the second moment, its gradient, and nothing of others."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from test_relaxed_control import F64, Sum, Surrogate, f
from torch import Tensor, nn

import pgest
from pgest.comparison.outcomes import Kind
from pgest.estimators import Rebar, Relax


def rebar(log_t: float, scale: float) -> Rebar:
    estimator = Rebar().double()
    estimator.scale.data.fill_(scale)
    estimator.log_temperature.data.fill_(log_t)
    return estimator


@pytest.mark.parametrize("kind", [pgest.Bernoulli, pgest.OneHotCategorical])
def test_fit_loss_is_the_second_moment_with_its_gradient(kind: Kind) -> None:
    torch.manual_seed(0)
    rows = torch.randn(40, 3, dtype=F64).requires_grad_()
    noise = torch.rand(2, 2, 40, 3, dtype=F64)
    q = kind(rows, event_dims=int(kind is pgest.Bernoulli))

    def square(log_t: float, scale: float) -> Tensor:
        value = pgest.expect(f, q, rebar(log_t, scale).eval(), num_samples=2, noise=noise)
        return torch.autograd.grad(value.sum(), rows)[0].square().sum()

    at, h = (-0.5, 0.8), 1e-5
    estimator = rebar(*at)
    pgest.expect(f, q, estimator, num_samples=2, noise=noise)
    assert estimator.fit_loss is not None
    torch.testing.assert_close(estimator.fit_loss.detach(), square(*at))
    estimator.fit_loss.backward()
    by_t = (square(at[0] + h, at[1]) - square(at[0] - h, at[1])) / (2 * h)
    by_scale = (square(at[0], at[1] + h) - square(at[0], at[1] - h)) / (2 * h)
    found = [estimator.log_temperature.grad, estimator.scale.grad]
    torch.testing.assert_close(found, [by_t, by_scale], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [pgest.Bernoulli, pgest.OneHotCategorical])
def test_fit_loss_of_a_surrogate_is_the_second_moment_with_its_gradient(kind: Kind) -> None:
    torch.manual_seed(0)
    rows = torch.randn(40, 3, dtype=F64).requires_grad_()
    noise = torch.rand(2, 2, 40, 3, dtype=F64)
    q = kind(rows, event_dims=int(kind is pgest.Bernoulli))
    estimator = Relax(Surrogate(3)).double()
    pgest.expect(f, q, estimator, num_samples=2, noise=noise)
    assert estimator.fit_loss is not None

    def square() -> Tensor:
        value = pgest.expect(f, q, estimator.eval(), num_samples=2, noise=noise)
        return torch.autograd.grad(value.sum(), rows)[0].square().sum()

    torch.testing.assert_close(estimator.fit_loss.detach(), square())
    estimator.fit_loss.backward()
    for parameter in estimator.parameters():
        x = parameter.data.view(-1)
        for i in range(len(x)):
            before = float(x[i])
            x[i] = before + 1e-5
            up = square()
            x[i] = before - 1e-5
            down = square()
            x[i] = before
            assert parameter.grad is not None
            found = float(parameter.grad.view(-1)[i])
            assert found == pytest.approx(float(up - down) / 2e-5, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("make", [Rebar, lambda: Relax(Surrogate(3).float())])
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


@pytest.mark.parametrize("make", [Rebar, lambda: Relax(Surrogate(3).float())])
def test_f_learns_from_the_samples_alone(make: Any) -> None:
    net = nn.Linear(3, 1)
    seen: list[Tensor] = []

    def cost(z: Tensor) -> Tensor:
        seen.append(z.detach())
        return net(z)[..., 0].tanh()

    bits = pgest.Bernoulli(torch.zeros(5, 3, requires_grad=True), event_dims=1)
    value = pgest.expect(cost, bits, make(), num_samples=4).sum()
    found = torch.autograd.grad(value, list(net.parameters()))
    expected = torch.autograd.grad(net(seen[0][:4])[..., 0].tanh().sum() / 4, [*net.parameters()])
    torch.testing.assert_close(found, expected)
    assert len(seen) == 1


@pytest.mark.parametrize("make", [Rebar, lambda: Relax(nn.Sequential(nn.Flatten(2), Sum(3)))])
def test_learning_lowers_the_variance(make: Any) -> None:
    torch.manual_seed(0)
    estimator, generator = make(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(estimator.parameters(), lr=0.03)

    def cost(z: Tensor) -> Tensor:
        return ((z - torch.tensor([0.6, 0.51, 0.48])) ** 2).sum(-1)

    moments = []
    for _ in range(150):
        rows = torch.zeros(500, 3, requires_grad=True)
        pgest.expect(cost, pgest.Bernoulli(rows, event_dims=1), estimator, generator=generator)
        moments.append(float(estimator.fit_loss.detach()))
        optimizer.zero_grad()
        estimator.fit_loss.backward()
        optimizer.step()
    first, last = (sum(x) / len(x) for x in (moments[:5], moments[-20:]))
    assert last < (0.9 if isinstance(estimator, Rebar) else 0.5) * first
