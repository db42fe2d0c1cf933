"""Coupled samples: closed forms, identities, and the errors that coupling invites."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from enumeration import Moments, assert_unbiased, exact_gradient, moments, weigh
from test_estimators import BITS, LOGITS, interacting, one_bit
from torch import Tensor

import pgest
from benchmarks.couplings import RULES
from benchmarks.noise import noise_for
from pgest.advantages import leave_one_out
from pgest.comparison.outcomes import Kind
from pgest.estimators import ARM, ARMS, Antithetic, DisARM, registry

F64 = torch.float64
COUPLED = [("arm", 2), ("disarm", 2), ("arms", 3), ("antithetic", 4), ("stratified", 3)]


@pytest.mark.parametrize("p", [0.5, 0.75, 0.9, 0.2, 0.999])
@pytest.mark.parametrize("t", [0.45, 0.499])
def test_one_bit_has_the_closed_forms(p: float, t: float) -> None:
    q, m, delta = 1 - p, max(p, 1 - p), (1 - t) ** 2 - t**2
    forms = {
        "arm": delta**2 * 2 / 3 * (1 / 8 - (m - 0.5) ** 3) - (p * q * delta) ** 2,
        "disarm": delta**2 * m**2 * (1 - m) * (m - 0.5),
        "arms": delta**2 * m**2 * (1 - m) * (m - 0.5),  # of two samples
    }
    for name, variance in forms.items():
        found = one_bit(p, lambda z: (z - t) ** 2, name, 2)
        assert float(found.mean) == pytest.approx(p * q * delta, abs=1e-12)
        assert float(found.variance) == pytest.approx(variance, abs=1e-12)
        two = one_bit(p, lambda z: (z - t) ** 2, name, 4) if name != "arms" else None
        if two is not None:
            assert float(two.variance) == pytest.approx(variance / 2, abs=1e-12)


@pytest.mark.parametrize(
    ("t", "p", "arm", "disarm"),
    [
        (0.45, 0.5, 2.083e-4, 0),
        (0.45, 0.75, 3.776e-4, 3.516e-4),
        (0.45, 0.9, 3.257e-4, 3.24e-4),
        (0.499, 0.75, 1.51e-7, 1.406e-7),
    ],
)
def test_one_bit_has_the_known_numbers(t: float, p: float, arm: float, disarm: float) -> None:
    for name, variance in (("arm", arm), ("disarm", disarm)):
        found = one_bit(p, lambda z: (z - t) ** 2, name, 2)
        assert float(found.variance) == pytest.approx(variance, rel=5e-4, abs=1e-15)


@pytest.mark.parametrize("bits", [2, 3, 5])
@pytest.mark.parametrize("p", [0.75, 0.3])
def test_many_bits_have_the_closed_forms(bits: int, p: float) -> None:
    q, m, delta = 1 - p, max(p, 1 - p), 0.7
    logits = torch.full((bits,), p, dtype=F64).logit()
    arm = delta**2 * (2 / 3 * (1 / 8 - (m - 0.5) ** 3) + (bits - 1) * (1 - m) / 6)
    forms = {
        "arm": arm - (delta * p * q) ** 2,
        "disarm": delta**2 * m**2 * (1 - m) * (0.5 + (bits - 2) * (1 - m)),
    }
    for name, variance in forms.items():
        if name == "arm" and bits > 3:
            continue  # 7776 outcomes say no more than 216
        found = moments(pgest.Bernoulli, logits, lambda z: delta * z.sum(-1), name, 2)
        torch.testing.assert_close(found.mean, torch.full_like(logits, p * q * delta))
        torch.testing.assert_close(
            found.variance, torch.full_like(logits, variance), rtol=0, atol=1e-12
        )
    rloo = moments(pgest.Bernoulli, logits, lambda z: delta * z.sum(-1), "rloo", 2)
    disarm = moments(pgest.Bernoulli, logits, lambda z: delta * z.sum(-1), "disarm", 2)
    saved = torch.full_like(logits, delta**2 * m * (1 - m) ** 2 / 2)
    torch.testing.assert_close(rloo.variance - disarm.variance, saved, rtol=0, atol=1e-12)


def gradient(
    name: Any, logits: Tensor, noise: Tensor, samples: int, f: Any = interacting
) -> Tensor:
    """Estimates for rows of noise [.., rows, ..]."""
    rows = noise.shape[noise.dim() - logits.dim() - 1]
    leaf = logits.expand(rows, *logits.shape).clone().requires_grad_()
    q = pgest.Bernoulli(leaf, event_dims=1)
    value = pgest.expect(interacting, q, name, num_samples=samples, noise=noise)
    return torch.autograd.grad(value.sum(), leaf)[0]


def test_arm_given_its_bits_is_disarm() -> None:
    """Sample by sample: ARM averaged over a region of the uniforms, where the bits are constant."""
    noise, p = noise_for(ARM(), pgest.Bernoulli, BITS, 2)
    arm, disarm = (gradient(name, BITS, noise, 2) for name in ("arm", "disarm"))
    u = noise[0]
    region = (u < BITS.sigmoid()).long() + 2 * (u >= (-BITS).sigmoid()).long()
    key = (region * torch.tensor([1, 4, 16])).sum(-1)
    assert len(key.unique()) == 27
    for k in key.unique():
        chosen = key == k
        given = (p[chosen, None] * arm[chosen]).sum(0) / p[chosen].sum()
        torch.testing.assert_close(given, disarm[chosen][0], rtol=0, atol=1e-12)


def test_arms_of_two_samples_is_disarm() -> None:
    """For the uniform that the first piece of the stick amounts to, or 1 less it where p > 1/2."""
    u = torch.rand(1, 500, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    piece = torch.where(BITS > 0, u, 1 - u)
    stick = -torch.expm1(-torch.cat([piece, 1 - piece]))
    found = gradient("arms", BITS, stick, 2)
    torch.testing.assert_close(found, gradient("disarm", BITS, u, 2), rtol=0, atol=1e-12)


class Independent(ARMS):
    """Leave one out by the algebra of ARMS: rho = 0."""

    def couple(self, logits: Tensor, u: Tensor) -> Tensor:
        return u < logits.sigmoid()

    def slope(
        self, cost: Tensor, bits: Tensor, reached: Tensor | None, logits: Tensor, u: Tensor
    ) -> Tensor:
        return (leave_one_out(cost) * bits).mean(0)


def test_independent_samples_without_correlation_are_rloo() -> None:
    u = torch.rand(3, 100, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = gradient(Independent(), BITS, u, 3)
    torch.testing.assert_close(found, gradient("rloo", BITS, u, 3), rtol=0, atol=1e-12)


def test_a_token_of_two_is_a_bit() -> None:
    logits = torch.tensor([[0.3, -0.9], [2.0, 0.4]], dtype=F64)
    u = torch.rand(1, 2, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    tokens = logits.clone().requires_grad_()
    bits = (logits[:, 0] - logits[:, 1]).requires_grad_()

    def f(z: Tensor) -> Tensor:
        return (z[..., 0] + 0.3) ** 2 * (1 + z[..., 1])

    q = pgest.Categorical(tokens[None], event_dims=1)
    # The first token is the left child, a bit of 1.
    value = pgest.expect(
        lambda z: f((1 - z).double()), q, "disarm", num_samples=2, noise=u[:, :1, :, None]
    )
    other = pgest.Bernoulli(bits[None], event_dims=1)
    expected = pgest.expect(f, other, "disarm", num_samples=2, noise=u[:, :1])
    assert value.item() == expected.item()
    (found,), (slope,) = torch.autograd.grad(value, tokens), torch.autograd.grad(expected, bits)
    torch.testing.assert_close(found, torch.stack([slope, -slope], -1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("vocab", [1, 2, 3, 5, 8, 13])
def test_walks_have_the_tokens_probabilities(vocab: int) -> None:
    logits = torch.randn(vocab, dtype=F64, generator=torch.Generator().manual_seed(vocab))
    logits[-1] = -torch.inf if vocab > 2 else 0.0
    from pgest.estimators.walks import Walk

    walk = Walk(pgest.Categorical(logits))
    index = torch.arange(2 ** (vocab - 1))
    bits = (index[:, None] >> torch.arange(vocab - 1)) & 1
    p = walk.logits.sigmoid()
    probability = torch.where(bits == 1, p, 1 - p).prod(-1)
    tokens, reached = walk.decode(bits.bool())
    assert reached is not None
    assert reached.sum(-1).max() == (vocab - 1).bit_length()
    found = torch.zeros(vocab, dtype=F64).index_add(0, tokens, probability)
    torch.testing.assert_close(found, logits.softmax(-1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "samples"), [("arm", 2), ("disarm", 2), ("arms", 3)])
def test_what_no_sample_has_reached_does_not_scatter(name: str, samples: int) -> None:
    """Unbiased without this too, but with more variance."""

    class Everything(type(registry[name])):  # type: ignore[misc]
        def slope(self, cost: Tensor, bits: Tensor, reached: Any, logits: Tensor, u: Any) -> Tensor:
            return super().slope(cost, bits, None, logits, u)

    logits = LOGITS[pgest.Categorical]
    noise, p = noise_for(registry[name], pgest.Categorical, logits, samples)
    found: list[Moments] = []
    for estimator in (registry[name], Everything()):
        rows = logits.expand(len(p), *logits.shape).clone().requires_grad_()
        q = pgest.Categorical(rows, event_dims=1)
        value = pgest.expect(interacting, q, estimator, num_samples=samples, noise=noise)
        estimates = torch.autograd.grad(value.sum(), rows)[0]
        found.append(weigh(p, estimates, value.detach()))
        assert_unbiased(found[-1], *exact_gradient(pgest.Categorical, logits, interacting))
    assert (found[0].variance < found[1].variance + 1e-12).all()
    assert (found[0].variance < 0.99 * found[1].variance).any()


@pytest.mark.parametrize(("name", "samples"), COUPLED)
@pytest.mark.parametrize("kind", LOGITS)
def test_a_constant_changes_nothing(kind: Kind, name: str, samples: int) -> None:
    logits = LOGITS[kind][..., :2] if samples > 2 else LOGITS[kind]
    scale = torch.tensor([1.5, -0.5, 2.0], dtype=F64)

    def f(z: Tensor) -> Tensor:
        x = scale[z] if kind is pgest.Categorical else z * scale[: z.shape[-1]]
        return x.flatten(2).sum(-1) ** 3

    plain = moments(kind, logits, f, name, samples)
    more = moments(kind, logits, lambda z: f(z) + 100, name, samples)
    torch.testing.assert_close(more.variance, plain.variance)
    scaled = moments(kind, logits, lambda z: 3 * f(z), name, samples)
    torch.testing.assert_close(scaled.variance, 9 * plain.variance)


class NoHalf(DisARM):
    """DisARM without its 1/2."""

    name: ClassVar[str] = "no_half"

    def slope(self, *args: Any) -> Tensor:
        return 2 * super().slope(*args)


class NoCorrelation(ARMS):
    """Leave one out over coupled samples, as if they were independent."""

    name: ClassVar[str] = "no_correlation"

    def slope(
        self, cost: Tensor, bits: Tensor, reached: Tensor | None, logits: Tensor, u: Tensor
    ) -> Tensor:
        return (leave_one_out(cost) * bits).mean(0)


class WholeMean(Antithetic):
    """A baseline that includes the mirror image."""

    name: ClassVar[str] = "whole_mean"

    def weight(self, cost: Tensor) -> Tensor:
        return leave_one_out(cost)


@pytest.mark.parametrize(
    ("wrong", "like", "samples"),
    [(NoHalf(), DisARM(), 2), (NoCorrelation(), ARMS(), 3), (WholeMean(), Antithetic(), 4)],
)
def test_the_harness_catches_wrong_ones(
    wrong: Any, like: Any, samples: int, monkeypatch: Any
) -> None:
    monkeypatch.setitem(RULES, type(wrong), RULES[type(like)])
    truth = exact_gradient(pgest.Bernoulli, BITS, interacting)
    assert_unbiased(moments(pgest.Bernoulli, BITS, interacting, like, samples), *truth)
    found = moments(pgest.Bernoulli, BITS, interacting, wrong, samples)
    with pytest.raises(AssertionError, match="biased by"):
        assert_unbiased(found, *truth)


def test_the_strata_need_their_correction(monkeypatch: Any) -> None:
    truth = exact_gradient(pgest.Bernoulli, BITS, interacting)
    monkeypatch.setattr("pgest.estimators.spread._given_part", lambda q, logits, part: 0.0 * part)
    found = moments(pgest.Bernoulli, BITS, interacting, "stratified", 2)
    with pytest.raises(AssertionError, match="biased by"):
        assert_unbiased(found, *truth)


@pytest.mark.parametrize("samples", [2, 3])
@pytest.mark.parametrize("kind", [pgest.Bernoulli, pgest.Categorical])
def test_strata_of_any_number_are_unbiased(kind: Kind, samples: int) -> None:
    logits = LOGITS[kind][:2]

    def f(z: Tensor) -> Tensor:
        return (1.5 * z[..., 0] - z[..., 1] + 0.3).double() ** 3

    assert_unbiased(
        moments(kind, logits, f, "stratified", samples), *exact_gradient(kind, logits, f)
    )
