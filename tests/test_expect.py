"""The rules of `expect`, one by one."""

from __future__ import annotations

import copy
import pickle
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import pgest
from pgest.estimators import MovingAverage, ScoreFunction, Traits, registry

PATHWISE = [n for n, e in registry.items() if e.traits.needs_path]


def takes(name: str, kind: Any) -> bool:
    """Whether an estimator of the registry takes this distribution."""
    return issubclass(kind, registry[name].traits.distributions)


ON_BITS = [name for name in registry if takes(name, pgest.Bernoulli)]


def bits(*shape: int, event_dims: int = 0) -> pgest.Bernoulli:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return pgest.Bernoulli(logits.requires_grad_(), event_dims=event_dims)


def uniforms(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("kind", "name"),
    [(k, n) for k in (pgest.Bernoulli, pgest.OneHotCategorical) for n in registry if takes(n, k)],
)
def test_every_name_is_a_swap(kind: Any, name: str) -> None:
    logits = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    distribution = kind(logits, event_dims=1)
    c = torch.arange(1.0, 7).view(2, 3)

    def f(z: Tensor) -> Tensor:
        cost = (c * z)[..., 0, :].sum(-1) if kind is pgest.OneHotCategorical else z.sum(-1)
        return cost**2

    value = pgest.expect(f, distribution, name, num_samples=4)
    assert value.shape == distribution.batch_shape
    value.mean().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().max() > 0


@pytest.mark.parametrize("name", ON_BITS)
def test_dimension_0_belongs_to_the_estimator(name: str) -> None:
    """The support's size for exact, S for most others: f must not assume it."""
    seen: list[torch.Size] = []

    def f(z: Tensor) -> Tensor:
        seen.append(z.shape)
        return z.sum(-1)

    pgest.expect(f, bits(5, 3, event_dims=1), name, num_samples=4)
    if registry[name].traits.evaluations == "sparse support":
        assert 1 <= seen[0][0] <= 8
        return
    counts = {"support": 8, "S": 4, "S + 1": 5, "3 S": 12}
    counts |= {"S (2 n + 1)": 28, "S (1 + n (V - 1))": 16}  # of n = 3 bits, V = 2
    evaluations = counts[registry[name].traits.evaluations]
    assert seen == [(evaluations, 5, 3)]


@pytest.mark.parametrize("name", ["reinforce", "rloo", "exact"])
def test_score_function_samples_are_detached(name: str) -> None:
    def f(z: Tensor) -> Tensor:
        assert not z.requires_grad
        return z

    pgest.expect(f, bits(5), name, num_samples=2)


# What weighs its evaluations by other numbers than 1 / S: test_less_sampling.py shows by which.
WEIGHING = {"sum_and_sample", "unordered_set", "measure_valued", "without_replacement"}
WEIGHING |= {"normalised_without_replacement", "sparsemax", "entmax15"}


@pytest.mark.parametrize("name", [n for n in ON_BITS if n not in WEIGHING])
def test_f_keeps_the_plain_gradient_of_its_own_parameters(name: str) -> None:
    net = nn.Linear(3, 1)
    distribution = bits(5, 3, event_dims=1)
    samples: list[Tensor] = []

    def f(z: Tensor) -> Tensor:
        samples.append(z.detach())
        return net(z)[..., 0].tanh()

    value = pgest.expect(f, distribution, name, num_samples=4).sum()
    found = torch.autograd.grad(value, list(net.parameters()))
    # What comes after the samples are auxiliary evaluations, which have no gradient.
    z = samples[0] if name == "exact" else samples[0][:4]
    cost = net(z)[..., 0].tanh()
    weight = distribution.log_prob(z).exp() if name == "exact" else 0.25
    expected = torch.autograd.grad((weight * cost).sum(), list(net.parameters()))
    torch.testing.assert_close(found, expected)


class Learned(ScoreFunction, nn.Module):
    """A baseline that is learned."""

    name: ClassVar[str] = "learned"
    traits: ClassVar[Traits] = Traits(unbiased=True, stateful=True)

    def __init__(self) -> None:
        super().__init__()
        self.baseline = nn.Parameter(torch.tensor(0.5))

    def weight(self, cost: Tensor) -> Tensor:
        self.fit_loss = ((cost - self.baseline) ** 2).mean()
        return cost - self.baseline


