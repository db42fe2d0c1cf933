"""The Gumbel family and gates: expectations over their continuous noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from enumeration import exact_gradient, moments
from quadrature import halves, nodes, of_bits_and_uniforms, of_uniforms
from test_estimators import ROWS
from test_expect import uniforms
from test_straight_through_family import KINDS, passed, random_case
from torch import Tensor

import pgest
from pgest.comparison.outcomes import Kind
from pgest.estimators import DecoupledSTGumbel, GumbelRao, ReinMax, STGumbel, registry

PAIR = torch.tensor([0.3, -1.1], dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_gumbel_rao_is_st_gumbel_in_expectation(temperature: float) -> None:
    def f(z: Tensor) -> Tensor:
        return (z @ torch.tensor([1.0, -0.6], dtype=torch.float64) + z.prod(-1)) ** 3

    st = of_uniforms(PAIR, f, STGumbel(temperature), halves(PAIR))
    one = of_bits_and_uniforms(PAIR, f, GumbelRao(temperature, draws=1))
    for found in (one.mean - st.mean, one.variance - st.variance, one.value - st.value):
        assert found.abs().max() < 1e-10
    value, gradient = exact_gradient(pgest.Bernoulli, PAIR, f)
    assert (st.value - value).abs() < 1e-10
    assert ((st.mean - gradient) / gradient).abs().max() > 0.05


def test_more_draws_have_less_variance() -> None:
    logits = torch.tensor([[0.3, -0.8, 0.5]] * 20_000, requires_grad=True)
    q = pgest.OneHotCategorical(logits)
    spread = []
    for draws in (1, 4, 64):
        g = torch.Generator().manual_seed(0)
        cost = pgest.expect(lambda z: (z[..., 0] - 0.3) ** 2, q, GumbelRao(0.5, draws), generator=g)
        spread.append(torch.autograd.grad(cost.sum(), logits)[0].var(0).sum())
    assert spread[0] > 1.2 * spread[1] > 1.2 * spread[2]


def test_the_bias_of_st_gumbel_and_gumbel_softmax_is_the_known_one() -> None:
    """E[sigmoid(z + logistic)] = x (x - 1 - log x) / (x - 1)^2 with x = exp(z)."""
    logit = torch.tensor([0.8], dtype=torch.float64, requires_grad=True)
    x = logit.exp()
    mean = (x * (x - 1 - logit) / (x - 1) ** 2).sum()
    (slope,) = torch.autograd.grad(mean, logit)
    f: Callable[[Tensor], Tensor] = lambda z: z.sum(-1)  # noqa: E731
    leaf = logit.detach()
    soft = of_uniforms(leaf, f, "gumbel_softmax", torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    hard = of_uniforms(leaf, f, "st_gumbel", halves(leaf))
    rao = of_bits_and_uniforms(leaf, f, GumbelRao(draws=1))
    for found in (soft, hard, rao):
        torch.testing.assert_close(found.mean, slope, rtol=0, atol=1e-10)
    assert (soft.value - mean).abs() < 1e-10
    assert (hard.value - leaf.sigmoid()).abs() < 1e-10
    assert float(slope) < 0.8 * float(leaf.sigmoid() * (1 - leaf.sigmoid()))


def test_gumbel_rao_goes_to_reinmax() -> None:
    """As T -> 0 the gap falls in proportion to T, and vanishes where that is taken away."""
    f: Callable[[Tensor], Tensor] = lambda z: (z + 0.3).pow(3).sum(-1)  # noqa: E731
    limit = moments(pgest.Bernoulli, PAIR[:1], f, "reinmax").mean
    gaps = [
        of_bits_and_uniforms(PAIR[:1], f, GumbelRao(t, draws=1), n=200).mean - limit
        for t in (0.02, 0.01)
    ]
    assert 1e-5 < gaps[1].abs() < 0.6 * gaps[0].abs()
    assert (2 * gaps[1] - gaps[0]).abs() < 0.15 * gaps[1].abs()
    logits, g = random_case((3, 5))
    q = pgest.OneHotCategorical(logits)
    x = q.sample(noise=uniforms(3))
    limit = passed(q, ReinMax(), x, g)
    relative = []
    for t in (1.0, 0.3, 0.1):
        noise = torch.rand(20_000, 3, 5, generator=torch.Generator().manual_seed(0))
        soft = q.soften(q.perturbed_given(x, noise), t).mean(0)
        (found,) = torch.autograd.grad((soft * g).sum(), logits)
        relative.append(float((found - limit).norm() / limit.norm()))
    assert relative[0] > 1.7 * relative[1] > 1.7 * relative[2]
    assert relative[2] < 0.12


def test_the_noise_given_a_token_is_gumbel_s() -> None:
    """In uniforms it is u_y^p_j at y, and u_y^p_j u_j elsewhere: independent and uniform again."""
    q = pgest.OneHotCategorical(ROWS[0])
    x, w = nodes(60)
    grid = torch.cartesian_prod(x, x, x)
    weight = torch.cartesian_prod(w, w, w).prod(-1)
    total, both = torch.zeros(3).double(), torch.zeros(3, 3).double()
    for y, p in enumerate(q.probs):
        token = torch.eye(3, dtype=torch.float64)[y].expand(len(grid), 3)
        moved = q.perturbed_given(token, grid)
        assert torch.equal(moved.argmax(-1), torch.full((len(grid),), y))
        u = (-(q.probs.log() - moved).exp()).exp()
        shared = grid[:, y : y + 1] ** q.probs
        expected = torch.where(token == 1, shared, shared * grid)
        torch.testing.assert_close(u, expected, rtol=0, atol=1e-12)
        total += p * (weight[:, None] * u).sum(0)
        both += p * torch.einsum("n,ni,nj->ij", weight, u, u)
    torch.testing.assert_close(total, torch.full((3,), 0.5).double(), rtol=0, atol=1e-5)
    moment = torch.full((3, 3), 1 / 4).double() + torch.eye(3).double() / 12
    torch.testing.assert_close(both, moment, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gumbel_rao_of_one_draw_is_st_gumbel_with_its_noise(kind: Kind) -> None:
    """The uniforms that the conditional noise stands for give st_gumbel's sample and gradient."""
    logits, g = random_case((50, 4))
    q: Any = kind(logits)
    v = uniforms(1, *(logits.shape if kind is pgest.Bernoulli else (50, 4))).double()
    first = uniforms(1, 50, 4)[..., : 4 if kind is pgest.Bernoulli else 1].double()
    first = first if kind is pgest.Bernoulli else first[..., 0]
    sample = q.sample((1,), noise=first)
    moved = q.perturbed_given(sample, v)
    if kind is pgest.Bernoulli:
        u = (logits.detach() - moved).sigmoid()
        noise = torch.stack([first, v], -1)
    else:
        u = (-(logits.detach().log_softmax(-1) - moved).exp()).exp()
        noise = torch.cat([first[..., None], v], -1)

    def run(estimator: Any, noise: Tensor) -> list[Tensor]:
        def cost(z: Tensor) -> Tensor:
            return (z * g + z**3) if kind is pgest.Bernoulli else (z * g + z**3).sum(-1)

        value = pgest.expect(cost, q, estimator, noise=noise)
        return [value.detach(), torch.autograd.grad(value.sum(), logits)[0]]

    found, expected = run(GumbelRao(0.7, draws=1), noise), run(STGumbel(0.7), u)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_decoupled_temperatures_are_the_paper_s(kind: Kind) -> None:
    logits, g = random_case((50, 4))
    noise = uniforms(1, 50, 4).double()

    def gradient(estimator: Any) -> tuple[Tensor, Tensor]:
        z = estimator.relax(kind(logits), (1,), None, noise)
        return z.detach(), torch.autograd.grad((z * g).sum(), logits)[0]

    for found, expected in zip(
        gradient(DecoupledSTGumbel(1, 1)), gradient(STGumbel()), strict=True
    ):
        assert torch.equal(found, expected)
    hard, found = gradient(DecoupledSTGumbel(0.5, 3.0))
    if kind is pgest.Bernoulli:
        assert torch.equal(hard, pgest.Bernoulli(logits / 0.5).sample((1,), noise=noise))
        soft = (logits / 3 - noise.logit()).sigmoid()
    else:
        gumbel = -(-noise.log()).log()
        assert torch.equal(hard.argmax(-1), (logits / 0.5 + gumbel).argmax(-1))
        soft = (logits / 3 + gumbel).softmax(-1)
    (expected,) = torch.autograd.grad((soft * g).sum(), logits)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_value_of_decoupled_ones_is_the_tempered_distribution_s() -> None:
    for forward in (1.0, 0.5):
        f: Callable[[Tensor], Tensor] = lambda z: (z.sum(-1) - 0.4) ** 3  # noqa: E731
        edges = halves(PAIR / forward)
        found = of_uniforms(PAIR, f, DecoupledSTGumbel(forward, 1.0), edges)
        value, gradient = exact_gradient(pgest.Bernoulli, PAIR / forward, f)
        assert (found.value - value).abs() < 1e-10
        assert (found.mean - gradient / forward).abs().max() > 1e-3


