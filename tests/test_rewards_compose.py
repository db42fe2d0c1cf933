"""Rewards made of rewards: what they add up to, what reaches the parts, what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pgest.rewards import (
    FailedSamples,
    Reward,
    WeightedSum,
    cached,
    clipped,
    edit_distance,
    gated,
    length_penalty,
    overlong_penalty,
    per_sample,
    scaled,
    weighted_sum,
)
from pgest.rewards.protocol import scores_of

WORDS = ["a cat", "a", ""]
REFERENCES = ["a cat", "a cat", "cats"]


def constant(*values: float) -> Reward:
    """A reward of these scores."""

    def score(hypotheses: Any, references: Any, **options: Any) -> Tensor:
        return torch.tensor(values)

    return score


class Seen:
    """A reward that notes what it is given."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}

    def __call__(self, hypotheses: Any, references: Any, **options: Any) -> Tensor:
        self.options = options
        return torch.zeros(hypotheses.shape[:-1])


def test_a_sum_weighs_its_parts_and_shows_them() -> None:
    reward = weighted_sum({"x": (2, constant(1.0, 2.0, 3.0)), "y": (-0.5, constant(4.0, 0.0, 2.0))})
    assert reward(WORDS, REFERENCES).tolist() == [0, 4, 5]
    assert {k: v.tolist() for k, v in reward.parts.items()} == {"x": [1, 2, 3], "y": [4, 0, 2]}
    assert reward.__name__ == "2 x + -0.5 y"


def test_a_part_without_weight_is_only_shown() -> None:
    bad = constant(float("inf"), float("nan"), 1.0)
    reward = weighted_sum({"x": (1, constant(1.0, 2.0, 3.0)), "bad": (0, bad)})
    assert reward(WORDS, REFERENCES).tolist() == [1, 2, 3]
    assert reward.parts["bad"][0] == float("inf")


def test_options_reach_every_part() -> None:
    seen = [Seen() for _ in range(5)]
    nested = clipped(gated(scaled(seen[0], 2), seen[1], 0.5), -1, 1)
    reward = weighted_sum({"a": (1, nested), "b": (1, seen[2])})
    ids = torch.zeros(3, 2, 4, dtype=torch.int64)
    mask = ids == 0
    assert reward(ids, [[1], [2]], mask=mask, eos=5, keep_eos=True).shape == (3, 2)
    for part in seen[:3]:
        assert part.options["mask"] is mask
        assert (part.options["eos"], part.options["keep_eos"]) == (5, True)


def test_a_cost_becomes_a_reward() -> None:
    pytest.importorskip("rapidfuzz")
    accuracy = clipped(scaled(edit_distance, -0.25, offset=1), low=0)
    assert accuracy(["abcd", "abcx", "xxxxxxxx"], [["abcd"]] * 3).tolist() == [1, 0.75, 0]
    assert str(scaled(edit_distance, -1)(["a"], [["a"]])) == "tensor([0.])"  # and not -0.


def test_scores_of_prefixes_are_put_together_too() -> None:
    def prefixes(hypotheses: Any, references: Any, *, per_prefix: bool = False) -> Tensor:
        scores = torch.arange(4.0).expand(2, 4)
        return scores if per_prefix else scores[:, -1]

    ids = torch.zeros(2, 4, dtype=torch.int64)
    reward = weighted_sum({"a": (2, clipped(prefixes, high=2)), "b": (1, scaled(prefixes, -1))})
    assert reward(ids, [[1], [1]], per_prefix=True).tolist() == [[0, 1, 2, 1]] * 2
    assert reward(ids, [[1], [1]]).tolist() == [1, 1]
    with pytest.raises(ValueError, match="per_prefix must be left out with a penalty of length"):
        length_penalty()(ids, [[1], [1]], per_prefix=True)


def test_a_gate_keeps_out_what_does_not_pass() -> None:
    reward = gated(constant(1.0, 2.0, 3.0), constant(1.0, 0.5, float("nan")), 1, otherwise=-7)
    assert reward(WORDS, REFERENCES).tolist() == [1, -7, -7]


def test_nan_stays_nan_in_bounds() -> None:
    scores = clipped(constant(float("nan"), 5.0, -5.0), -1, 1)(WORDS, REFERENCES)
    assert scores[0].isnan()
    assert scores[1:].tolist() == [1, -1]


def test_length_against_the_closest_reference() -> None:
    references = [["1234", "12345678"]]
    for length, ratio in ((4, 1), (5, 5 / 4), (6, 6 / 4), (7, 7 / 8), (16, 2), (0, 0)):
        score = length_penalty()(["x" * length], references).item()
        assert score == pytest.approx(-abs(ratio - 1)), length
    assert length_penalty()(["", "ab"], [[""], [""]]).tolist() == [-1, -1]
    short, long = ["x"], ["x" * 12]
    assert length_penalty(low=0)(short, references).tolist() == [0]
    assert length_penalty(high=float("inf"))(long, references).tolist() == [0]
    assert length_penalty(0.5, 1.25)(long, references).tolist() == [-0.25]


