"""Different values of a draw: the weights of sets, tails, bias, planted errors."""

from __future__ import annotations

import sys
from itertools import permutations
from types import FrameType
from typing import Any

import pytest
import torch
from enumeration import assert_unbiased, exact_gradient, moments
from test_estimators import LOGITS, interacting
from test_less_sampling import COST, ROW, estimate
from torch import Tensor

import pgest
from benchmarks.joint_outcomes import orders, thresholds
from pgest.estimators import (
    Distinct,
    NormalisedWithoutReplacement,
    UnorderedSet,
    WithoutReplacement,
)


def ratios(p: Tensor, drawn: list[int]) -> tuple[list[float], float]:
    """p_i R_i by the definition, with probabilities of sets summed over all orders."""

    def of_set(values: list[int], left: float) -> float:
        total = 0.0
        for order in permutations(values):
            chance, rest = 1.0, left
            for v in order:
                chance, rest = chance * float(p[v]) / rest, rest - float(p[v])
            total += chance
        return total

    whole = of_set(drawn, 1.0)
    others = [[v for v in drawn if v != i] for i in drawn]
    weights = [
        float(p[i]) * of_set(o, 1 - float(p[i])) / whole for i, o in zip(drawn, others, strict=True)
    ]
    return weights, whole


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_an_unordered_set_has_the_weights_of_its_definition(samples: int) -> None:
    p = ROW.softmax(-1)
    noise, _ = orders(p, samples)
    value, _ = estimate("unordered_set", noise[..., 0], samples)
    for i, drawn in enumerate(permutations(range(5), samples)):
        weights, _ = ratios(p, list(drawn))
        expected = sum(w * float(COST[v]) for w, v in zip(weights, drawn, strict=True))
        assert float(value[i]) == pytest.approx(expected, abs=1e-12)


def test_subsets_are_listed_by_torch_not_by_python() -> None:
    """From 6 to 12 samples their number grows 64-fold, what the interpreter calls by six sizes."""
    tokens = pgest.Categorical(torch.zeros(20))
    seen: list[str] = []
    calls, before = [], sys.getprofile()

    def note(frame: FrameType, event: str, argument: object) -> None:
        seen.append(event)

    for samples in (6, 6, 12):  # the first call of all may import
        seen.clear()
        sys.setprofile(note)
        try:
            pgest.expect(lambda z: z.float(), tokens, "unordered_set", num_samples=samples)
        finally:
            sys.setprofile(before)
        calls.append(len(seen))
    assert 100 < calls[1] < calls[2] < 2 * calls[1]


def test_the_order_of_an_unordered_set_does_not_count() -> None:
    noise, _ = orders(ROW.softmax(-1), 3)
    found = torch.cat([x.view(60, -1) for x in estimate("unordered_set", noise[..., 0], 3)], -1)
    sets = [tuple(sorted(drawn)) for drawn in permutations(range(5), 3)]
    for chosen in set(sets):
        same = found[[i for i, s in enumerate(sets) if s == chosen]]
        torch.testing.assert_close(same, same[:1].expand_as(same), rtol=0, atol=1e-12)


def test_an_unordered_set_is_no_worse_than_what_it_averages() -> None:
    """Fewer variances than of one sample and of leave-one-out with as many evaluations."""
    for kind, logits in LOGITS.items():
        found = moments(kind, logits, interacting, "unordered_set", 3).variance.sum()
        assert found < moments(kind, logits, interacting, "rloo", 3).variance.sum()
        more = moments(kind, logits, interacting, "unordered_set", 4).variance.sum()
        assert more < found


def test_importance_weights_have_heavy_tails() -> None:
    """The second moment for 2 samples grows as the rule reaches further, for 4 it does not."""
    p = ROW.softmax(-1)
    for samples, finite in ((2, False), (4, True)):
        noise, probability = thresholds(p, samples)
        _, gradient = estimate("without_replacement", noise[..., 0], samples)
        terms = probability * gradient.square().sum(-1)
        t = -torch.log1p(-noise[0, -1, :, 0])
        near = terms[t < 1e-7].sum() / terms[t > 1e-7].sum()
        assert (near < 1e-4) == finite


