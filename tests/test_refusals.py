"""What `expect` and the estimators refuse, and what they say."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from test_expect import PATHWISE, bits
from torch import Tensor, nn

import pgest
from pgest.estimators import GumbelSoftmax, MovingAverage, ScoreFunction, Traits, registry


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
    tokens = pgest.Categorical(torch.zeros(5, 3, 2, 7))
    with pytest.raises(ValueError, match=r"with Categorical\(\.\.\., event_dims=2\) this shape"):
        pgest.expect(lambda z: z.float().sum((2, 3)), tokens, "rloo", num_samples=4)
    theirs = torch.distributions.Bernoulli(logits=torch.zeros(5, 3))
    with pytest.raises(
        ValueError, match=r"; with Independent\(Bernoulli\(\.\.\.\), 1\) this shape"
    ):
        pgest.expect(lambda z: z.sum(-1), theirs, "rloo", num_samples=4)
    inside = torch.distributions.Independent(theirs, 1)
    with pytest.raises(ValueError, match=r"; with Bernoulli\(\.\.\.\) alone this shape"):
        pgest.expect(lambda z: z, inside, "rloo", num_samples=4)


def test_a_cost_averaged_over_the_batch_is_told_to_keep_it() -> None:
    for q in (bits(5, 3), bits(5, 3, event_dims=1)):
        with pytest.raises(ValueError, match=r"got \(4,\); f returns one cost for each element of"):
            pgest.expect(lambda z: z.mean((1, 2)), q, "rloo", num_samples=4)
    with pytest.raises(ValueError, match=r"got \(4,\); with Bernoulli\(\.\.\., event_dims=1\)"):
        pgest.expect(lambda z: z.sum(-1), bits(3), "rloo", num_samples=4)


def test_a_cost_is_a_floating_point_tensor() -> None:
    tokens = pgest.Categorical(torch.zeros(5, 3))
    message = r"^cost must be floating point, got torch\.{}: write cost\.float\(\)$"
    with pytest.raises(TypeError, match=message.format("bool")):
        pgest.expect(lambda z: z == 1, tokens, "rloo", num_samples=2)
    with pytest.raises(TypeError, match=message.format("int64")):
        pgest.expect(lambda z: z, tokens, "rloo", num_samples=2)
    with pytest.raises(TypeError, match="cost must be a tensor, got float"):
        pgest.expect(lambda z: 1.0, tokens, "rloo", num_samples=2)  # type: ignore[arg-type,return-value]
    value = pgest.expect(lambda z: z.bfloat16(), tokens, "rloo", num_samples=2)
    assert value.dtype == torch.float32


@pytest.mark.parametrize("name", PATHWISE)
def test_integer_samples_have_no_path(name: str) -> None:
    called: list[bool] = []

    def f(z: Tensor) -> Tensor:
        called.append(True)
        return z.float()

    message = (
        f"^{registry[name].name} takes Bernoulli(?: or OneHotCategorical)?, got Categorical, "
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


class Triples(BitsOnly):
    """Declares that samples come by three."""

    name: ClassVar[str] = "triples"
    traits: ClassVar[Traits] = Traits(unbiased=True, multiple=3)


def test_traits_refuse_by_name() -> None:
    with pytest.raises(TypeError, match=r"^bits_only takes Bernoulli, got OneHotCategorical$"):
        pgest.expect(lambda z: z, pgest.OneHotCategorical(torch.zeros(3)), BitsOnly())
    with pytest.raises(ValueError, match=r"^num_samples must be at least 2 for rloo, got 1$"):
        pgest.expect(lambda z: z, bits(3), "rloo")
    with pytest.raises(
        ValueError, match=r"^exact enumerates at most 65536 .* got 1\.6e\+60 of Ber"
    ):
        pgest.expect(lambda z: z.sum(-1), bits(5, 200, event_dims=1), "exact")
    with pytest.raises(
        ValueError, match=r"^num_samples must be a multiple of 3 for triples, got 4$"
    ):
        pgest.expect(lambda z: z, bits(3), Triples(), num_samples=4)
    with pytest.raises(ValueError, match=r"^MovingAverage keeps state.* unless it is frozen$"):
        torch.func.vmap(
            lambda x: pgest.expect(lambda z: z, pgest.Bernoulli(x), MovingAverage()),
            randomness="different",
        )(torch.zeros(3))
    frozen = torch.func.vmap(
        lambda x: pgest.expect(lambda z: z, pgest.Bernoulli(x), MovingAverage().eval()),
        randomness="different",
    )(torch.zeros(3))
    assert frozen.shape == (3,)


def test_misuse_of_an_argument_is_named() -> None:
    def run(estimator: Any = "reinforce", distribution: Any = None, **options: Any) -> None:
        pgest.expect(lambda z: z, distribution or bits(3), estimator, **options)

    with pytest.raises(ValueError, match=r"^estimator 'LOORF' is called 'rloo' here$"):
        run("LOORF")
    with pytest.raises(ValueError, match=r"estimator must be one of reinforce, rloo, .*'reinforc'"):
        run("reinforc")
    with pytest.raises(TypeError, match=r"must be a name or an instance .* the class Reinforce"):
        run(pgest.estimators.Reinforce)
    with pytest.raises(TypeError, match=r"distribution must be one of Bernoulli, .* got Normal"):
        run(distribution=torch.distributions.Normal(0.0, 1.0))
    for name in ("MovingAverage", "moving_average"):
        with pytest.raises(ValueError, match=r"an instance, got '\w+': .* make one .*Average\(\)"):
            run(name)
    with pytest.raises(TypeError, match=r"^f must be callable, z -> cost, got Tensor$"):
        pgest.expect(torch.zeros(3), bits(3), "rloo")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_samples must be positive, got 0"):
        run(num_samples=0)
    with pytest.raises(TypeError, match="num_samples must be an integer, got bool"):
        run(num_samples=True)
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
            pgest.expect(f, bits(5, 3, event_dims=1), name, num_samples=2)
        pgest.expect(f, bits(5, 3, event_dims=1), "rloo", num_samples=2).sum().backward()
        with torch.no_grad():
            pgest.expect(f, bits(5, 3, event_dims=1), name, num_samples=2)


def test_a_cost_reduced_too_much_or_too_little_gets_advice() -> None:
    q = bits(5, 3, event_dims=1)
    with pytest.raises(ValueError, match=r"got \(\); f returns one cost for each sample, not"):
        pgest.expect(lambda z: z.mean(), q, "rloo", num_samples=2)
    with pytest.raises(ValueError, match=r"got \(2, 5, 1\); drop its last dimension, as squeeze"):
        pgest.expect(lambda z: z.sum(-1, keepdim=True), q, "rloo", num_samples=2)
    trace = pgest.Trace(2)
    trace.draw(pgest.Bernoulli(trace.expand(torch.zeros(5, 3)), event_dims=1), "rloo")
    with pytest.raises(ValueError, match=r"got \(2, 5, 1\); drop its last dimension, as squeeze"):
        trace.cost(torch.zeros(2, 5, 1))


def test_integers_of_numpy_count_samples() -> None:
    found = pgest.expect(lambda z: z, bits(5), "rloo", num_samples=np.int64(3))
    assert found.shape == (5,)
    assert type(pgest.Trace(np.int32(2)).num_samples) is int


class Undeclared(ScoreFunction):
    """Declares nothing."""

    def weight(self, cost: Tensor) -> Tensor:
        return cost


class Nameless(Undeclared, nn.Module):
    """Declares half."""

    traits: ClassVar[Traits] = Traits(unbiased=True)


@pytest.mark.parametrize(
    ("wrong", "lacks"), [(Undeclared(), 'name, as name = "'), (Nameless(), "name")]
)
def test_an_estimator_that_declares_nothing_is_refused(wrong: Any, lacks: str) -> None:
    message = f"^{type(wrong).__name__} must declare {lacks}"
    with pytest.raises(TypeError, match=message):
        pgest.expect(lambda z: z, bits(5), wrong)
    trace = pgest.Trace(1)
    with pytest.raises(TypeError, match=message):
        trace.draw(pgest.Bernoulli(trace.expand(torch.zeros(3))), wrong)
    wrong.name = "wrong"
    if not isinstance(wrong, Nameless):
        with pytest.raises(TypeError, match=r"^Undeclared must declare traits, as traits = Traits"):
            pgest.expect(lambda z: z, bits(5), wrong)


def test_they_show_what_they_are() -> None:
    assert [repr(registry[n]) for n in ("reinforce", "rloo", "straight_through", "exact")] == [
        "Reinforce()",
        "RLOO()",
        "StraightThrough()",
        "Exact(max_support=65536)",
    ]
    assert repr(MovingAverage(0.9)) == "MovingAverage(decay=0.9)"
    assert repr(nn.ModuleList([MovingAverage(0.9)])) == (
        "ModuleList(\n  (0): MovingAverage(decay=0.9)\n)"
    )
    trace = pgest.Trace(2)
    z = trace.draw(pgest.Bernoulli(trace.expand(torch.zeros(3))), "rloo")
    trace.cost(z)
    assert repr(trace) == "Trace(num_samples=2: 1 draws, 1 costs)"
    trace.value()
    assert repr(trace) == "Trace(num_samples=2: 1 draws, 1 costs, closed)"
