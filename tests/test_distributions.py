"""The distributions do what torch's do, with raw logits and `event_dims`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributions as td
from torch import Tensor

import pgest
from pgest.distributions import OneHotCategorical, as_distribution

KINDS = (pgest.Bernoulli, pgest.Categorical, pgest.OneHotCategorical)


def example(kind: Any, event_dims: int = 1, dtype: torch.dtype = torch.float64) -> Any:
    logits = 3 * torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    return kind(logits.to(dtype).requires_grad_(), event_dims=event_dims)


def counterpart(distribution: Any, event_dims: int = 1) -> Any:
    inner = getattr(td, type(distribution).__name__)(logits=distribution.logits)
    return td.Independent(inner, event_dims)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("event_dims", [0, 1, 2])
def test_they_are_torch_s(kind: Any, event_dims: int) -> None:
    ours = example(kind, event_dims)
    theirs = counterpart(ours, event_dims)
    assert ours.batch_shape == theirs.batch_shape
    assert ours.event_shape == theirs.event_shape
    for sample_shape in ((), (5,), (5, 2)):
        value = ours.sample(sample_shape)
        assert value.shape == theirs.sample(sample_shape).shape
        assert not value.requires_grad
        logp = theirs.log_prob(value)
        for found in (ours.log_prob(value), ours.score(value)):
            torch.testing.assert_close(found, logp)
            expected = torch.autograd.grad(logp.sum(), ours.logits, retain_graph=True)
            torch.testing.assert_close(torch.autograd.grad(found.sum(), ours.logits), expected)
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.probs, theirs.base_dist.probs)


@pytest.mark.parametrize("kind", KINDS)
def test_the_support_is_complete(kind: Any) -> None:
    distribution = example(kind, event_dims=1)
    support = distribution.enumerate_support()
    size = 8 if kind is pgest.Bernoulli else 9
    assert support.shape == (size, *distribution.batch_shape, *distribution.event_shape)
    assert distribution.support_size == size
    assert len(support.reshape(size, -1).unique(dim=0)) == size
    total = distribution.log_prob(support).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total))
    single = example(kind, event_dims=0)
    theirs = counterpart(single, 0).base_dist.enumerate_support()
    torch.testing.assert_close(single.enumerate_support(), theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_chooses_by_the_cumulative_probability(kind: Any) -> None:
    """Frequencies over a grid of uniforms are the probabilities, to the grid's resolution."""
    distribution = kind(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))
    n = 10_000
    grid = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    noise = grid[:, None].expand(n, 3) if kind is pgest.Bernoulli else grid
    samples = distribution.sample((n,), noise=noise)
    if kind is pgest.Categorical:
        samples = (samples[:, None] == torch.arange(3)).double()
    assert (samples.double().mean(0) - distribution.probs).abs().max() <= 1 / n


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_samples_have_the_frequencies(kind: Any, dtype: torch.dtype) -> None:
    distribution = example(kind, 0, dtype)
    n = 20_000
    samples = distribution.sample((n,), generator=torch.Generator().manual_seed(3))
    if kind is pgest.Categorical:
        samples = (samples[..., None] == torch.arange(3)).double()
    else:
        assert samples.dtype == dtype
    p = distribution.logits.detach().double()
    p = p.sigmoid() if kind is pgest.Bernoulli else p.softmax(-1)
    z = (samples.double().mean(0) - p) / (p * (1 - p) / n).sqrt()
    assert z.abs().max() < 4.5  # 24 correlated entries: passes by chance but once in 10^4
    assert distribution.log_prob(distribution.sample((2,))).dtype == torch.float32


def test_impossible_tokens_are_never_drawn() -> None:
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf])
    tokens = pgest.Categorical(logits)
    edge = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert tokens.sample((2,), noise=edge).tolist() == [1, 3]
    assert set(tokens.sample((5000,)).tolist()) == {1, 3}
    relaxed = OneHotCategorical(logits).relaxed((5000,), noise=torch.rand(5000, 5))
    assert relaxed.isfinite().all()
    assert relaxed[:, logits == -torch.inf].abs().max() == 0
    assert OneHotCategorical(logits).relaxed(noise=torch.zeros(5)).isfinite().all()


def test_a_large_vocabulary_keeps_its_rare_tokens() -> None:
    """Cumulative sums in float32 would move them."""
    vocab = 200_000
    logits = torch.zeros(vocab)
    noise = (torch.arange(0, vocab, 1000) + 0.5).double() / vocab
    tokens = pgest.Categorical(logits).sample(noise.shape, noise=noise)
    assert torch.equal(tokens, torch.arange(0, vocab, 1000))


