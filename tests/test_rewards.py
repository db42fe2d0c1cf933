"""Edit distances against the textbook recursion, on every kind of input."""

import random
import sys
from collections.abc import Sequence

import pytest
import torch

from pgest.rewards import closest_reference, edit_distance, error_rate

pytest.importorskip("rapidfuzz")


def textbook(a: Sequence[object], b: Sequence[object]) -> int:
    """Levenshtein's distance by its recurrence, one row at a time."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def draw(rng: random.Random, symbols: int) -> list[int]:
    return [rng.randrange(symbols) for _ in range(rng.randrange(12))]


@pytest.mark.parametrize("symbols", [2, 5, 100_000])
def test_distance_matches_the_recurrence(symbols: int) -> None:
    rng = random.Random(symbols)
    hypotheses = [draw(rng, symbols) for _ in range(300)]
    references = [[draw(rng, symbols) for _ in range(rng.randrange(1, 4))] for _ in range(300)]
    expected = [
        min((textbook(h, r), len(r)) for r in group)
        for h, group in zip(hypotheses, references, strict=True)
    ]
    closest = closest_reference(hypotheses, references)
    assert closest.distance.tolist() == [distance for distance, _ in expected]
    assert closest.length.tolist() == [length for _, length in expected]
    assert closest.distance.dtype == torch.float32


def test_ids_of_samples_score_like_lists() -> None:
    rng = random.Random(0)
    ids = torch.randint(0, 4, (3, 5, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(7) < torch.tensor([7, 0, 3, 5, 1]).view(1, 5, 1)
    mask = mask.expand_as(ids)
    references = [[draw(rng, 4), draw(rng, 4)] for _ in range(5)]
    scores = edit_distance(ids, references, mask=mask)
    assert scores.shape == (3, 5)
    for s in range(3):
        rows = [ids[s, b][mask[s, b]].tolist() for b in range(5)]
        assert torch.equal(scores[s], edit_distance(rows, references))
    unmasked = edit_distance(ids[0], references)
    assert torch.equal(unmasked, edit_distance(ids[0].tolist(), references))


def test_strings_and_token_lists() -> None:
    assert edit_distance(["kitten", ""], [["sitting"], ["ab"]]).tolist() == [3, 2]
    assert edit_distance([["K", "AE1"]], [[["K", "AE0", "T"]]]).tolist() == [2]


def test_rate_divides_by_the_closest_reference_the_shorter_of_equals() -> None:
    # Both are one edit away: the one of 2 tokens counts, not that of 4.
    assert error_rate([[1, 2, 3]], [[[1, 2, 3, 4], [1, 2]]]).tolist() == [0.5]
    # The closest is the one of fewer edits, though the other would give the lower rate.
    assert error_rate([[1, 2]], [[[3, 2], [1, 2, 9, 9, 9, 9]]]).tolist() == [0.5]
    assert error_rate([[1, 2], []], [[[]], [[]]]).tolist() == [2, 0]
    assert error_rate([[]], [[[7, 7]]]).tolist() == [1]


def test_empty_batches_keep_their_shape() -> None:
    assert error_rate([], []).shape == (0,)
    assert error_rate(torch.zeros(3, 0, 4, dtype=torch.int64), []).shape == (3, 0)


def test_bad_input_is_named() -> None:
    ids = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="references must have 2 items, one per hypothesis, got 1"):
        error_rate(ids, [[[1]]])
    with pytest.raises(ValueError, match=r"references must hold non-empty lists .* at item 1"):
        error_rate(ids, [[[1]], []])
    with pytest.raises(ValueError, match="got 'ab' at item 0"):
        error_rate(["ab"], ["ab"])
    with pytest.raises(ValueError, match=r"mask must be bool \(2, 3\) .* got torch.bool \(3,\)"):
        error_rate(ids, [[[1]], [[1]]], mask=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask must be None"):
        error_rate(["ab"], [["ab"]], mask=torch.ones(1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"hypotheses must be .* got torch\.float32"):
        error_rate(ids.float(), [[[1]], [[1]]])


def test_missing_rapidfuzz_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    with pytest.raises(ImportError, match=r'pip install "pgest\[text\]"'):
        error_rate(["ab"], [["ab"]])


def test_tensors_as_sequences_count_by_value() -> None:
    ids = torch.tensor([[5, 6, 7]])
    assert error_rate(ids, [[torch.tensor([5, 6, 7])]]).tolist() == [0]
    assert error_rate([torch.tensor([5, 6])], [[torch.tensor([5, 6])]]).tolist() == [0]


def test_a_missing_level_of_nesting_is_named() -> None:
    with pytest.raises(TypeError, match="one list of references per hypothesis, got 5"):
        error_rate([[5, 6]], [[5, 6]])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="hypotheses must be a list of sequences"):
        error_rate("ab", [["ab"], ["ab"]])
