"""The state of a moving average: what moves it, and what must not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_expect import bits
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import pgest
from pgest.estimators import MovingAverage


def test_one_infinite_cost_does_not_stay_in_a_moving_average() -> None:
    estimator = pgest.estimators.MovingAverage()
    bits = pgest.Bernoulli(torch.zeros(2))
    for cost in (torch.tensor(1.0), torch.tensor(torch.inf), torch.tensor(1.0)):
        pgest.expect(cost.expand_as, bits, estimator)
    assert estimator.baseline.item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e300, None])
def test_a_broken_or_empty_batch_leaves_a_moving_average_as_it_was(bad: float | None) -> None:
    estimator = MovingAverage(0.5)
    estimator.weight(torch.tensor([4.0]))
    before = estimator.state_dict()
    before = {name: x.clone() for name, x in before.items()}
    cost = torch.zeros(0) if bad is None else torch.tensor([bad], dtype=torch.float64)
    estimator.weight(cost)
    torch.testing.assert_close(estimator.state_dict(), before, rtol=0, atol=0)


def test_an_evaluation_does_not_move_a_moving_average() -> None:
    estimator = MovingAverage()
    pgest.expect(lambda z: 0 * z + 2, bits(3), estimator)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            pgest.expect(lambda z: 0 * z + 100, bits(3), estimator)
    assert estimator.baseline.item() == 2


def test_a_moving_average_is_float32_whatever_the_default() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        estimator = MovingAverage()
    finally:
        torch.set_default_dtype(torch.float32)
    assert {x.dtype for x in estimator.buffers()} == {torch.float32}
    assert {x.dtype for x in estimator.to(torch.float16).buffers()} == {torch.float32}


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_moving_average_is_refused_in_a_recomputation(reentrant: bool) -> None:
    def block(logits: Tensor, estimator: Any) -> Tensor:
        return pgest.expect(lambda z: 3 * z + 1, pgest.Bernoulli(logits), estimator)

    def run(estimator: Any) -> None:
        logits = torch.zeros(2, requires_grad=True)
        checkpoint(block, logits, estimator, use_reentrant=reentrant).sum().backward()

    with pytest.raises(ValueError, match=r"^MovingAverage must not be recomputed in a backward"):
        run(MovingAverage())
    for allowed in (MovingAverage().eval(), "reinforce"):
        run(allowed)