def gate_edges(logits: Tensor, estimator: Any) -> Tensor:
    """Where a uniform's gate leaves 1 and where it reaches 0, [D, 4]."""
    span = estimator.high - estimator.low
    ends = logits.new_tensor([(1 - estimator.low) / span, -estimator.low / span])
    u = (logits[:, None] - estimator.temperature * ends.logit()).sigmoid()
    return torch.cat([torch.zeros_like(u[:, :1]), u, torch.ones_like(u[:, :1])], 1)


def test_hard_concrete_is_the_gradient_of_its_own_cost() -> None:
    """Where it is cut off moves with the logits, but it is continuous there: that adds nothing."""
    estimator = pgest.estimators.HardConcrete(temperature=0.5)

    def f(z: Tensor) -> Tensor:
        return (z @ torch.tensor([1.0, -0.6], dtype=torch.float64) + z.prod(-1)) ** 2

    found = of_uniforms(PAIR, f, estimator, gate_edges(PAIR, estimator))
    h = 1e-3
    for i in range(2):
        steps = [PAIR + n * h * torch.eye(2, dtype=PAIR.dtype)[i] for n in (-2, -1, 1, 2)]
        v = [of_uniforms(x, f, estimator, gate_edges(x, estimator)).value for x in steps]
        slope = (8 * (v[2] - v[1]) - (v[3] - v[0])) / (12 * h)
        assert (found.mean[i] - slope).abs() < 1e-10
    value, gradient = exact_gradient(pgest.Bernoulli, PAIR, f)
    assert (found.value - value).abs() > 1e-2
    assert (found.mean - gradient).abs().max() > 1e-2


