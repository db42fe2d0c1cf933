"""`pgest.compare`: its figures against enumeration and closed forms, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from enumeration import exact_gradient, moments
from test_estimators import BITS, LOGITS, BatchMean, interacting
from torch import Tensor

import pgest
from pgest.comparison import Comparison, Figures, problems
from pgest.comparison.moments import Truth
from pgest.comparison.outcomes import Kind
from pgest.comparison.problem import Problem
from pgest.estimators import NVIL, MovingAverage, registry

ON_BITS = {n for n, e in registry.items() if issubclass(pgest.Bernoulli, e.traits.distributions)}


class ListedBatchMean(BatchMean):
    """The same, and it says that its outcomes may be listed."""

    traits = replace(BatchMean.traits, enumerable=True)


def row(found: Comparison, name: str) -> Figures:
    return next(r for r in found.figures if r.name == name)


def whole(kind: Kind, logits: Tensor) -> Any:
    return kind(logits, event_dims=1)


@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize(("name", "samples"), [("reinforce", 2), ("rloo", 2), ("reinmax", 1)])
def test_what_is_enumerated_is_exact(kind: Kind, name: str, samples: int) -> None:
    logits = LOGITS[kind]
    if kind is pgest.Categorical and name == "reinmax":
        return

    def f(z: Tensor) -> Tensor:
        return interacting(z[:, None])[:, 0]

    found = pgest.compare(f, whole(kind, logits), [name], num_samples=samples)
    expected = moments(kind, logits, interacting, name, samples)
    _, gradient = exact_gradient(kind, logits, interacting)
    length = gradient.norm()
    (r,) = found.figures
    assert r.enumerated
    assert r.bias == pytest.approx(float((expected.mean - gradient).norm() / length), abs=1e-10)
    assert r.spread == pytest.approx(float(expected.variance.sum().sqrt() / length), abs=1e-10)
    assert (r.bias_error, r.spread_error) == (0, 0)
    assert r.along[0] == pytest.approx(float((expected.mean * gradient).sum() / length**2))
    assert 0 < r.along[1] < r.spread


def test_elements_of_a_batch_are_independent_draws() -> None:
    """Bias and variance of a batch are the sums of its elements', whose costs differ."""
    logits = torch.stack([BITS, -2 * BITS])

    def f(z: Tensor) -> Tensor:
        return interacting(z) * torch.tensor([1.0, 3.0], dtype=torch.float64)[: z.shape[1]]

    def g(z: Tensor) -> Tensor:
        return 3 * interacting(z)

    (both,) = pgest.compare(f, whole(pgest.Bernoulli, logits), ["reinmax"], num_samples=2).figures
    singles = [
        moments(pgest.Bernoulli, x, h, "reinmax", 2)
        for x, h in ((logits[0], interacting), (logits[1], g))
    ]
    gradients = [
        exact_gradient(pgest.Bernoulli, x, h)[1]
        for x, h in ((logits[0], interacting), (logits[1], g))
    ]
    length = torch.cat(gradients).norm()
    bias = torch.cat([m.mean - t for m, t in zip(singles, gradients, strict=True)]).norm()
    variance = torch.cat([m.variance for m in singles]).sum()
    assert both.bias == pytest.approx(float(bias / length), abs=1e-10)
    assert both.spread == pytest.approx(float(variance.sqrt() / length), abs=1e-10)


