"""What a trace refuses, and what it says."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import pgest
from pgest.estimators import Traits, checks, registry


def test_a_draw_refuses_what_is_not_local() -> None:
    trace = pgest.Trace(4)
    bits, local = pgest.Bernoulli(trace.expand(torch.zeros(3))), []
    for name, estimator in registry.items():
        if isinstance(estimator, pgest.estimators.LocalEstimator):
            trace.draw(bits, name)
            local.append(name)
        else:
            with pytest.raises(ValueError, match=f"{name} is not local"):
                trace.draw(bits, name)
    assert "rloo" in local
    assert "exact" not in local


def test_misuse_is_named() -> None:
    def bits(*shape: int, event_dims: int = 0) -> pgest.Bernoulli:
        return pgest.Bernoulli(torch.zeros(shape), event_dims=event_dims)

    trace = pgest.Trace(4)
    with pytest.raises(ValueError, match=r"pass the input through trace\.expand first"):
        trace.draw(bits(4, 3), "rloo")
    trace.expand(torch.zeros(3))
    with pytest.raises(ValueError, match=r"must have batch shape \(4, '\*batch'\), got \(3, 4\)"):
        trace.draw(bits(3, 4), "rloo")
    with pytest.raises(TypeError, match="straight_through takes Bernoulli or OneHotCategorical"):
        trace.draw(pgest.Categorical(torch.zeros(4, 3, 5)), "straight_through")
    with pytest.raises(ValueError, match="num_samples must be at least 2 for rloo, got 1"):
        pgest.Trace(1).draw(bits(1), "rloo")
    z = trace.draw(bits(4, 3, 2, event_dims=1), "rloo")
    with pytest.raises(
        ValueError, match=r"\(4, 3\), like Bernoulli.* got \(4, 3, 2\) .*event_dims says"
    ):
        trace.draw(bits(4, 3, 2), "rloo")
    with pytest.raises(ValueError, match=r"cost must have shape \(4, 3\).*event_dims=0\) this"):
        trace.cost(z)
    with pytest.raises(ValueError, match="nodes must list samples that this trace's draw returned"):
        trace.cost(z.sum(-1), nodes=[z.clone()])
    with pytest.raises(TypeError, match="cost must be a tensor, got float"):
        trace.cost(1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"cost must have shape \(2,\), .* got \(\)"):
        pgest.Trace(2).cost(torch.tensor(1.0))
    with pytest.raises(ValueError, match="value needs a cost"):
        trace.value()
    trace.cost(z.sum(-1))
    trace.value()
    for again in (trace.value, lambda: trace.cost(z.sum(-1)), lambda: trace.draw(bits(4), "rloo")):
        with pytest.raises(ValueError, match="make a new Trace for each pass"):
            again()


def test_a_path_that_no_cost_uses_is_refused() -> None:
    logits = torch.zeros(3, requires_grad=True)
    trace = pgest.Trace(2)
    z = trace.draw(pgest.Bernoulli(trace.expand(logits)), "straight_through")
    trace.cost(z.detach() * trace.expand(torch.ones(3, requires_grad=True)))
    with pytest.raises(ValueError, match="straight_through needs a cost that is differentiable"):
        trace.value()


def test_a_path_that_no_cost_follows_may_be_missing() -> None:
    """A loop whose last draw is for a step that does not come."""
    trace = pgest.Trace(2)
    state = trace.expand(torch.zeros(5, 3, requires_grad=True))
    for _ in range(2):
        trace.cost(state.sum(-1))
        state = state + trace.draw(pgest.Bernoulli(state, event_dims=1), "straight_through")
    trace.value().sum().backward()


def test_one_of_many_paths_may_be_missing() -> None:
    """The graph is walked once for all draws, and the one that no cost uses is still found."""
    for used in (True, False):
        trace = pgest.Trace(2)
        x = trace.expand(torch.zeros(3, requires_grad=True))
        first = trace.draw(pgest.Bernoulli(x), "straight_through")
        last = trace.draw(pgest.Bernoulli(x + first), "gumbel_softmax")
        side = trace.draw(pgest.Bernoulli(x), "st_gumbel")
        trace.cost(last + (side if used else side.detach()))
        if used:
            trace.value()
            continue
        with pytest.raises(ValueError, match=r"^st_gumbel .* path to draw 2, of Bern"):
            trace.value()


def test_a_path_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One walk for each draw would take quadratic time in a long trace."""
    walks: list[int] = []
    walk = checks._unreached

    def counted(cost: Tensor, needed: dict[Any, Any]) -> dict[Any, Any]:
        walks.append(len(needed))
        return walk(cost, needed)

    monkeypatch.setattr(checks, "_unreached", counted)
    trace = pgest.Trace(2)
    x = trace.expand(torch.zeros(3, requires_grad=True))
    for _ in range(20):
        x = trace.draw(pgest.Bernoulli(x), "straight_through")
    trace.cost(x)
    trace.value()
    assert walks == [20]