def test_normalised_weights_are_biased_the_less_the_more() -> None:
    _, gradient = exact_gradient(pgest.Categorical, ROW[None], lambda z: COST[z[..., 0]])
    bias = []
    for samples in (1, 2, 3, 5):
        found = moments(
            pgest.Categorical,
            ROW[None],
            lambda z: COST[z[..., 0]],
            NormalisedWithoutReplacement(),
            samples,
        )
        bias.append(float((found.mean - gradient).norm() / gradient.norm()))
    assert bias[0] > bias[1] > bias[2] > 0.05
    assert bias[3] < 1e-12
    found = moments(
        pgest.Categorical,
        ROW[None],
        lambda z: 0.0 * COST[z[..., 0]] + 2,
        NormalisedWithoutReplacement(),
        2,
    )
    assert found.mean.abs().max() < 1e-12


@pytest.mark.parametrize("name", ["without_replacement", "normalised_without_replacement"])
@pytest.mark.parametrize("samples", [2, 3, 4])
def test_values_too_improbable_for_a_number_count_as_impossible(name: str, samples: int) -> None:
    """What exp(-10000) underflows to has weight 0, not 0 / 0."""
    found = []
    g = torch.Generator().manual_seed(0)
    noise = torch.rand(2, samples + 1, 100, dtype=torch.float64, generator=g)
    for low in (1e4, torch.inf):
        row = torch.tensor([0.3, -low, 1.1, -2 * low, -3 * low], dtype=torch.float64)
        rows = row.expand(100, 5).clone().requires_grad_()
        tokens = pgest.Categorical(rows)
        value = pgest.expect(lambda z: COST[z], tokens, name, num_samples=samples, noise=noise)
        found.append((value.detach(), *torch.autograd.grad(value.sum(), rows)))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert found[0][0].isfinite().all()
    assert found[0][1].isfinite().all()
    assert found[0][1].abs().max() > 0


def test_a_bit_that_is_sure_leaves_the_others_their_gradient() -> None:
    logits = torch.tensor([1e4, 0.0, 0.2], requires_grad=True)
    bits, g = pgest.Bernoulli(logits, event_dims=1), torch.Generator().manual_seed(0)
    name = "without_replacement"
    value = pgest.expect(lambda z: z.sum(-1), bits, name, num_samples=5, generator=g)
    value.backward()  # four values have a probability: all of them are among the five
    expected = logits.detach().sigmoid()
    torch.testing.assert_close(value.detach(), expected.sum())
    torch.testing.assert_close(logits.grad, expected * (1 - expected))


class NoLeaveOneOut(UnorderedSet):
    """A baseline that a value has a part in."""

    def advantage(self, cost: Tensor, weight: Tensor, p: Tensor, state: Tensor) -> Tensor:
        return cost - (weight * cost).sum(0)


class NoCorrection(WithoutReplacement):
    """Without what makes up for a value's part in the baseline."""

    def advantage(self, cost: Tensor, weight: Tensor, p: Tensor, state: Tensor) -> Tensor:
        return cost - (weight * cost).sum(0)


class Unweighted(Distinct):
    """Different values as if they were independent."""

    name = "unweighted"
    traits = UnorderedSet.traits

    def weights(self, log_p: Tensor, index: Tensor, chosen: Tensor, perturbed: Tensor) -> Any:
        return torch.full_like(chosen, 1 / len(chosen)), chosen

    def advantage(self, cost: Tensor, weight: Tensor, p: Tensor, state: Tensor) -> Tensor:
        return cost - (cost.sum(0) - cost) / (len(cost) - 1)


@pytest.mark.parametrize("wrong", [NoLeaveOneOut(), NoCorrection(), Unweighted()])
def test_the_harness_catches_wrong_ones(wrong: Distinct) -> None:
    kind, logits = pgest.Categorical, LOGITS[pgest.Categorical]
    found = moments(kind, logits, interacting, wrong, 2)
    with pytest.raises(AssertionError, match="biased by"):
        assert_unbiased(found, *exact_gradient(kind, logits, interacting))
