"""`pgest.compare` on hard ground: masked logits, black boxes, instances, and gradients off."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor

import pgest
from pgest.comparison import Comparison
from pgest.distributions import Distribution
from pgest.estimators import NVIL, Constant, MovingAverage, STGumbel

BITS = pgest.Bernoulli(torch.tensor([0.4, -0.9, 1.2], dtype=torch.float64), event_dims=1)


def quadratic(z: Tensor) -> Tensor:
    return (z.sum(-1) - 1) ** 2


def squared(z: Tensor) -> Tensor:
    return z.double() ** 2


def names(found: Comparison) -> set[str]:
    return {row.name for row in found.figures}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("kind", "logits"),
    [
        (pgest.Categorical, [0.0, 1.0, -torch.inf]),
        (pgest.Categorical, [0.0, 5.0, -40.0]),
        (pgest.Bernoulli, [0.0, 1.0, 40.0]),
        (pgest.Bernoulli, [0.0, -800.0, torch.inf]),
        (pgest.Bernoulli, [0.0, 1.0, -torch.inf]),
    ],
)
def test_masked_and_saturated_logits_are_enumerated(
    kind: type[Distribution], logits: list[float], dtype: torch.dtype
) -> None:
    given = torch.tensor(logits, dtype=dtype)
    q = kind(given, event_dims=0 if kind is pgest.Categorical else 1)  # type: ignore[call-arg]
    f = squared if kind is pgest.Categorical else quadratic
    found = pgest.compare(f, q, ["rloo", "exact", "reinforce"], num_samples=2)
    assert not found.refused
    assert {r.name: (r.enumerated, r.bias) for r in found.figures} == dict.fromkeys(
        ("rloo", "exact", "reinforce"), (True, 0.0)
    )


def test_what_is_impossible_in_one_element_of_a_batch_counts_in_the_others() -> None:
    rows = torch.tensor([[0.0, 1.0, -torch.inf], [0.3, -torch.inf, 1.0]], dtype=torch.float64)
    both, *singles = [
        pgest.compare(squared, pgest.Categorical(x), ["rloo"], num_samples=2) for x in (rows, *rows)
    ]

    def absolute(found: Comparison) -> tuple[float, float]:
        assert found.length
        assert found.figures[0].bias == 0
        return found.length, found.figures[0].spread * found.length

    expected = [sum(x**2 for x in xs) ** 0.5 for xs in zip(*map(absolute, singles), strict=True)]
    assert absolute(both) == pytest.approx(expected)


@pytest.mark.parametrize("cost", [torch.inf, torch.nan])
def test_costs_that_are_not_finite_are_refused(cost: float) -> None:
    def f(z: Tensor) -> Tensor:
        return torch.where(z.sum(-1) == 3, cost, quadratic(z))

    with pytest.raises(ValueError, match=r"^f must return finite costs, got .* \[1.0, 1.0, 1.0\]$"):
        pgest.compare(f, BITS, ["rloo"])


def test_a_cost_that_is_not_finite_where_it_is_impossible_is_no_harm() -> None:
    never = torch.tensor([0.4, -0.9, -torch.inf], dtype=torch.float64)

    def f(z: Tensor) -> Tensor:
        return torch.where(z[..., 2] == 1, torch.nan, quadratic(z))

    found = pgest.compare(f, pgest.Bernoulli(never, event_dims=1), ["rloo", "exact"])
    assert names(found) == {"rloo", "exact"}
    assert json.dumps(found.record(), allow_nan=False)


def test_a_gradient_that_is_not_finite_is_refused_by_name() -> None:
    """f is finite on the support, and its slope is not."""
    found = pgest.compare(lambda z: z.sum(-1).sqrt(), BITS, ["rloo", "reinmax"], repeats=20)
    assert names(found) == {"rloo"}
    assert "finite" in found.refused["reinmax"]


def test_a_black_box_in_numpy_is_compared() -> None:
    def f(z: Tensor) -> Tensor:
        return torch.from_numpy((z.numpy().sum(-1) - 1) ** 2)

    found = pgest.compare(f, BITS, ["rloo", "exact", "reinmax"], num_samples=2)
    assert names(found) == {"rloo", "exact"}
    assert found.refused["reinmax"].startswith("RuntimeError: Can't call numpy()")


def test_what_f_does_not_take_is_refused_alone() -> None:
    def f(z: Tensor) -> Tensor:
        assert ((z == 0) | (z == 1)).all(), "z must be bits"
        return quadratic(z)

    found = pgest.compare(f, BITS, ["rloo", "reinmax", "gumbel_softmax"], num_samples=2)
    assert names(found) == {"rloo", "reinmax"}
    assert found.refused["gumbel_softmax"].startswith("AssertionError: z must be bits")


def test_an_f_that_works_in_place_is_told_so() -> None:
    def f(z: Tensor) -> Tensor:
        return (z.mul_(2).sum(-1) - 1) ** 2

    found = pgest.compare(f, BITS, ["rloo", "measure_valued"], num_samples=2)
    assert names(found) == {"measure_valued"}
    assert "samples were changed in place" in found.refused["rloo"]


def test_what_f_raises_on_the_support_comes_through() -> None:
    def f(z: Tensor) -> Tensor:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        pgest.compare(f, BITS)
    many = pgest.Bernoulli(torch.zeros(40), event_dims=1)
    with pytest.raises(ValueError, match="got none: rloo: KeyError: 'mine'") as told:
        pgest.compare(f, many, ["rloo"])
    assert isinstance(told.value.__cause__, KeyError)


def test_instances_for_one_batch_are_sampled_where_they_cannot_be_enumerated() -> None:
    batch = pgest.Bernoulli(BITS.logits.expand(4, 3).clone(), event_dims=1)
    net = torch.nn.Sequential(torch.nn.Linear(6, 1), torch.nn.Flatten(0)).double()
    given = {
        "constant": Constant(torch.ones(4)),
        "nvil": NVIL(net).eval().given(torch.ones(4, 6, dtype=torch.float64)),
        "number": Constant(1.0),
    }
    found = pgest.compare(quadratic, batch, given, num_samples=2, repeats=30)
    assert not found.refused
    assert {r.name: r.enumerated for r in found.figures} == {
        "constant": False,
        "nvil": False,
        "number": True,
    }


def test_instances_stay_as_they_are() -> None:
    average = MovingAverage()
    pgest.compare(quadratic, BITS, {"a": average, "b": average}, num_samples=2, repeats=20)
    assert average.decayed_count == 0


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^estimators must have one name each, got two .*st_gumb"):
        pgest.compare(quadratic, BITS, [STGumbel(0.5), STGumbel(2.0)])
    with pytest.raises(ValueError, match=r"^estimators must have at least one, got none"):
        pgest.compare(quadratic, BITS, [])
    assert names(pgest.compare(quadratic, BITS, ["rloo", "rloo"])) == {"rloo"}


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_gradients_are_taken_where_they_are_off(off: type[AbstractContextManager[None]]) -> None:
    expected = pgest.compare(quadratic, BITS, ["rloo", "reinmax", "st_gumbel"], repeats=20)
    with off():
        logits = BITS.logits.clone()  # of inference
        q = pgest.Bernoulli(logits, event_dims=1)
        found = pgest.compare(quadratic, q, ["rloo", "reinmax", "st_gumbel"], repeats=20)
    assert [(r.name, r.spread) for r in found.figures] == [
        (r.name, r.spread) for r in expected.figures
    ]


def test_a_distribution_without_variables_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^distribution must have a variable to draw, got Bern"):
        pgest.compare(quadratic, pgest.Bernoulli(torch.zeros(0, 3), event_dims=1))


def test_what_lists_the_support_is_known_to() -> None:
    found = pgest.compare(quadratic, BITS, repeats=20)
    listing = {
        "exact",
        "sum_and_sample",
        "without_replacement",
        "normalised_without_replacement",
        "unordered_set",
        "sparsemax",
        "entmax15",
    }
    assert {r.name for r in found.figures if r.lists} == listing
    many = pgest.Bernoulli(torch.zeros(40), event_dims=1)
    refused = pgest.compare(lambda z: z.sum(-1), many, repeats=20).refused
    assert {name for name in refused if name in names(found)} == listing
