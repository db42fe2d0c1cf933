"""Edit distances against the textbook recursion, on every kind of input."""

import random
from collections.abc import Sequence

import jiwer
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein
from text_cases import PIECES, pairs, sentences

from pgest.rewards import cer, closest_reference, edit_distance, error_rate, wer


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


@pytest.mark.parametrize("seed", range(4))
def test_distance_equals_rapidfuzz(seed: int) -> None:
    """Long ones too, of several words of bits."""
    batch = list(pairs(seed, 5000))
    want = [min((Levenshtein.distance(h, r), len(r)) for r in group) for h, group in batch]
    closest = closest_reference([h for h, _ in batch], [group for _, group in batch])
    assert list(zip(closest.distance.tolist(), closest.length.tolist(), strict=True)) == want


@settings(max_examples=200, deadline=None)
@given(
    h=st.lists(st.integers(0, 2), max_size=10),
    references=st.lists(st.lists(st.integers(0, 2), max_size=10), min_size=1, max_size=3),
)
def test_prefixes_have_the_distance_of_their_own(h: list[int], references: list[list[int]]) -> None:
    closest = closest_reference([h, []], [references, [[1]]], per_prefix=True)
    assert closest.distance.shape == (2, len(h))
    for t in range(len(h)):
        one = closest_reference([h[: t + 1]], [references])
        assert closest.distance[0, t] == one.distance
        assert closest.length[0, t] == one.length
        assert closest.distance[1, t] == 1


def test_rates_of_words_and_characters_equal_jiwers() -> None:
    batch = [(h, r[0]) for h, r in sentences(11, 5000)]
    # jiwer refuses an empty reference, and splits words at spaces alone.
    batch = [(h, r) for h, r in batch if r.split() and not set(h + r) & set("\t\n\u00a0\u2028")]
    assert len(batch) > 1000
    hypotheses, references = [h for h, _ in batch], [r for _, r in batch]
    words = wer(hypotheses, references, dtype=torch.float64)
    assert words.tolist() == [jiwer.wer(r, h) for h, r in batch]
    characters = cer(hypotheses, references, dtype=torch.float64)
    assert characters.tolist() == [jiwer.cer(r, h) for h, r in batch]
    closest = closest_reference([h.split() for h in hypotheses], [r.split() for r in references])
    corpus = (closest.distance.sum() / closest.length.sum()).item()
    assert corpus == pytest.approx(jiwer.wer(references, hypotheses))


def test_all_white_space_parts_words() -> None:
    assert len({piece for piece in PIECES if piece.isspace()}) > 4
    for space in (" ", "\t", "\n", "\u00a0", "\u2028"):
        assert wer([f"a{space}b"], ["a b"]).item() == 0


def test_words_and_characters_are_of_strings() -> None:
    for rate in (wer, cer):
        with pytest.raises(TypeError, match=f"hypotheses of {rate.__name__} must be strings"):
            rate([[1, 2]], [[1, 2]])