def test_infinite_logits_are_certain_bits() -> None:
    logits = torch.tensor([torch.inf, -torch.inf, 0.5], requires_grad=True)
    bits = pgest.Bernoulli(logits, event_dims=1)
    for noise in (torch.zeros(3), torch.full((3,), 0.999)):
        z = bits.sample(noise=noise)
        assert z[:2].tolist() == [1, 0]
        logp = bits.log_prob(z)
        expected = td.Bernoulli(logits=logits[2]).log_prob(z[2])
        torch.testing.assert_close(logp, expected)
        (gradient,) = torch.autograd.grad(logp, logits)
        assert gradient[:2].tolist() == [0, 0]
        assert bits.relaxed(noise=noise)[:2].tolist() == [1, 0]
    assert bits.log_prob(torch.tensor([0.0, 0.0, 1.0])).exp() == 0
    torch.testing.assert_close(bits.entropy(), td.Bernoulli(logits=logits[2]).entropy())


def test_extreme_logits_are_not_clamped() -> None:
    logits = torch.tensor([-200.0, 90.0, -1e4])
    logp = pgest.Bernoulli(logits).log_prob(torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(logp, torch.tensor([-200.0, -90.0, -1e4]))


@pytest.mark.parametrize("kind", [pgest.Bernoulli, pgest.OneHotCategorical])
def test_log_prob_is_linear_in_the_value(kind: Any) -> None:
    distribution = example(kind)
    first, second = distribution.sample((2,))
    mixed = (0.3 * first + 0.7 * second).requires_grad_()
    found = distribution.log_prob(mixed)
    expected = 0.3 * distribution.log_prob(first) + 0.7 * distribution.log_prob(second)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), mixed)
    slope = distribution.logits if kind is pgest.Bernoulli else distribution.logits.log_softmax(-1)
    torch.testing.assert_close(gradient, slope)


@pytest.mark.parametrize("name", ["Bernoulli", "Categorical", "OneHotCategorical"])
def test_torch_s_are_converted(name: str) -> None:
    logits = torch.randn(4, 2, 3, requires_grad=True)
    theirs = getattr(td, name)(logits=logits)
    nested = td.Independent(td.Independent(theirs, 1), 1)
    ours = as_distribution(nested)
    assert type(ours).__name__ == name
    assert ours.event_dims == 2
    value = nested.sample((3,))
    torch.testing.assert_close(ours.log_prob(value), nested.log_prob(value))
    assert torch.autograd.grad(ours.log_prob(value).sum(), logits)[0].abs().max() > 0
    assert as_distribution(ours) is ours


def test_misuse_is_named() -> None:
    def misuse(error: Any, message: str, build: Any) -> None:
        with pytest.raises(error, match=message):
            build()

    x, bits = torch.zeros(3, 4), pgest.Bernoulli(torch.zeros(3, 4))
    wrong: Any = [0.0]
    relaxed = td.RelaxedBernoulli(torch.tensor(1.0), logits=x)
    straight = td.OneHotCategoricalStraightThrough(logits=x)
    kinds: tuple[Any, ...] = KINDS
    for kind in kinds:
        misuse(TypeError, "logits must be a tensor, got list", lambda k=kind: k(wrong))
        misuse(TypeError, "logits must be float.*, got torch.int64", lambda k=kind: k(x.long()))
        misuse(TypeError, "event_dims must be an integer, got list", lambda k=kind: k(x, wrong))
    misuse(ValueError, "event_dims .* 0 and 2, .* got 3", lambda: pgest.Bernoulli(x, 3))
    misuse(ValueError, "event_dims .* 0 and 1, .* got 2", lambda: pgest.Categorical(x, 2))
    misuse(ValueError, r"event_dims .* got -1", lambda: pgest.Categorical(x, -1))
    misuse(ValueError, r"logits must have shape \[\.\.\., V\]", lambda: pgest.Categorical(x[0, 0]))
    misuse(ValueError, r"value .* \(\.\.\., 3, 4\) .* got \(3,\)", lambda: bits.log_prob(x[:, 0]))
    misuse(TypeError, "value must be a tensor, got list", lambda: bits.log_prob(wrong))
    misuse(TypeError, "distribution .* got RelaxedBernoulli", lambda: as_distribution(relaxed))
    misuse(TypeError, "got OneHotCategoricalStraight", lambda: as_distribution(straight))