@pytest.mark.parametrize("name", ["rloo", "straight_through"])
@pytest.mark.parametrize("reference", [False, True])
def test_what_is_estimated_agrees_within_its_errors(name: str, reference: bool) -> None:
    problem = Problem(interacting, whole(pgest.Bernoulli, BITS))
    assert problem.gradient is not None
    exact = Truth(problem.gradient).enumerated(*problem.enumerate(registry[name], 2))
    drawn = torch.stack([problem.sample(registry[name], 2, seed) for seed in range(2000)])
    truth = Truth(problem.gradient)
    if reference:
        calls = torch.stack([problem.sample(registry["rloo"], 2, s) for s in range(2000)])
        truth = Truth(calls.mean(0), calls)
        assert truth.length == pytest.approx(float(problem.gradient.norm()), rel=0.2)
    if name == "rloo" and reference:
        assert truth.drawn(drawn).reference
        return
    assert truth.length
    assert not truth.drawn(drawn).reference
    found = truth.drawn(drawn)
    scale = truth.length / float(problem.gradient.norm())
    assert abs(scale * found.bias - exact.bias) < 4.5 * found.bias_error + 0.02
    assert abs(scale * found.spread - exact.spread) < 4.5 * found.spread_error
    assert 0 < found.bias_error < 0.1
    assert 0 < found.spread_error < 0.1 * found.spread
    assert found.along[1] == pytest.approx(exact.along[1], rel=0.15 + abs(1 - scale))


def test_a_wrong_estimator_is_seen() -> None:
    q = whole(pgest.Bernoulli, BITS)
    estimators = {"wrong": BatchMean(), "listed": ListedBatchMean(), "rloo": "rloo"}
    found = pgest.compare(interacting, q, estimators, num_samples=3)
    for name in ("wrong", "listed"):
        r = row(found, name)
        assert r.unbiased  # so it says
        assert math.isinf(found.needed(r))
        assert abs(r.bias - 1 / 3) < 4.5 * r.bias_error + 1e-10
        assert r.enumerated == (name == "listed")


def test_one_bit_has_the_closed_forms() -> None:
    given, t, p = problems["one-bit"], 0.45, 0.75
    found = pgest.compare(given.f, given.distribution, ["rloo", "reinmax", "exact"], num_samples=2)
    q, delta = 1 - p, (1 - t) ** 2 - t**2
    gradient = p * q * delta
    rloo = delta**2 * (p * q / 2 - p**2 * q**2)
    reinmax = p * q / 4 * (q * 2 * (1 - t) + p * 2 * t) ** 2 / 2
    assert row(found, "rloo").spread == pytest.approx(rloo**0.5 / gradient, rel=1e-10)
    assert row(found, "reinmax").spread == pytest.approx(reinmax**0.5 / gradient, rel=1e-10)
    assert found.needed(row(found, "rloo")) == 2 * math.ceil(rloo / gradient**2 / 0.01)
    assert [r.name for r in found.figures] == ["exact", "rloo", "reinmax"]
    assert found.needed(found.figures[0]) == 2


def test_evaluations_and_slopes_are_counted() -> None:
    found = pgest.compare(interacting, whole(pgest.Bernoulli, BITS), num_samples=4, repeats=20)
    counts = {r.name: (r.evaluations, r.backwards) for r in found.figures}
    assert counts["exact"] == (8, 0)
    assert counts["rloo"] == (4, 0)
    assert counts["self_critical"] == (5, 0)
    assert counts["antithetic"] == (4, 0)
    assert counts["reinmax"] == (4, 4)
    assert counts["gumbel_softmax"] == (4, 4)
    assert set(counts) == ON_BITS
    assert set(found.refused) == set(registry) - ON_BITS
    assert all(r.seconds > 0 for r in found.figures)
    order = [(found.needed(r), r.bias) for r in found.figures if r.bias > 1e-9]
    assert order == sorted(order)


def test_f_is_called_no_more_than_it_must_be() -> None:
    seen: list[int] = []

    def f(z: Tensor) -> Tensor:
        seen.append(len(z))
        return interacting(z)

    pgest.compare(f, whole(pgest.Bernoulli, BITS), ["rloo"], num_samples=3)
    # On the support, to see whether it applies and to count, and in the timing's 11 rounds.
    assert seen == [8] + [3] * 12


