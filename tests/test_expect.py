"""The rules of `expect`, one by one."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import pgest
from pgest.estimators import GumbelSoftmax, MovingAverage, ScoreFunction, Traits, registry

PATHWISE = ("straight_through", "gumbel_softmax", "gumbel_softmax_hard")


def bits(*shape: int, event_dims: int = 0) -> pgest.Bernoulli:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return pgest.Bernoulli(logits.requires_grad_(), event_dims=event_dims)


def uniforms(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", registry)
@pytest.mark.parametrize("kind", [pgest.Bernoulli, pgest.OneHotCategorical])
def test_every_name_is_a_swap(name: str, kind: Any) -> None:
    logits = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    distribution = kind(logits, event_dims=1)
    c = torch.arange(1.0, 7).view(2, 3)

    def f(z: Tensor) -> Tensor:
        cost = (c * z)[..., 0, :].sum(-1) if kind is pgest.OneHotCategorical else z.sum(-1)
        return cost**2

    value = pgest.expect(f, distribution, name, num_samples=3)
    assert value.shape == distribution.batch_shape
    value.mean().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().max() > 0


@pytest.mark.parametrize("name", registry)
def test_dimension_0_belongs_to_the_estimator(name: str) -> None:
    """The support's size for exact, S for the others: f must not assume it."""
    seen: list[torch.Size] = []

    def f(z: Tensor) -> Tensor:
        seen.append(z.shape)
        return z.sum(-1)

    pgest.expect(f, bits(5, 3, event_dims=1), name, num_samples=4)
    assert seen == [(8 if name == "exact" else 4, 5, 3)]


@pytest.mark.parametrize("name", ["reinforce", "rloo", "exact"])
def test_score_function_samples_are_detached(name: str) -> None:
    def f(z: Tensor) -> Tensor:
        assert not z.requires_grad
        return z

    pgest.expect(f, bits(5), name, num_samples=2)


def test_a_cost_of_another_shape_names_the_event_dims_that_fit() -> None:
    message = (
        r"^cost must have shape \(4, 5, 3\), \(samples, \*batch_shape\) of Bernoulli\(logits "
        r"\(5, 3\), event_dims=0\), got \(4, 5\); with Bernoulli\(\.\.\., event_dims=1\) this "
        r"shape would be right$"
    )
    with pytest.raises(ValueError, match=message):
        pgest.expect(lambda z: z.sum(-1), bits(5, 3), "rloo", num_samples=4)
    with pytest.raises(ValueError, match=r"got \(4, 5, 3\); with Bernoulli.*event_dims=0\)"):
        pgest.expect(lambda z: z, bits(5, 3, event_dims=1), "rloo", num_samples=4)
    with pytest.raises(ValueError, match=r"must have shape \(4, 5\), .*, got \(5,\)$"):
        pgest.expect(lambda z: z.sum((0, 2)), bits(5, 3, event_dims=1), "rloo", num_samples=4)
    tokens = pgest.Categorical(torch.zeros(5, 3, 7))
    with pytest.raises(ValueError, match=r"with Categorical\(\.\.\., event_dims=2\) this shape"):
        pgest.expect(lambda z: z.float().sum((1, 2)), tokens, "rloo", num_samples=4)


def test_a_cost_is_a_floating_point_tensor() -> None:
    tokens = pgest.Categorical(torch.zeros(5, 3))
    with pytest.raises(TypeError, match=r"cost must be floating point, got torch\.bool"):
        pgest.expect(lambda z: z == 1, tokens, "rloo", num_samples=2)
    with pytest.raises(TypeError, match="cost must be a tensor, got float"):
        pgest.expect(lambda z: 1.0, tokens, "rloo", num_samples=2)  # type: ignore[arg-type,return-value]
    value = pgest.expect(lambda z: z.bfloat16(), tokens, "rloo", num_samples=2)
    assert value.dtype == torch.float32


@pytest.mark.parametrize("name", registry)
def test_f_keeps_the_plain_gradient_of_its_own_parameters(name: str) -> None:
    net = nn.Linear(3, 1)
    distribution = bits(5, 3, event_dims=1)
    samples: list[Tensor] = []

    def f(z: Tensor) -> Tensor:
        samples.append(z.detach())
        return net(z)[..., 0].tanh()

    value = pgest.expect(f, distribution, name, num_samples=4).sum()
    found = torch.autograd.grad(value, list(net.parameters()))
    cost = net(samples[0])[..., 0].tanh()
    weight = distribution.log_prob(samples[0]).exp() if name == "exact" else 0.25
    expected = torch.autograd.grad((weight * cost).sum(), list(net.parameters()))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", PATHWISE)
def test_integer_samples_have_no_path(name: str) -> None:
    called: list[bool] = []

    def f(z: Tensor) -> Tensor:
        called.append(True)
        return z.float()

    message = (
        f"^{registry[name].name} takes Bernoulli or OneHotCategorical, got Categorical, "
        "whose samples are integers and carry no gradient$"
    )
    for tokens in (
        pgest.Categorical(torch.zeros(5, 3)),
        torch.distributions.Categorical(logits=torch.zeros(5, 3)),
    ):
        with pytest.raises(TypeError, match=message):
            pgest.expect(f, tokens, name)
    assert not called


