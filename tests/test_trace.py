"""A trace: unbiased through two layers, by enumeration; which draw answers for which cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from enumeration import assert_unbiased, weigh
from test_estimators import BatchMean, WrongFactor, warm
from torch import Tensor

import pgest
from pgest.comparison.outcomes import force
from pgest.estimators import registry

Params = tuple[Tensor, Tensor, Tensor]
F64 = torch.float64
A = torch.tensor([0.4, -0.9], dtype=F64)
W = torch.tensor([[1.0, -0.7], [0.5, 1.5]], dtype=F64)
C = torch.tensor([-0.2, 0.6], dtype=F64)
TABLE = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=F64)


def second(b1: Tensor, params: Params) -> Tensor:
    """Logits of the second layer."""
    return (params[1] @ b1[..., None])[..., 0] + params[2]


def early(b1: Tensor) -> Tensor:
    return b1[..., 0] - 2 * b1.prod(-1)


def late(b1: Tensor, b2: Tensor) -> Tensor:
    """A cost of both layers with interactions within and between them."""
    return torch.einsum("...i,ij,...j", b1, TABLE, b2) + 1.3 * b2.prod(-1) + b1[..., 1]


def linear(b1: Tensor, b2: Tensor) -> Tensor:
    return torch.einsum("...i,ij,...j", 1 + b1, TABLE, b2)


def outcomes(samples: int) -> tuple[Tensor, Tensor]:
    """All bits of both layers, each [S, rows, 2]."""
    table = torch.tensor(list(product([0, 1], repeat=4 * samples)))
    b = table.view(-1, 2, samples, 2)
    return b[:, 0].movedim(1, 0), b[:, 1].movedim(1, 0)


def trace_moments(
    estimators: tuple[Any, Any],
    samples: int,
    cost: Callable[[Tensor, Tensor], Tensor] = late,
    named: bool | None = None,
) -> Iterator[Any]:
    """Moments of the gradients of a, W and c, in this order.

    Where `named` is given, all costs come last, and it says whether they name their draws.
    """
    first, then = outcomes(samples)
    rows = first.shape[1]
    params = tuple(x.expand(rows, *x.shape).clone().requires_grad_() for x in (A, W, C))
    assert len(params) == 3
    trace = pgest.Trace(samples)
    noise, p1 = force(pgest.Bernoulli, A, first)
    a = trace.expand(params[0])
    b1 = trace.draw(pgest.Bernoulli(a, event_dims=1), estimators[0], noise=noise)
    if named is None:
        trace.cost(early(b1))
    logits = second(b1, params)
    noise, p2 = force(pgest.Bernoulli, logits.detach(), then)
    b2 = trace.draw(pgest.Bernoulli(logits, event_dims=1), estimators[1], noise=noise)
    assert torch.equal(b1.long(), first)
    assert torch.equal(b2.long(), then)
    if named is not None:
        trace.cost(early(b1), nodes=[b1] if named else None)
    trace.cost(cost(b1, b2), nodes=[b2, b1] if named else None)
    value = trace.value()
    probability = (p1 * p2).prod(0).prod(-1)
    for estimates in torch.autograd.grad(value.sum(), params):
        yield weigh(probability, estimates, value.detach())


def exact(cost: Callable[[Tensor, Tensor], Tensor] = late) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The expected cost and its gradients, by brute force."""
    params = (A.clone(), W.clone(), C.clone())
    for x in params:
        x.requires_grad_()
    total = torch.zeros((), dtype=F64)
    bits = [torch.tensor(b, dtype=F64) for b in product([0.0, 1.0], repeat=2)]
    for b1, b2 in product(bits, bits):
        p1 = ((1 - b1) + (2 * b1 - 1) * params[0].sigmoid()).prod()
        p2 = ((1 - b2) + (2 * b2 - 1) * second(b1, params).sigmoid()).prod()
        total = total + p1 * p2 * (early(b1) + cost(b1, b2))
    return total.detach(), torch.autograd.grad(total, params)


@pytest.mark.parametrize(
    ("estimators", "samples"),
    [
        (("reinforce", "reinforce"), 1),
        (("rloo", "rloo"), 2),
        (("rloo", "reinforce"), 2),
        ((warm(), "rloo"), 2),
    ],
)
def test_two_layers_are_unbiased(estimators: tuple[Any, Any], samples: int) -> None:
    value, gradients = exact()
    for found, gradient in zip(trace_moments(estimators, samples), gradients, strict=True):
        assert_unbiased(found, value, gradient)