@pytest.mark.parametrize("through_a_trace", [False, True])
def test_fit_loss_touches_only_the_estimator(through_a_trace: bool) -> None:
    estimator, model, decoder = Learned(), nn.Linear(2, 3), nn.Linear(3, 1)
    x = torch.ones(5, 2)
    if through_a_trace:
        trace = pgest.Trace(4)
        z = trace.draw(pgest.Bernoulli(model(trace.expand(x)), event_dims=1), estimator)
        trace.cost(decoder(z)[..., 0])
        value = trace.value()
    else:
        q = pgest.Bernoulli(model(x), event_dims=1)
        value = pgest.expect(lambda z: decoder(z)[..., 0], q, estimator, num_samples=4)
    value.sum().backward(retain_graph=True)
    assert estimator.baseline.grad is None
    assert all(p.grad is not None for net in (model, decoder) for p in net.parameters())
    for p in (*model.parameters(), *decoder.parameters()):
        p.grad = None
    assert estimator.fit_loss is not None
    estimator.fit_loss.backward()
    assert estimator.baseline.grad is not None
    assert all(p.grad is None for net in (model, decoder) for p in net.parameters())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_an_estimator_is_copied_without_its_last_loss(copied: Any) -> None:
    for estimator in (Learned(), MovingAverage(), *map(registry.__getitem__, ON_BITS)):
        pgest.expect(lambda z: z, bits(5), estimator, num_samples=4)
        other = copied(estimator)
        assert other.fit_loss is None
        assert other.name == estimator.name
        pgest.expect(lambda z: z, bits(5), other, num_samples=4)
    learned = Learned()
    pgest.expect(lambda z: z, bits(5), learned)
    assert copied(nn.ModuleList([learned]))[0].baseline is not learned.baseline
    assert learned.fit_loss is not None


@pytest.mark.parametrize("name", registry)
def test_the_registry_s_names_are_the_estimators_own(name: str) -> None:
    assert registry[name].name == name


@pytest.mark.parametrize("name", [*ON_BITS, "MovingAverage"])
@pytest.mark.parametrize("logits", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("cost", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_the_value_has_the_dtype_of_the_costs(
    name: str, logits: torch.dtype, cost: torch.dtype
) -> None:
    estimator = MovingAverage() if name == "MovingAverage" else name
    q = pgest.Bernoulli(torch.zeros(3, dtype=logits, requires_grad=True))
    value = pgest.expect(lambda z: z.to(cost), q, estimator, num_samples=4)
    assert value.dtype == (cost if cost == torch.float64 else torch.float32)
    (gradient,) = torch.autograd.grad(value.sum(), q.logits)
    assert gradient.dtype == logits


@pytest.mark.parametrize("name", ON_BITS)
def test_distributions_of_torch_are_taken(name: str) -> None:
    logits = torch.randn(5, 3)
    noise = uniforms(*registry[name].noise_shape(pgest.Bernoulli(logits, event_dims=1), 4))

    def estimate(build: Any) -> tuple[Tensor, ...]:
        leaf = logits.clone().requires_grad_()
        options: dict[str, Any] = {"num_samples": 4, "noise": noise}
        value = pgest.expect(lambda z: z.sum(-1) ** 2, build(leaf), name, **options)
        return (value.detach(), *torch.autograd.grad(value.sum(), leaf))

    def theirs(x: Tensor) -> Any:
        return torch.distributions.Independent(torch.distributions.Bernoulli(logits=x), 1)

    torch.testing.assert_close(
        estimate(theirs), estimate(lambda x: pgest.Bernoulli(x, event_dims=1))
    )


def test_probabilities_get_their_gradient() -> None:
    probs = torch.tensor([0.2, 0.7], requires_grad=True)
    bits = torch.distributions.Bernoulli(probs=probs)
    pgest.expect(lambda z: 3 * z, bits, "exact").sum().backward()
    torch.testing.assert_close(probs.grad, torch.full((2,), 3.0))


def test_an_impossible_value_costs_nothing_whatever_it_costs() -> None:
    logits = torch.tensor([0.0, -torch.inf, 0.0], requires_grad=True)
    cost = torch.tensor([1.0, torch.nan, 3.0])
    value = pgest.expect(lambda z: cost[z], pgest.Categorical(logits), "exact")
    value.backward()
    torch.testing.assert_close(value.detach(), torch.tensor(2.0))
    torch.testing.assert_close(logits.grad, torch.tensor([-0.5, 0.0, 0.5]))


@pytest.mark.parametrize("name", ["reinforce", "rloo"])
def test_an_empty_batch_has_an_empty_value(name: str) -> None:
    tokens = pgest.Categorical(torch.zeros(0, 3, requires_grad=True))
    value = pgest.expect(lambda z: z.float(), tokens, name, num_samples=2)
    assert value.shape == (0,)


class Coin(pgest.distributions.Distribution):
    """A user's own: all bits of a row are equal."""

    probs = property(lambda self: self.logits.sigmoid())
    support_size = 2

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits, 0, logits.shape)

    def sample(self, sample_shape: Any = (), *, generator: Any = None, noise: Any = None) -> Tensor:
        return (torch.rand((*sample_shape, *self.logits.shape)) < self.probs).float().detach()

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.nn.functional.logsigmoid(self.logits * (2 * value - 1))

    def entropy(self) -> Tensor:
        raise NotImplementedError

    def enumerate_support(self) -> Tensor:
        return torch.tensor([0.0, 1.0])[:, None].expand(2, *self.logits.shape)


def test_a_distribution_of_the_user_is_taken() -> None:
    logits = torch.zeros(3, requires_grad=True)
    for estimator in ("reinforce", "rloo", "exact", MovingAverage()):
        value = pgest.expect(lambda z: z, Coin(logits), estimator, num_samples=2)
        torch.autograd.grad(value.sum(), logits)
    with pytest.raises(TypeError, match=r"straight_through takes Bernoulli or .* got Coin"):
        pgest.expect(lambda z: z, Coin(logits), "straight_through")