def test_the_expected_number_of_open_gates() -> None:
    gates = pgest.Bernoulli(torch.tensor([[0.3, -1.1], [2.0, -torch.inf]]), event_dims=1)
    estimator = registry["hard_concrete"]
    assert isinstance(estimator, pgest.estimators.HardConcrete)
    found = estimator.expected_l0(gates)
    expected = gate_edges(gates.logits.double().flatten(), estimator)[:, 2].view(2, 2).sum(-1)
    torch.testing.assert_close(found, expected.float())
    z = estimator.draw(gates, (100_000,), torch.Generator().manual_seed(0), None)
    torch.testing.assert_close((z > 0).float().sum(-1).mean(0), found, rtol=0, atol=0.01)
    assert 0.05 < (z == 1).float().mean() < 0.5
    with pytest.raises(TypeError, match=r"^hard_concrete takes Bernoulli, got OneHotCategorical$"):
        estimator.expected_l0(pgest.OneHotCategorical(torch.zeros(3)))


def test_the_noise_of_gumbel_rao_has_its_own_shape() -> None:
    q = pgest.OneHotCategorical(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"^noise must have shape \(2, 4, 31\), got \(2, 4, 3\)$"):
        pgest.expect(lambda z: z.sum(-1), q, "gumbel_rao", num_samples=2, noise=uniforms(2, 4, 3))