@pytest.mark.parametrize("bad", [-1e-6, 1.0, torch.nan, torch.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_in_0_1(kind: Any, bad: float) -> None:
    """Refused where it may be looked at; elsewhere clamped, so that nothing impossible is drawn."""
    logits = torch.tensor([[-torch.inf, 0.0, torch.inf if kind is pgest.Bernoulli else 1.0]])
    q = kind(logits, event_dims=1)
    noise = torch.full((2, *q.variables), bad)
    with pytest.raises(ValueError, match=r"^noise must be uniforms in \[0, 1\), got from"):
        q.sample((2,), noise=noise)
    if kind is not pgest.Categorical:
        wide = torch.full((2, *logits.shape), bad)
        with pytest.raises(ValueError, match=r"^noise must be uniforms"):
            q.relaxed((2,), noise=wide)
    if bad != bad:
        return

    drawn = torch.func.vmap(lambda u: q.sample(noise=u))(noise)
    assert q.log_prob(drawn).isfinite().all()
    assert q.sample((0,), noise=noise[:0]).shape[0] == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", [pgest.Categorical, pgest.OneHotCategorical])
def test_a_row_without_a_possible_token_is_refused(kind: Any, bad: float) -> None:
    logits = torch.tensor([[0.0, 1.0], [bad, bad], [0.5, 2.0]], requires_grad=True)
    with pytest.raises(
        ValueError, match=r"^logits must have a possible token .* got row 1 without"
    ):
        kind(logits).sample((4,))
    if kind is pgest.OneHotCategorical:
        with pytest.raises(ValueError, match=r"^logits must have a possible .* 1 of 3 rows"):
            kind(logits).relaxed((4,))

    def run(logits: Tensor, noise: Tensor) -> Tensor:
        q = kind(logits)
        return pgest.expect(lambda z: torch.zeros(4), q, "rloo", num_samples=4, noise=noise)

    # Where values may not be looked at, the row's own statistics tell.
    value = torch.func.vmap(run)(logits, torch.rand(3, 4))
    assert value.isnan().tolist() == [False, True, False]


def test_nan_bits_are_refused() -> None:
    bits = pgest.Bernoulli(torch.tensor([0.0, torch.nan, torch.inf]))
    with pytest.raises(ValueError, match=r"^logits must not be NaN, got 1 such$"):
        bits.sample()
    with pytest.raises(ValueError, match=r"^logits must not be NaN, got 1 such$"):
        bits.relaxed()


@pytest.mark.parametrize("kind", KINDS)
def test_an_impossible_value_has_minus_infinity(kind: Any) -> None:
    logits = torch.tensor([[0.0, -torch.inf, 1.0]], requires_grad=True)
    q = kind(logits, event_dims=1)
    value = torch.tensor([1]) if kind is pgest.Categorical else torch.tensor([[0.0, 1.0, 0.0]])
    found = q.log_prob(value)
    assert found.item() == -torch.inf
    # torch's own Bernoulli gives NaN here, its one-hot and its tokens -inf.
    gradient = torch.autograd.grad(found, logits)[0]
    assert gradient[0, [0, 2]].isfinite().all()
    if kind is pgest.Bernoulli:
        certain = pgest.Bernoulli(torch.tensor([torch.inf]))
        assert certain.log_prob(torch.zeros(1)).item() == -torch.inf
        assert certain.log_prob(torch.ones(1)).item() == 0
    if kind is not pgest.Categorical:
        assert q.log_prob(0.5 * value).item() == -torch.inf  # linear in the value


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_shape_is_a_sequence(kind: Any) -> None:
    q = kind(torch.zeros(2, 3))
    message = r"^sample_shape must be a sequence of integers, got int: write \(5,\)$"
    for draw in (q.sample, *([q.relaxed] if kind is not pgest.Categorical else [])):
        with pytest.raises(TypeError, match=message):
            draw(5)


@pytest.mark.parametrize("kind", [pgest.Bernoulli, pgest.OneHotCategorical])
@pytest.mark.parametrize("bad", [0, -1.0, torch.inf, torch.nan])
def test_a_temperature_is_positive(kind: Any, bad: float) -> None:
    for temperature in (bad, torch.tensor(bad, dtype=torch.float32)):
        for build in (kind(torch.zeros(2, 3)).relaxed, pgest.estimators.GumbelSoftmax):
            with pytest.raises(ValueError, match=r"^temperature must be positive and finite, got"):
                build(temperature=temperature)
    with pytest.raises(TypeError, match=r"temperature must be floating point, got torch\.int64"):
        kind(torch.zeros(2, 3)).relaxed(temperature=torch.tensor(1))
    with pytest.raises(TypeError, match="temperature must be a number or a tensor, got str"):
        pgest.estimators.GumbelSoftmax("cold")  # type: ignore[arg-type]


def test_probabilities_keep_torch_s_clamp() -> None:
    """As the documentation says: of 0 there is about 1e-7 left."""
    q = as_distribution(td.Categorical(probs=torch.tensor([0.0, 1.0])))
    assert 5e-8 < q.log_prob(torch.tensor(0)).exp() < 2e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_log_prob_has_a_finite_slope_beside_impossible_values(dtype: torch.dtype) -> None:
    logits = torch.tensor([-torch.inf, 0.0, 2.0], dtype=dtype)
    for distribution in (pgest.OneHotCategorical(logits), pgest.Bernoulli(logits, event_dims=1)):
        z = torch.tensor([0.0, 1.0, 0.0], dtype=dtype, requires_grad=True)
        (grad,) = torch.autograd.grad(3 * distribution.log_prob(z), z)
        assert grad.isfinite().all()
        assert grad[0] == 0