def test_expand_takes_an_input_once() -> None:
    trace = pgest.Trace(4)
    with pytest.raises(TypeError, match=r"^x must be a tensor \[B, \.\.\.\], got list$"):
        trace.expand([0.0])  # type: ignore[arg-type]
    x = trace.expand(torch.zeros(3))
    assert trace.expand(torch.zeros(3)).shape == x.shape
    message = r"^x must be an input without the samples, .* got \(4, 3\) that this trace has"
    with pytest.raises(ValueError, match=message):
        trace.expand(x)
    z = trace.draw(pgest.Bernoulli(x), "rloo")
    with pytest.raises(ValueError, match=message):
        trace.expand(z)
    message = (
        r"shape \(4, 3\), like Bernoulli\(logits \(4, 3\).* got \(4, 4, 3\).* expanded twice\?"
    )
    with pytest.raises(ValueError, match=message):
        trace.draw(pgest.Bernoulli(trace.expand(2 * x)), "rloo")
    trace.cost(z)
    trace.value()
    with pytest.raises(ValueError, match="make a new Trace for each pass"):
        trace.expand(torch.zeros(3))


def test_a_draw_is_not_blamed_for_the_shape_of_a_cost() -> None:
    trace = pgest.Trace(4)
    trace.cost(trace.expand(torch.zeros(5)))
    with pytest.raises(ValueError, match=r"\(4, 5\), like the first cost, got \(4, 3\) of Bern"):
        trace.draw(pgest.Bernoulli(torch.zeros(4, 3)), "rloo")


def test_one_stateful_instance_at_two_draws_is_refused() -> None:
    trace, shared = pgest.Trace(num_samples=2), pgest.estimators.MovingAverage()
    logits = trace.expand(torch.zeros(3))
    trace.draw(pgest.Bernoulli(logits), shared)
    with pytest.raises(ValueError, match="one instance serves one draw"):
        trace.draw(pgest.Bernoulli(logits), shared)


class Counter(pgest.estimators.ScoreFunction):
    """State without a module."""

    name: ClassVar[str] = "counter"
    traits: ClassVar[Traits] = Traits(unbiased=True, stateful=True)

    def weight(self, cost: Tensor) -> Tensor:
        return cost


def test_state_without_a_module_is_state() -> None:
    trace, shared = pgest.Trace(num_samples=2), Counter()
    logits = trace.expand(torch.zeros(3))
    trace.draw(pgest.Bernoulli(logits), shared)
    with pytest.raises(ValueError, match="counter keeps state, and one instance serves one draw"):
        trace.draw(pgest.Bernoulli(logits), shared)


def test_costs_and_nodes_get_advice() -> None:
    trace = pgest.Trace(4)
    z = trace.draw(pgest.Bernoulli(trace.expand(torch.zeros(16, 3)), event_dims=1), "rloo")
    with pytest.raises(
        ValueError, match=r"got \(16,\); a cost without .* by trace\.expand\(cost\)$"
    ):
        trace.cost(torch.zeros(16))
    with pytest.raises(TypeError, match=r"^nodes must be a list .* a tensor: write nodes=\[z\]$"):
        trace.cost(z.sum(-1), nodes=z)  # type: ignore[arg-type]


def test_a_shared_draw_begins_the_shape_of_the_costs() -> None:
    trace = pgest.Trace(4)
    x = trace.expand(torch.zeros(5, 3))
    weights = pgest.Bernoulli(trace.expand(torch.zeros(3)), event_dims=1)
    trace.draw(weights, "rloo", shared=True)
    wrong = pgest.Bernoulli(trace.expand(torch.zeros(7, 3)), event_dims=1)
    trace.draw(wrong, "rloo", shared=True)
    with pytest.raises(
        ValueError, match=r"^the batch shape \(4, 7\) of the shared draw .*\(4, 5\)"
    ):
        trace.draw(pgest.Bernoulli(x, event_dims=1), "rloo")
    with pytest.raises(ValueError, match=r"must begin the costs', got \(4, 5\) of the first cost"):
        trace.cost(x.sum(-1))
    trace = pgest.Trace(4)
    trace.draw(pgest.Bernoulli(trace.expand(x[0]), event_dims=1), "rloo")
    with pytest.raises(ValueError, match=r"must have batch shape \(4, 5\)"):
        trace.draw(weights, "rloo")
    with pytest.raises(ValueError, match=r"must have batch shape \(4, 5\)"):
        trace.draw(wrong, "rloo", shared=True)


def test_a_draw_changed_in_place_is_refused() -> None:
    trace = pgest.Trace(num_samples=2)
    bits = trace.draw(pgest.Bernoulli(trace.expand(torch.zeros(3, requires_grad=True))), "rloo")
    bits.sub_(0.5)
    trace.cost(bits)
    with pytest.raises(ValueError, match="samples were changed in place"):
        trace.value()
