"""Baselines: unbiased while they learn, of the right shape, and out of the model's way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from enumeration import assert_unbiased, exact_gradient, moments, weigh
from test_estimators import LOGITS, interacting, warm
from test_expect import bits, uniforms
from test_trace import exact, trace_moments
from torch import Tensor, nn

import pgest
from pgest.comparison.outcomes import Kind, outcomes
from pgest.estimators import NVIL, Constant

F64 = torch.float64


class Scaled(nn.Module):
    """One number for each element: a factor that is learned, times the first of its features."""

    def __init__(self, factor: float = 0.7) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x[..., 0]


def features(rows: int) -> Tensor:
    return torch.stack([torch.linspace(-2, 3, rows), torch.ones(rows)], -1).double()


def nvil_moments(nvil: NVIL, kind: Kind, samples: int, scale: float = 1.0) -> Any:
    """The moments of an estimate whose rows, the outcomes, have the same input."""
    logits = LOGITS[kind]
    noise, p = outcomes(kind, logits, samples)
    rows = logits.expand(len(p), *logits.shape).clone().requires_grad_()
    given = nvil.given(torch.full((len(p), 2), 1.3, dtype=F64))
    q = kind(rows, event_dims=1)
    value = pgest.expect(
        lambda z: scale * interacting(z), q, given, num_samples=samples, noise=noise
    )
    return weigh(p, torch.autograd.grad(value.sum(), rows)[0], value.detach())


@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize("samples", [1, 2])
def test_nvil_is_unbiased_while_it_learns(kind: Kind, samples: int) -> None:
    """At each step, given what it has seen before; its network moves in between."""
    net, seen = Scaled(), []
    nvil = NVIL(net, decay=0.5)
    for scale in (1.0, -3.0, 10.0):
        seen.append((float(nvil.mean.baseline), float(net.factor.detach())))
        found = nvil_moments(nvil, kind, samples, scale)
        truth = exact_gradient(kind, LOGITS[kind], lambda z, s=scale: s * interacting(z))
        assert_unbiased(found, *truth)
        assert nvil.fit_loss is not None
        (slope,) = torch.autograd.grad(nvil.fit_loss, net.factor)
        with torch.no_grad():
            net.factor.sub_(0.1 * slope)
    assert len(set(seen)) == 3


@pytest.mark.parametrize("kind", LOGITS)
def test_a_normalised_nvil_is_the_gradient_over_the_deviation(kind: Kind) -> None:
    nvil = NVIL(Scaled(), decay=0.5, normalise=True)
    assert not nvil.traits.unbiased
    assert not nvil.given(0).traits.unbiased
    nvil_moments(nvil, kind, 1, scale=50.0)
    deviation = nvil.square.baseline.sqrt()
    assert deviation > 2
    value, gradient = exact_gradient(kind, LOGITS[kind], interacting)
    found = nvil_moments(nvil.eval(), kind, 1)
    torch.testing.assert_close(found.mean * deviation, gradient, rtol=1e-6, atol=1e-9)
    with pytest.raises(AssertionError, match="biased by"):
        assert_unbiased(found, value, gradient)


def test_a_small_signal_is_not_made_larger() -> None:
    nvil = NVIL(Scaled(0.0), normalise=True)
    cost = torch.full((2, 3), 0.01, dtype=F64)
    nvil.weight_given(cost, features(3))
    torch.testing.assert_close(nvil.weight_given(cost, features(3)), 0 * cost, atol=1e-8, rtol=0)


def test_nvil_learns_what_depends_on_the_input() -> None:
    """The cost of an element is 3 x: the network finds it, and the estimate stops to scatter."""
    net, x = Scaled(0.0), features(64)
    nvil = NVIL(net, decay=0.9)
    optimizer = torch.optim.SGD(nvil.parameters(), lr=0.05)
    logits = torch.zeros(64, 2, dtype=F64, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    spread = []
    for _ in range(200):
        q = pgest.Bernoulli(logits, event_dims=1)
        value = pgest.expect(
            lambda z: 3 * x[:, 0] + 0 * z[..., 0], q, nvil.given(x), generator=generator
        )
        spread.append(float(torch.autograd.grad(value.sum(), logits)[0].square().mean()))
        optimizer.zero_grad()
        assert nvil.fit_loss is not None
        nvil.fit_loss.backward()
        optimizer.step()
    assert float(net.factor.detach()) == pytest.approx(3, abs=0.01)
    assert spread[-1] < 1e-4 * spread[0]


@pytest.mark.parametrize("through_a_trace", [False, True])
def test_fit_loss_touches_only_the_network(through_a_trace: bool) -> None:
    nvil = NVIL(nn.Sequential(nn.Linear(2, 1), nn.Flatten(-2)))
    model, decoder, x = nn.Linear(2, 3), nn.Linear(3, 1), torch.ones(5, 2, requires_grad=True)
    if through_a_trace:
        trace = pgest.Trace(4)
        wide = trace.expand(x)
        z = trace.draw(pgest.Bernoulli(model(wide), event_dims=1), nvil.given(wide))
        trace.cost(decoder(z)[..., 0])
        value = trace.value()
    else:
        q = pgest.Bernoulli(model(x), event_dims=1)
        value = pgest.expect(lambda z: decoder(z)[..., 0], q, nvil.given(x), num_samples=4)
    others = [x, *model.parameters(), *decoder.parameters()]
    value.sum().backward(retain_graph=True)
    assert all(p.grad is None for p in nvil.parameters())
    assert all(p.grad is not None for p in others)
    for p in others:
        p.grad = None
    assert nvil.fit_loss is not None
    nvil.fit_loss.backward()
    assert all(p.grad is not None for p in nvil.parameters())
    assert all(p.grad is None for p in others)


def test_nvil_is_refused_by_name() -> None:
    nvil = NVIL(nn.Linear(2, 1))
    q, x = bits(5, 3, event_dims=1), torch.ones(5, 2)
    with pytest.raises(
        ValueError, match=r"^NVIL needs the input of its network: write nvil\.given"
    ):
        pgest.expect(lambda z: z.sum(-1), q, nvil)
    trace = pgest.Trace(2)
    wide = trace.expand(torch.zeros(5, 3))
    with pytest.raises(
        ValueError, match=r"^NVIL needs the input of its network: write nvil\.given"
    ):
        trace.draw(pgest.Bernoulli(wide, event_dims=1), nvil)
    message = (
        r"^what the net of NVIL returns must have shape \(5,\) or \(1, 5\), .* got \(5, 1\); drop"
    )
    with pytest.raises(ValueError, match=message):
        pgest.expect(lambda z: z.sum(-1), q, nvil.given(x))
    with pytest.raises(TypeError, match="net must return a tensor, got tuple"):
        pgest.expect(lambda z: z.sum(-1), q, NVIL(nn.GRU(2, 1)).given(x))
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1"):
        NVIL(nn.Linear(2, 1), decay=1)
    for name in ("nvil", "NVIL"):
        with pytest.raises(
            ValueError, match=r"pgest\.estimators\.NVIL\(net\) and pass nvil\.given"
        ):
            pgest.expect(lambda z: z, bits(3), name)
    trace.draw(pgest.Bernoulli(wide, event_dims=1), nvil.given(wide))
    with pytest.raises(ValueError, match="NVIL keeps state, and one instance serves one draw"):
        trace.draw(pgest.Bernoulli(wide, event_dims=1), nvil.given(wide))
    with pytest.raises(ValueError, match="NVIL keeps state"):
        torch.func.grad(lambda w: pgest.expect(lambda z: z, pgest.Bernoulli(w), nvil.given(x)))(x)


def test_a_frozen_nvil_learns_nothing_and_works_under_transforms() -> None:
    nvil = NVIL(Scaled()).eval()
    noise, x = uniforms(2, 4), features(4)

    def run(logits: Tensor) -> Tensor:
        q = pgest.Bernoulli(logits)
        return pgest.expect(lambda z: z, q, nvil.given(x), num_samples=2, noise=noise).sum()

    logits = torch.zeros(4, requires_grad=True)
    (expected,) = torch.autograd.grad(run(logits), logits)
    torch.testing.assert_close(torch.func.grad(run)(logits.detach()), expected)
    assert nvil.fit_loss is None
    assert nvil.mean.baseline == 0


def test_nvil_under_compile() -> None:
    nvils = [NVIL(Scaled(), normalise=True) for _ in range(2)]
    logits, noise, x = torch.randn(4, requires_grad=True), uniforms(2, 4), features(4)

    def run(logits: Tensor, nvil: NVIL) -> Tensor:
        q = pgest.Bernoulli(logits)
        return pgest.expect(lambda z: 9 * z, q, nvil.given(x), num_samples=2, noise=noise).sum()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        found, expected = compiled(logits, nvils[0]), run(logits, nvils[1])
        torch.testing.assert_close(
            torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits)
        )
        fits = [n.fit_loss for n in nvils]
        torch.testing.assert_close(fits[0], fits[1])
    torch.testing.assert_close(nvils[0].square.baseline, nvils[1].square.baseline)


def test_a_half_type_network_serves_any_costs() -> None:
    nvil = NVIL(nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))).to(torch.bfloat16)
    x = torch.ones(5, 2, dtype=torch.bfloat16)
    pgest.expect(lambda z: z.sum(-1), bits(5, 3, event_dims=1), nvil.given(x)).sum().backward()
    assert nvil.fit_loss is not None
    assert nvil.fit_loss.dtype == torch.float32
    assert nvil.mean.decayed_sum.dtype == torch.float32
    nvil.fit_loss.backward()


@pytest.mark.parametrize("baseline", ["number", "tensor", "nvil"])
def test_two_layers_are_unbiased(baseline: str) -> None:
    """Each in the first layer, with its own in the second."""
    learned = [NVIL(Scaled(), decay=0.5).given(x) for x in torch.tensor([[1.0], [-2.0]])]
    made: dict[str, tuple[Any, Any]] = {
        "number": (Constant(1.5), Constant(-2.0)),
        "tensor": (Constant(torch.tensor(0.7)), warm()),
        "nvil": (learned[0], learned[1]),
    }
    value, gradients = exact()
    for found, gradient in zip(trace_moments(made[baseline], 1), gradients, strict=True):
        assert_unbiased(found, value, gradient)


def test_a_constant_baseline_has_the_closed_form() -> None:
    """p q (q (f1 - c) + p (f0 - c))^2, which is 0 at the best one, q f1 + p f0."""
    p, f0, f1 = 0.75, 2.0, -1.0
    q = 1 - p
    logit = torch.tensor([p], dtype=F64).logit()
    for c in (0.0, 1.5, q * f1 + p * f0):
        for baseline in (c, torch.tensor(c, dtype=F64)):
            found = moments(
                pgest.Bernoulli, logit, lambda z: f0 + (f1 - f0) * z[..., 0], Constant(baseline)
            )
            assert float(found.mean) == pytest.approx(p * q * (f1 - f0), abs=1e-12)
            expected = p * q * (q * (f1 - c) + p * (f0 - c)) ** 2
            assert float(found.variance) == pytest.approx(expected, abs=1e-12)


def test_a_constant_baseline_is_checked() -> None:
    for wrong, came in ((True, "bool"), ("1", "str"), (torch.tensor(1), r"torch\.int64")):
        with pytest.raises(
            TypeError, match=f"baseline must be a number or a .* tensor, got {came}"
        ):
            Constant(wrong)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"^baseline must have shape \(3,\) or \(1, 3\), .*got \(3, 1\)"
    ):
        pgest.expect(lambda z: z, bits(3), Constant(torch.zeros(3, 1)))
    with pytest.raises(ValueError, match=r"got 'constant': give it the number, .*Constant\(1\.5\)"):
        pgest.expect(lambda z: z, bits(3), "constant")
    learned = torch.zeros(3, requires_grad=True)
    value = pgest.expect(lambda z: z, bits(3), Constant(learned)).sum()
    assert torch.autograd.grad(value, learned, allow_unused=True)[0] is None


@pytest.mark.parametrize("kind", LOGITS)
def test_self_critical_compares_with_the_likeliest(kind: Kind) -> None:
    """The variance is that of REINFORCE of f less its value at the mode."""
    logits, seen = LOGITS[kind], []
    likeliest = torch.tensor([1, 0, 1]) if kind is pgest.Bernoulli else torch.tensor([2, 0])
    if kind is pgest.OneHotCategorical:
        likeliest = nn.functional.one_hot(likeliest, 3)

    def f(z: Tensor) -> Tensor:
        seen.append(z)
        return interacting(z)

    found = moments(kind, logits, f, "self_critical", 1)
    assert torch.equal(seen[0][1], likeliest.to(seen[0]).expand_as(seen[0][1]))
    best = interacting(likeliest.to(seen[0])[None, None])
    expected = moments(kind, logits, lambda z: interacting(z) - best, "reinforce", 1)
    torch.testing.assert_close(found.variance, expected.variance)
    shifted = moments(kind, logits, lambda z: interacting(z) + 100, "self_critical", 1)
    torch.testing.assert_close(shifted.variance, found.variance)


def test_the_greedy_evaluation_is_auxiliary() -> None:
    """It has no gradient and no part in the value."""
    weight = torch.tensor(2.0, requires_grad=True)
    q = pgest.Bernoulli(torch.tensor([5.0, 5.0]), event_dims=1)
    value = pgest.expect(
        lambda z: weight * z.sum(-1), q, "self_critical", noise=torch.ones(1, 2) * 0.999
    )
    assert value.item() == 0
    assert torch.autograd.grad(value, weight)[0].item() == 0
