"""Costs that change their samples in place: refused where the sample is scored, never wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import pgest
from pgest.estimators import Estimator, LocalEstimator, Rebar, registry


@pytest.mark.parametrize(
    "estimator",
    ["reinforce", "rloo", "exact", "muprop", "double_cv", "rodeo", Rebar(), Rebar(learn=False)],
)
def test_samples_changed_in_place_are_refused(estimator: str | Estimator) -> None:
    """By estimators that take f's slope, too, whatever autograd thinks of it."""
    bits = pgest.Bernoulli(torch.zeros(3, requires_grad=True), event_dims=1)
    for grad in (True, False):
        with (
            pytest.raises(ValueError, match="samples were changed in place"),
            torch.set_grad_enabled(grad),
        ):
            pgest.expect(lambda z: z.mul_(2).sub_(1).sum(-1), bits, estimator, num_samples=2)


@pytest.mark.parametrize("name", ["reinforce", "rloo", "exact", "muprop", "double_cv", "rodeo"])
@pytest.mark.parametrize("way", ["func", "compile"])
def test_where_writes_are_not_counted_f_gets_a_copy(name: str, way: str) -> None:
    noise = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))

    def run(logits: Tensor, in_place: bool) -> Tensor:
        def f(z: Tensor) -> Tensor:
            return (z.mul_(2).sub_(1) if in_place else 2 * z - 1).sum(-1) ** 2

        q = pgest.Bernoulli(logits, event_dims=1)
        return pgest.expect(f, q, name, num_samples=2, noise=noise)

    def traced(logits: Tensor, in_place: bool) -> Tensor:
        trace = pgest.Trace(2)
        z = trace.draw(pgest.Bernoulli(trace.expand(logits), event_dims=1), name, noise=noise)
        trace.cost((z.mul_(2).sub_(1) if in_place else 2 * z - 1).sum(-1) ** 2, nodes=[z])
        return trace.value()

    logits = torch.tensor([0.3, -1.1, 0.8], requires_grad=True)
    for f in (run, traced) if isinstance(registry[name], LocalEstimator) else (run,):
        expected = torch.autograd.grad(f(logits, False), logits)[0]
        if way == "func":
            found = torch.func.grad(f)(logits.detach(), True)
        else:
            torch.compiler.reset()
            compiled = torch.compile(f, backend="aot_eager", fullgraph=True)
            found = torch.autograd.grad(compiled(logits, True), logits)[0]
        torch.testing.assert_close(found, expected)


def test_a_sample_that_is_not_scored_may_be_changed_in_place() -> None:
    q = pgest.Bernoulli(torch.zeros(3, requires_grad=True), event_dims=1)
    pgest.expect(lambda z: z.mul_(2).sum(-1), q, "straight_through").backward()
    assert q.logits.grad is not None
    torch.testing.assert_close(q.logits.grad, torch.full((3,), 0.5))