def test_length_counts_what_counts() -> None:
    ids = torch.tensor([[[5, 2, 6, 7], [5, 6, 7, 8]], [[2, 5, 6, 7], [5, 6, 2, 2]]])
    references = torch.tensor([[1, 3, 2, 9], [1, 3, 4, 2]])
    penalty = length_penalty()
    expected = torch.tensor([[1 / 2, 4 / 3], [0, 2 / 3]])
    assert torch.allclose(penalty(ids, references, eos=2), -(expected - 1).abs())
    expected = torch.tensor([[2 / 3, 1], [1 / 3, 3 / 4]])
    assert torch.allclose(penalty(ids, references, eos=2, keep_eos=True), -(expected - 1).abs())
    mask = torch.arange(4) < torch.tensor([[[1], [4]], [[0], [2]]])
    plain = [[1, 3], [1, 3, 4]]
    assert torch.equal(penalty(ids, plain, mask=mask), penalty(ids, references, eos=2))
    words = length_penalty(length=lambda text: len(text.split()))
    assert words(["a very long cat"], [["a cat"]]).tolist() == [-1]


def test_overlong_is_the_formula_of_the_paper() -> None:
    reward = overlong_penalty(10, 4)
    lists = [[0] * n for n in range(13)]
    scores = reward(lists, [[0]] * 13).tolist()
    for n, score in enumerate(scores):
        expected = 0.0 if n <= 6 else -1.0 if n > 10 else (6 - n) / 4
        assert score == expected, n
    assert scores[10] == -1  # a sample that the limit cut off


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0, 2.0], "reward bad must return a tensor of real numbers, got list"),
        (torch.ones(2, dtype=torch.complex64), "real numbers, got torch.complex64"),
    ],
)
def test_what_is_no_tensor_of_numbers_is_named(scores: Any, message: str) -> None:
    def bad(hypotheses: Any, references: Any) -> Any:
        return scores

    with pytest.raises(TypeError, match=message):
        scaled(bad, 2)(["a", "b"], ["a", "b"])


def test_scores_of_another_shape_are_named() -> None:
    with pytest.raises(ValueError, match=r"reward score must .* \(3,\), one for .* got \(2,\)"):
        weighted_sum({"x": (1, constant(1.0, 2.0))})(WORDS, REFERENCES)
    ids = torch.zeros(4, 3, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"shape \(4, 3\), one for .* got \(3,\)"):
        scores_of(constant(1.0, 2.0, 3.0), ids, [[1]] * 3)
    with pytest.raises(ValueError, match=r"shape \(3,\), a row for .* got \(3,\)"):
        clipped(constant(1.0, 2.0, 3.0), 0, 1)(WORDS, REFERENCES, per_prefix=True)


def test_scores_are_float32_and_detached() -> None:
    scores = scores_of(
        lambda h, r: torch.ones(1, dtype=torch.float64, requires_grad=True), ["a"], ["a"]
    )
    assert (scores.dtype, scores.requires_grad) == (torch.float32, False)
    assert scores_of(lambda h, r: torch.tensor([True]), ["a"], ["a"]).tolist() == [1]


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="parts must be a dict"):
        weighted_sum({})
    with pytest.raises(TypeError, match=r"parts must map 'x' to \(weight, reward\)"):
        weighted_sum({"x": constant(1.0)})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="weight of 'x' must be a number, got str"):
        weighted_sum({"x": ("1", constant(1.0))})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="factor must be a number"):
        scaled(constant(1.0), torch.ones(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="low must be below high, got 1 and 1"):
        clipped(constant(1.0), 1, 1)
    with pytest.raises(TypeError, match="at_least must be a number"):
        gated(constant(1.0), constant(1.0), None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"0 <= low <= high, got 1 and 0\.5"):
        length_penalty(1, 0.5)
    with pytest.raises(ValueError, match="buffer must be at most max_length, 3, got 4"):
        overlong_penalty(3, 4)
    with pytest.raises(TypeError, match="unexpected keyword argument 'maks'"):
        length_penalty()(["a"], ["a"], maks=None)


def failing(hypothesis: str, references: list[str]) -> float:
    """The number that a hypothesis is, but for 3."""
    if hypothesis == "3":
        raise ValueError("three")
    return float(hypothesis)


@pytest.mark.parametrize("wrap", ["sum", "scaled", "clipped", "gated", "gate", "cached"])
def test_a_failure_in_a_part_hides_nothing(wrap: str) -> None:
    part = per_sample(failing)
    one = constant(1.0, 1.0, 1.0, 1.0)
    reward, expected = {
        "sum": (weighted_sum({"x": (2, part), "y": (1, one), "z": (-1, part)}), [2, 3, None, None]),
        "scaled": (scaled(part, -1, 1), [0, -1, None, None]),
        "clipped": (clipped(part, high=1), [1, 1, None, None]),
        "gated": (gated(part, one, 1), [1, 2, None, None]),
        "gate": (gated(one, part, 2, otherwise=-1), [-1, 1, None, None]),
        # The sum's scores are what is remembered, not those of the part that failed.
        "cached": (cached(scaled(part, 10)), [10, 20, None, None]),
    }[wrap]
    hypotheses, references = ["1", "2", "3", "x"], ["0"] * 4
    for _ in range(2):
        with pytest.raises(FailedSamples) as caught:
            reward(hypotheses, references)
        assert caught.value.failures == {
            2: "ValueError: three",
            3: "ValueError: could not convert string to float: 'x'",
        }
        scores = [None if x != x else x for x in caught.value.scores.tolist()]
        assert scores == expected
    if isinstance(reward, WeightedSum):
        assert reward.parts["y"].tolist() == [1] * 4
        assert reward.parts["x"][:2].tolist() == [1, 2]