@pytest.mark.parametrize(("estimator", "samples"), [("reinforce", 1), ("rloo", 2)])
def test_named_nodes_are_unbiased(estimator: str, samples: int) -> None:
    value, gradients = exact()
    both = (estimator, estimator)
    named, unnamed = (list(trace_moments(both, samples, named=n)) for n in (True, False))
    for moments, gradient in zip([*named, *unnamed], [*gradients, *gradients], strict=True):
        assert_unbiased(moments, value, gradient)
    torch.testing.assert_close(named[0].variance, unnamed[0].variance)
    assert (named[2].variance - unnamed[2].variance).abs().max() > 0.1  # they do leave draws out


def test_a_path_after_a_draw_is_exact_where_the_cost_is_linear() -> None:
    value, gradients = exact(linear)
    found = trace_moments(("rloo", "straight_through"), 2, linear)
    for moments, gradient in zip(found, gradients, strict=True):
        assert_unbiased(moments, value, gradient)


def quadratic(b1: Tensor, b2: Tensor) -> Tensor:
    return late(b1, b2) + 0.8 * (b2.sum(-1) - b1[..., 0]) ** 2


def test_reinmax_after_a_draw_is_exact_where_the_cost_is_quadratic() -> None:
    value, gradients = exact(quadratic)
    found = trace_moments(("rloo", "reinmax"), 2, quadratic)
    for moments, gradient in zip(found, gradients, strict=True):
        assert_unbiased(moments, value, gradient)
    for wrong in ("straight_through", "gapped_st"):
        last = list(trace_moments(("rloo", wrong), 2, quadratic))[-1]
        with pytest.raises(AssertionError, match="biased by"):
            assert_unbiased(last, value, gradients[-1])


@pytest.mark.parametrize("wrong", [BatchMean(), WrongFactor()])
def test_the_harness_catches_wrong_ones(wrong: Any) -> None:
    value, gradients = exact()
    found = list(trace_moments((wrong, "rloo"), 2))
    with pytest.raises(AssertionError, match="biased by"):
        assert_unbiased(found[0], value, gradients[0])
    assert_unbiased(found[1], value, gradients[1])


def test_a_trace_with_one_draw_is_expect() -> None:
    """The same noise gives the same value and gradient, bit for bit."""
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    names = [n for n, e in registry.items() if isinstance(e, pgest.estimators.LocalEstimator)]
    for name in names:
        noise = torch.rand(
            registry[name].noise_shape(pgest.Bernoulli(logits), 4),
            generator=torch.Generator().manual_seed(1),
        )
        bits = pgest.Bernoulli(logits, event_dims=1)
        value = pgest.expect(lambda z: z.prod(-1), bits, name, num_samples=4, noise=noise)
        trace = pgest.Trace(4)
        z = trace.draw(pgest.Bernoulli(trace.expand(logits), event_dims=1), name, noise=noise)
        trace.cost(z.prod(-1))
        other = trace.value()
        assert torch.equal(value, other)
        expected, found = (torch.autograd.grad(v.sum(), logits)[0] for v in (value, other))
        torch.testing.assert_close(found, expected)


def gradients_of(build: Callable[[pgest.Trace, list[Tensor]], None]) -> list[Tensor]:
    """Gradients of two independent draws' logits under costs that `build` records."""
    logits = [torch.zeros(1, 2, requires_grad=True) for _ in range(2)]
    trace = pgest.Trace(1)
    noise = torch.full((1, 1, 2), 0.25)
    samples: list[Tensor] = []
    for x in logits:
        q = pgest.Bernoulli(trace.expand(x), event_dims=1)
        samples.append(trace.draw(q, "reinforce", noise=noise))
        build(trace, samples)
    gradients = torch.autograd.grad(trace.value().sum(), logits, allow_unused=True)
    return [torch.zeros(1, 2) if g is None else g for g in gradients]


def test_a_cost_weights_only_earlier_draws() -> None:
    def build(trace: pgest.Trace, samples: list[Tensor]) -> None:
        trace.cost(samples[-1].new_full((1, 1), 10.0 if len(samples) == 1 else 3.0))

    # All bits are 1 with p = 1/2: the gradient is the weight times 1 - p.
    first, last = gradients_of(build)
    torch.testing.assert_close(first, torch.full((1, 2), 13 * 0.5))
    torch.testing.assert_close(last, torch.full((1, 2), 3 * 0.5))