class BitsOnly(ScoreFunction):
    """Declares one distribution."""

    name: ClassVar[str] = "bits_only"
    traits: ClassVar[Traits] = Traits(unbiased=True, distributions=(pgest.Bernoulli,))

    def weight(self, cost: Tensor) -> Tensor:
        return cost


def test_traits_refuse_by_name() -> None:
    with pytest.raises(TypeError, match=r"^bits_only takes Bernoulli, got OneHotCategorical$"):
        pgest.expect(lambda z: z, pgest.OneHotCategorical(torch.zeros(3)), BitsOnly())
    with pytest.raises(ValueError, match=r"^num_samples must be at least 2 for rloo, got 1$"):
        pgest.expect(lambda z: z, bits(3), "rloo")
    with pytest.raises(
        ValueError, match=r"^exact enumerates at most 65536 .* got 1\.6e\+60 of Ber"
    ):
        pgest.expect(lambda z: z.sum(-1), bits(5, 200, event_dims=1), "exact")
    with pytest.raises(ValueError, match=r"^MovingAverage keeps state"):
        torch.func.vmap(
            lambda x: pgest.expect(lambda z: z, pgest.Bernoulli(x), MovingAverage()),
            randomness="different",
        )(torch.zeros(3))


def test_misuse_of_an_argument_is_named() -> None:
    def run(estimator: Any = "reinforce", distribution: Any = None, **options: Any) -> None:
        pgest.expect(lambda z: z, distribution or bits(3), estimator, **options)

    with pytest.raises(ValueError, match=r"estimator must be one of reinforce, rloo, .*'reinforc'"):
        run("reinforc")
    with pytest.raises(TypeError, match=r"must be a name or an instance .* the class Reinforce"):
        run(pgest.estimators.Reinforce)
    with pytest.raises(TypeError, match=r"distribution must be one of Bernoulli, .* got Normal"):
        run(distribution=torch.distributions.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="num_samples must be positive, got 0"):
        run(num_samples=0)
    with pytest.raises(TypeError, match="num_samples must be an integer, got float"):
        run(num_samples=2.0)
    with pytest.raises(ValueError, match=r"noise must have shape \(1, 3\), got \(3,\)"):
        run(noise=torch.rand(3))
    with pytest.raises(TypeError, match=r"noise must be a floating-point .* got torch\.int64"):
        run(noise=torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="noise and generator exclude each other"):
        run(noise=torch.rand(1, 3), generator=torch.Generator())
    with pytest.raises(ValueError, match="temperature must be positive and finite, got 0"):
        GumbelSoftmax(temperature=0)
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1"):
        MovingAverage(decay=1)


@pytest.mark.parametrize("name", PATHWISE)
def test_a_cost_without_a_path_is_refused(name: str) -> None:
    net = nn.Linear(3, 1)
    black_boxes = (
        lambda z: (z > 0.5).float().sum(-1),
        lambda z: net(z.detach())[..., 0],  # requires a gradient, but not through z
        lambda z: torch.zeros(z.shape[:-1]),
    )
    for f in black_boxes:
        with pytest.raises(ValueError, match="needs a cost that is differentiable in the sample"):
            pgest.expect(f, bits(5, 3, event_dims=1), name)
        pgest.expect(f, bits(5, 3, event_dims=1), "rloo", num_samples=2).sum().backward()
        with torch.no_grad():
            pgest.expect(f, bits(5, 3, event_dims=1), name)


class Learned(ScoreFunction, nn.Module):
    """A baseline that is learned."""

    name: ClassVar[str] = "learned"
    traits: ClassVar[Traits] = Traits(unbiased=True)

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


@pytest.mark.parametrize("name", registry)
def test_distributions_of_torch_are_taken(name: str) -> None:
    logits, noise = torch.randn(5, 3), uniforms(2, 5, 3)

    def estimate(build: Any) -> tuple[Tensor, ...]:
        leaf = logits.clone().requires_grad_()
        options: dict[str, Any] = {"num_samples": 2, "noise": noise}
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


@pytest.mark.parametrize("name", ["reinforce", "rloo", "exact"])
def test_samples_changed_in_place_are_refused(name: str) -> None:
    bits = pgest.Bernoulli(torch.zeros(3, requires_grad=True), event_dims=1)
    with pytest.raises(ValueError, match="samples were changed in place"):
        pgest.expect(lambda z: z.mul_(2).sub_(1).sum(-1), bits, name, num_samples=2)


@pytest.mark.parametrize("name", ["reinforce", "rloo"])
def test_an_empty_batch_has_an_empty_value(name: str) -> None:
    tokens = pgest.Categorical(torch.zeros(0, 3, requires_grad=True))
    value = pgest.expect(lambda z: z.float(), tokens, name, num_samples=2)
    assert value.shape == (0,)


def test_one_infinite_cost_does_not_stay_in_a_moving_average() -> None:
    estimator = pgest.estimators.MovingAverage()
    bits = pgest.Bernoulli(torch.zeros(2))
    for cost in (torch.tensor(1.0), torch.tensor(torch.inf), torch.tensor(1.0)):
        pgest.expect(cost.expand_as, bits, estimator)
    assert estimator.baseline.item() == pytest.approx(1.0, abs=0.02)
