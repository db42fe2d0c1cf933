"""A cached reward says what the reward says, and asks for each pair once."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from pgest.rewards import FailedSamples, cached, per_sample
from pgest.rewards.pairs import Item, pairs_of


def digits(item: Item) -> int:
    """The sum of what a string's characters or a list's tokens are as numbers."""
    return sum(int(str(token)) for token in item)


class Counted:
    """A reward of pairs that notes how many it is asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, hypotheses: Any, references: Any, power: int = 1, **options: Any) -> Tensor:
        pairs = pairs_of(hypotheses, references, **options)
        self.asked.append(len(pairs.hypotheses))
        scores = [
            100.0 * digits(item) + sum(map(digits, pairs.group(i)))
            for i, item in enumerate(pairs.hypotheses)
        ]
        return torch.tensor(scores).reshape(pairs.shape) ** power


def batch(rng: random.Random, kind: str) -> tuple[Any, Any, dict[str, Any]]:
    """A batch with many repetitions."""
    items = [[rng.randrange(3) for _ in range(rng.randrange(3))] for _ in range(8)]
    references = [[rng.choice([[1], [2, 2]])] for _ in range(4)]
    if kind == "strings":
        strings = ["".join(map(str, item)) for item in items[:4]]
        return strings, [["".join(map(str, r)) for r in group] for group in references], {}
    if kind == "lists":
        return items[:4], references, {}
    ids = torch.full((2, 4, 3), 9)
    mask = torch.zeros(2, 4, 3, dtype=torch.bool)
    for i, item in enumerate(items):
        ids[i // 4, i % 4, : len(item)] = torch.tensor(item)
        mask[i // 4, i % 4, : len(item)] = True
    if kind == "masks":
        return ids, references, {"mask": mask}
    if kind == "lengths":
        return ids, references, {"lengths": mask.sum(-1)}
    return ids, torch.tensor([[*r, 9, 7][:3] for (r,) in references]), {"eos": 9}


@pytest.mark.parametrize("kind", ["strings", "lists", "masks", "lengths", "eos"])
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_cache_changes_no_score(kind: str, size: int) -> None:
    rng = random.Random(size)
    counted = Counted()
    reward = cached(counted, size=size)
    total = 0
    for _ in range(20):
        hypotheses, references, options = batch(rng, kind)
        scores = reward(hypotheses, references, **options)
        expected = Counted()(hypotheses, references, **options)
        assert torch.equal(scores, expected)
        assert scores.shape == expected.shape
        total += scores.numel()
        assert len(reward) <= size
    assert reward.hits + reward.misses == total
    assert sum(counted.asked) == reward.misses
    assert reward.misses < total * (0.3 if size == 1000 else 0.95)


def test_a_pair_is_the_same_whatever_its_padding() -> None:
    counted = Counted()
    reward = cached(counted)
    first = reward(torch.tensor([[1, 2, 9]]), torch.tensor([[3, 9, 9]]), eos=9)
    again = reward(torch.tensor([[1, 2, 9, 1, 9]]), torch.tensor([[3, 9]]), eos=9)
    assert torch.equal(first, again)
    assert counted.asked == [1]
    kept = reward(torch.tensor([[1, 2, 9]]), torch.tensor([[3, 9]]), eos=9, keep_eos=True)
    assert kept.item() == first.item() + 909
    assert counted.asked == [1, 1]


def test_other_options_are_other_pairs() -> None:
    counted = Counted()
    reward = cached(counted)
    assert reward(["1"], ["2"]).tolist() == [102]
    assert reward(["1"], ["2"], power=2).tolist() == [102**2]
    assert (reward.hits, reward.misses) == (0, 2)
    with pytest.raises(TypeError, match="options of a cached reward must be hashable"):
        reward(["1"], ["2"], power=[2])


def test_the_least_recently_used_is_forgotten() -> None:
    counted = Counted()
    reward = cached(counted, size=2)
    for text, asked in (("1", 1), ("2", 2), ("1", 2), ("3", 3), ("1", 3), ("2", 4)):
        reward([text], ["0"])
        assert len(counted.asked) == asked, text
    reward.clear()
    assert len(reward) == 0
    reward(["1"], ["0"])
    assert len(counted.asked) == 5


def test_an_empty_batch_asks_for_nothing() -> None:
    counted = Counted()
    assert cached(counted)([], []).shape == (0,)
    assert cached(counted)(torch.zeros(3, 0, 2, dtype=torch.int64), []).shape == (3, 0)
    assert counted.asked == []


def number(hypothesis: str, references: list[str]) -> float:
    return float(hypothesis)


def test_failures_keep_their_place_and_are_tried_again() -> None:
    reward = cached(per_sample(number))
    with pytest.raises(FailedSamples) as caught:
        reward(["1", "x", "1", "2", "x"], ["0"] * 5)
    assert list(caught.value.failures) == [1, 4]
    assert caught.value.scores.isnan().tolist() == [False, True, False, False, True]
    assert caught.value.scores[[0, 2, 3]].tolist() == [1, 1, 2]
    assert reward(["2", "1"], ["0"] * 2).tolist() == [2, 1]
    assert (reward.hits, reward.misses) == (4, 3)
    lenient = per_sample(number, on_error="nan")
    reward = cached(lenient)
    with pytest.warns(RuntimeWarning, match="1 of 1 samples could not be scored"):
        assert reward(["x"], ["0"]).isnan().all()
    assert reward(["x"], ["0"]).isnan().all()
    assert reward.misses == 2


def test_bad_use_is_named() -> None:
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        cached(Counted(), size=0)
    with pytest.raises(ValueError, match="per_prefix must be left out with cached"):
        cached(Counted())(["1"], ["1"], per_prefix=True)