def test_nodes_name_the_draws_that_answer() -> None:
    def build(trace: pgest.Trace, samples: list[Tensor]) -> None:
        if len(samples) == 2:
            trace.cost(torch.full((1, 1), 5.0), nodes=[samples[0], samples[0]])
            trace.cost(torch.full((1, 1), 1.0))

    first, last = gradients_of(build)
    torch.testing.assert_close(first, torch.full((1, 2), 6 * 0.5))
    torch.testing.assert_close(last, torch.full((1, 2), 1 * 0.5))


def test_a_cost_before_every_draw_has_only_its_own_gradient() -> None:
    x = torch.ones(3, requires_grad=True)
    trace = pgest.Trace(2)
    inputs = trace.expand(x)
    trace.cost(7 * inputs)
    z = trace.draw(pgest.Bernoulli(torch.zeros(2, 3)), "rloo")
    trace.cost(z)
    value = trace.value()
    torch.testing.assert_close(value, 7 * x + z.mean(0))
    torch.testing.assert_close(torch.autograd.grad(value.sum(), x)[0], torch.full((3,), 7.0))


@pytest.mark.parametrize("estimator", ["reinforce", "rloo"])
def test_a_draw_that_the_batch_shares_is_unbiased(estimator: str) -> None:
    """Shared bits, then bits of two elements, each of which has its own cost."""
    samples = 2 if estimator == "rloo" else 1
    combinations = torch.tensor(list(product([0, 1], repeat=4 * samples)))
    bits = combinations.view(-1, samples, 4).movedim(1, 0)  # [S, rows, 2 shared and 2 own]
    scale = torch.tensor([1.0, -3.0], dtype=F64)

    def cost(w: Tensor, z: Tensor) -> Tensor:  # [..., 2], [..., 2] -> [..., 2 elements]
        return (
            scale * (w.sum(-1, keepdim=True) - 0.4) + z * w[..., :1] - w.prod(-1)[..., None]
        ) ** 2

    a, c = (x.expand(bits.shape[1], 2).clone().requires_grad_() for x in (A, C))
    trace = pgest.Trace(samples)
    noise, p1 = force(pgest.Bernoulli, A, bits[..., :2])
    shared = pgest.Bernoulli(trace.expand(a), event_dims=1)
    w = trace.draw(shared, estimator, noise=noise, shared=True)
    logits = trace.expand(c) * (1 + w)
    noise, p2 = force(pgest.Bernoulli, logits.detach(), bits[..., 2:])
    z = trace.draw(pgest.Bernoulli(logits), estimator, noise=noise)
    trace.cost(cost(w, z))
    value = trace.value()
    assert value.shape == (bits.shape[1], 2)

    leaves = [A.clone().requires_grad_(), C.clone().requires_grad_()]
    rows = torch.tensor(list(product([0.0, 1.0], repeat=4)), dtype=F64)
    q1 = pgest.Bernoulli(leaves[0].expand(16, 2), event_dims=1)
    q2 = pgest.Bernoulli(leaves[1] * (1 + rows[:, :2]), event_dims=1)
    p = (q1.log_prob(rows[:, :2]) + q2.log_prob(rows[:, 2:])).exp()
    expected = p @ cost(rows[:, :2], rows[:, 2:])
    probability = (p1.prod(-1) * p2.prod(-1)).prod(0)
    for element in range(2):
        truth = torch.autograd.grad(expected[element], leaves, retain_graph=True)
        found = torch.autograd.grad(value[:, element].sum(), (a, c), retain_graph=True)
        for estimates, gradient in zip(found, truth, strict=True):
            moments = weigh(probability, estimates, value[:, element].detach())
            assert_unbiased(moments, expected[element].detach(), gradient)


def test_noise_leaves_the_trace_s_generator_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    before, noise = generator.get_state(), torch.tensor([[0.1, 0.9]])
    trace = pgest.Trace(1, generator=generator)
    q = pgest.Bernoulli(trace.expand(torch.zeros(2)))
    assert trace.draw(q, "reinforce", noise=noise).tolist() == [[1, 0]]
    assert torch.equal(generator.get_state(), before)
    trace.draw(q, "reinforce")
    assert not torch.equal(generator.get_state(), before)


def test_the_generator_reproduces_a_trace() -> None:
    def bits(seed: int) -> Tensor:
        trace = pgest.Trace(3, generator=torch.Generator().manual_seed(seed))
        logits = trace.expand(torch.zeros(50))
        draws = [trace.draw(pgest.Bernoulli(logits), "rloo") for _ in range(2)]
        assert not torch.equal(*draws)
        return torch.stack(draws)

    torch.manual_seed(1)
    first = bits(0)
    torch.manual_seed(2)
    assert torch.equal(bits(0), first)
    assert not torch.equal(bits(1), first)
