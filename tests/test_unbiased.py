"""The unbiased estimators in the other shapes, dtypes and states, by enumerating all samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from enumeration import assert_unbiased, exact_gradient, moments
from test_estimators import CASES, LOGITS, TABLE, interacting
from torch import Tensor

import pgest
from pgest.comparison.outcomes import Kind
from pgest.estimators import MovingAverage

GRID = torch.tensor([[0.3, -1.1], [0.8, 0.1]], dtype=torch.float64)
ROW = torch.tensor([[[0.3, -1.1, 0.8], [1.0, 0.2, -0.4]]], dtype=torch.float64)
GRIDS = {pgest.Bernoulli: GRID, pgest.Categorical: ROW, pgest.OneHotCategorical: ROW}


def alone(z: Tensor) -> Tensor:
    """A cost of each variable by itself, which differs between the first and the second."""
    places = torch.tensor([0, 1])
    if z.dtype == torch.int64:
        return TABLE[places, z]
    if z.shape[-1] == 3:
        return (z * TABLE[:2]).sum(-1)
    return (z - 0.4) ** 3 * (1 + places)


def together(z: Tensor) -> Tensor:
    """A cost of a grid of variables, two dimensions of which are one draw."""
    if z.shape[2:] != (2, 2):
        return interacting(z[:, :, 0])
    return z[..., 0, 0] * z[..., 1, 1] - 2 * z[..., 0, 1] * z[..., 1, 0] + z.flatten(2).prod(-1)


@pytest.mark.parametrize(("kind", "estimator", "samples"), CASES)
@pytest.mark.parametrize(("f", "event_dims"), [(alone, 0), (together, 2)])
def test_any_number_of_event_dims(
    kind: Kind, estimator: Any, samples: int, f: Any, event_dims: int
) -> None:
    if samples == 3 and event_dims == 2:
        return  # 4096 outcomes a kind; two samples have shown it
    logits = LOGITS[kind][:2] if event_dims == 0 else GRIDS[kind]
    found = moments(kind, logits, f, estimator, samples, event_dims=event_dims)
    assert_unbiased(found, *exact_gradient(kind, logits, f, event_dims=event_dims))


@pytest.mark.parametrize("kind", LOGITS)
def test_a_moving_average_is_unbiased_while_it_learns(kind: Kind) -> None:
    """At each step, given what it has seen before; the costs of the step come after."""
    logits, estimator = LOGITS[kind], MovingAverage(0.5)
    seen = []
    for scale in (1.0, -3.0, 10.0):

        def f(z: Tensor, scale: float = scale) -> Tensor:
            return scale * interacting(z)

        seen.append(float(estimator.baseline))
        assert_unbiased(moments(kind, logits, f, estimator), *exact_gradient(kind, logits, f))
    assert len(set(seen)) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("kind", "estimator", "samples"), CASES)
def test_half_types_are_unbiased_to_their_rounding(
    kind: Kind, estimator: Any, samples: int, dtype: torch.dtype
) -> None:
    def f(z: Tensor) -> Tensor:
        return interacting(z if kind is pgest.Categorical else z.double())

    if estimator == "without_replacement":
        return  # its weights have no bound, so that a sum over all of them leaves a half type
    logits = LOGITS[kind].to(dtype)
    found = moments(kind, logits, f, estimator, samples)
    value, gradient = exact_gradient(kind, logits.double(), f)
    # An estimate is rounded once, when it leaves float32: E|g| <= sqrt(E g^2) bounds the sum.
    rounding = torch.finfo(dtype).eps / 2 * (found.mean**2 + found.variance).sqrt()
    assert ((found.mean - gradient).abs() <= rounding + 1e-6).all()
    torch.testing.assert_close(found.value, value, rtol=1e-6, atol=1e-6)
