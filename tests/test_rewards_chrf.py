"""chrF and chrF++ against sacrebleu: no difference in float64."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.chrf import CHRF
from text_cases import pairs, sentences

from pgest.rewards import chrf

GRID = list(itertools.product((1, 3, 6), (0, 2), (False, True), (False, True)))


def private(ids: list[int]) -> str:
    """Each id as a character that means nothing."""
    return "".join(chr(0xE000 + i) for i in ids)


@pytest.mark.parametrize(("char_order", "word_order", "eps", "whitespace"), GRID)
def test_scores_equal_sacrebleus(
    char_order: int, word_order: int, eps: bool, whitespace: bool
) -> None:
    batch = list(sentences(char_order + 10 * word_order + eps, 850))
    options: dict[str, Any] = {"char_order": char_order, "word_order": word_order}
    options |= {"eps_smoothing": eps, "whitespace": whitespace, "lowercase": eps}
    metric = CHRF(**options)
    want = [metric.sentence_score(h, r).score for h, r in batch]
    got = chrf([h for h, _ in batch], [r for _, r in batch], dtype=torch.float64, **options)
    assert got.tolist() == want
    assert any(0 < x < 100 for x in want)


@pytest.mark.parametrize("beta", [0, 1, 2, 3, 0.5])
def test_ids_are_characters(beta: float) -> None:
    batch = list(pairs(int(10 * beta), 300))
    metric = CHRF(beta=beta)  # type: ignore[arg-type]
    want = [metric.sentence_score(private(h), list(map(private, r))).score for h, r in batch]
    got = chrf([h for h, _ in batch], [r for _, r in batch], beta=beta, dtype=torch.float64)
    assert got.tolist() == want


@settings(max_examples=200, deadline=None)
@given(h=st.text(max_size=20), r=st.lists(st.text(max_size=20), min_size=1, max_size=3))
def test_any_text_equals_sacrebleus(h: str, r: list[str]) -> None:
    for word_order in (0, 2):
        want = CHRF(word_order=word_order).sentence_score(h, r).score
        got = chrf([h], [r], word_order=word_order, dtype=torch.float64)
        assert got.tolist() == [want]


@pytest.mark.parametrize("whitespace", [False, True])
def test_prefixes_of_strings_pieces_and_ids(whitespace: bool) -> None:
    options: dict[str, Any] = {"whitespace": whitespace, "dtype": torch.float64}
    text, pieces, reference = "the cat  sat", ["the", " c", "", "at ", " sat"], ["a cat sat", "thx"]
    by_character = chrf([text, "x"], [reference, "x"], per_prefix=True, **options)
    assert by_character.shape == (2, len(text))
    for t in range(len(text)):
        want = chrf([text[: t + 1], "x"], [reference, "x"], **options)
        assert torch.equal(by_character[:, t], want)
    by_piece = chrf([pieces, []], [reference, "x"], per_prefix=True, **options)
    for t in range(len(pieces)):
        joined = "".join(pieces[: t + 1])
        assert torch.equal(by_piece[:, t], chrf([joined, ""], [reference, "x"], **options))
    ids = torch.tensor([[4, 5, 6, 4]])
    by_id = chrf(ids, [[4, 5, 4]], per_prefix=True)
    assert by_id[0].tolist() == [chrf([ids[0, : t + 1]], [[4, 5, 4]]).item() for t in range(4)]


def test_what_needs_text_says_so() -> None:
    with pytest.raises(ValueError, match="word_order must be 0 where hypotheses are ids, got 2"):
        chrf([[1]], [[1]], word_order=2)
    with pytest.raises(ValueError, match="lowercase must be False where hypotheses are ids"):
        chrf([[1]], [[1]], lowercase=True)
    with pytest.raises(ValueError, match="per_prefix must be False for word_order > 0"):
        chrf(["a"], ["a"], word_order=2, per_prefix=True)
    with pytest.raises(ValueError, match="char_order must be from 1 to 16, got 0"):
        chrf(["a"], ["a"], char_order=0)
    with pytest.raises(ValueError, match="beta must be 0 or more, got -1"):
        chrf(["a"], ["a"], beta=-1)
    with pytest.raises(
        TypeError, match=r"hypotheses\[0\] must be a list of strings, got \['a', 1\]"
    ):
        chrf([["a", 1]], ["a"])
    with pytest.raises(ValueError, match="eos must be None where hypotheses are pieces"):
        chrf([["a"]], ["a"], eos="b")