def test_a_support_that_cannot_be_listed_has_rloo_for_a_reference() -> None:
    given = problems["many-bits"]
    names = ["exact", "reinforce", "rloo", "straight_through"]
    found = pgest.compare(given.f, given.distribution, names, num_samples=2, repeats=300)
    assert "enumerates at most 65536" in found.refused["exact"]
    assert found.settings["exact_gradient"] is False
    assert [r.name for r in found.figures if r.unbiased] == ["rloo", "reinforce"]
    reinforce = row(found, "reinforce")
    assert found.needed(reinforce) < math.inf  # its bias is within its error of 0
    assert reinforce.bias_error < 2 * reinforce.spread / 300**0.5
    assert not any(r.enumerated for r in found.figures)


def test_a_black_box_has_no_slope() -> None:
    def f(z: Tensor) -> Tensor:
        return interacting(z).detach()

    found = pgest.compare(f, whole(pgest.Bernoulli, BITS), num_samples=4, repeats=20)
    assert "reinmax needs a cost that is differentiable" in found.refused["reinmax"]
    assert {r.name for r in found.figures} == {
        n for n in ON_BITS if not registry[n].traits.needs_path
    }


def test_samples_that_do_not_come_in_pairs_are_refused_by_name() -> None:
    names = ["rloo", "disarm", "arms", "antithetic"]
    q = whole(pgest.Bernoulli, BITS)
    found = pgest.compare(interacting, q, names, num_samples=3, repeats=20)
    assert {r.name for r in found.figures} == {"rloo", "arms"}
    assert found.refused["disarm"] == "num_samples must be a multiple of 2 for disarm, got 3"
    assert "at least 4 for antithetic" in found.refused["antithetic"]


def test_nvil_takes_part_with_its_input_only() -> None:
    nvil = NVIL(torch.nn.Identity()).eval()
    given = nvil.given(torch.tensor(1.5, dtype=torch.float64))
    q = whole(pgest.Bernoulli, BITS)
    found = pgest.compare(interacting, q, {"nvil": given, "bare": nvil}, num_samples=2)
    assert [(r.name, r.enumerated) for r in found.figures] == [("nvil", True)]
    assert row(found, "nvil").bias < 1e-10
    assert "nvil.given(x)" in found.refused["bare"]


def test_an_estimator_with_state_is_not_enumerated_while_it_learns() -> None:
    estimators = {"learning": MovingAverage(), "frozen": MovingAverage().eval()}
    q = whole(pgest.Bernoulli, BITS)
    found = pgest.compare(interacting, q, estimators, num_samples=1, repeats=50)
    assert {r.name: r.enumerated for r in found.figures} == {"learning": False, "frozen": True}


def test_equal_seeds_give_equal_figures() -> None:
    def run(seed: int) -> list[tuple[str, float]]:
        q = whole(pgest.Bernoulli, BITS)
        found = pgest.compare(interacting, q, ["st_gumbel"], repeats=30, seed=seed)
        return [(r.name, r.bias) for r in found.figures]

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_a_distribution_of_torch_is_taken() -> None:
    theirs = torch.distributions.Independent(torch.distributions.Bernoulli(logits=BITS), 1)
    found = pgest.compare(interacting, theirs, ["rloo"], num_samples=2)
    mine = pgest.compare(interacting, whole(pgest.Bernoulli, BITS), ["rloo"], num_samples=2)
    assert found.figures[0].spread == mine.figures[0].spread


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"estimators": "rloo"}, "estimators must be a list of names or a dict of instances"),
        ({"estimators": ["zgr"]}, "estimator 'zgr' is called 'reinmax' here"),
        ({"precision": 0}, "precision must be positive and finite, got 0"),
        ({"repeats": 1}, "repeats must be at least 2 for a standard error, got 1"),
        ({"num_samples": 0}, "num_samples must be positive, got 0"),
        ({"seed": 0.5}, "seed must be an integer, got float"),
        ({"f": 3}, "f must be callable, z -> cost, got int"),
        ({"distribution": 3}, "distribution must be one of Bernoulli"),
        (
            {"estimators": ["rloo"], "num_samples": 1},
            "estimators must have one that applies to this problem, got none: rloo: num_samples",
        ),
    ],
)
def test_arguments_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    given = {"f": interacting, "distribution": whole(pgest.Bernoulli, BITS), **changes}
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        pgest.compare(**given)
