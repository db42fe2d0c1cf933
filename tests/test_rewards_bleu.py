"""BLEU against sacrebleu: no difference in float64, over the whole grid of settings."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from text_cases import pairs, sentences, spell

from pgest.rewards import bleu, bleu_statistics, corpus_bleu

SMOOTHINGS = ("none", "floor", "add-k", "exp")
GRID = list(itertools.product(SMOOTHINGS, (True, False), (1, 2, 3, 4, 5, 6)))


def expected(h: list[int], references: list[list[int]], **options: Any) -> float:
    """sacrebleu's score of ids."""
    metric = BLEU(tokenize="none", **options)
    return float(metric.sentence_score(spell(h), [spell(r) for r in references]).score)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("smoothing", "effective", "order"), GRID)
def test_scores_equal_sacrebleus(smoothing: str, effective: bool, order: int) -> None:
    batch = list(pairs(hash((effective, order)) + len(smoothing), 450))
    options = {"smooth_method": smoothing, "effective_order": effective, "max_ngram_order": order}
    want = [expected(h, r, **options) for h, r in batch]
    hypotheses, references = [h for h, _ in batch], [r for _, r in batch]
    mine: dict[str, Any] = {"smoothing": smoothing, "effective_order": effective}
    got = bleu(hypotheses, references, max_order=order, dtype=torch.float64, **mine)
    assert got.tolist() == want
    assert any(0 < x < 100 for x in want)


@settings(max_examples=300, deadline=None)
@given(
    h=st.lists(st.integers(0, 3), max_size=12),
    references=st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=3),
    smoothing=st.sampled_from(SMOOTHINGS),
    effective=st.booleans(),
    order=st.integers(1, 6),
    value=st.sampled_from([None, 0.0, 0.3, 2]),
)
def test_any_small_case_equals_sacrebleus(
    h: list[int],
    references: list[list[int]],
    smoothing: str,
    effective: bool,
    order: int,
    value: float | None,
) -> None:
    value = value if smoothing in ("floor", "add-k") else None
    mine: dict[str, Any] = {"smoothing": smoothing, "effective_order": effective}
    mine |= {"max_order": order, "smoothing_value": value, "dtype": torch.float64}
    want = expected(
        h,
        references,
        smooth_method=smoothing,
        effective_order=effective,
        max_ngram_order=order,
        smooth_value=value,
    )
    assert bleu([h], [references], **mine).tolist() == [want]
    prefixes = bleu([h], [references], per_prefix=True, **mine)
    assert prefixes.shape == (1, len(h))
    assert prefixes[0].tolist() == [
        bleu([h[: t + 1]], [references], **mine).item() for t in range(len(h))
    ]


@pytest.mark.parametrize("tokenize", [None, "13a", "intl", "char", "zh", "none"])
@pytest.mark.parametrize("lowercase", [False, True])
def test_strings_go_through_sacrebleus_tokenizers(tokenize: str | None, lowercase: bool) -> None:
    batch = list(sentences(3, 500))
    metric = BLEU(tokenize=tokenize or "13a", lowercase=lowercase, effective_order=True)
    want = [metric.sentence_score(h, r).score for h, r in batch]
    got = bleu(
        [h for h, _ in batch],
        [r for _, r in batch],
        tokenize=tokenize,
        lowercase=lowercase,
        dtype=torch.float64,
    )
    assert got.tolist() == want


def test_a_function_may_tokenize() -> None:
    assert bleu(["a-b-c-d"], ["a-b-c-d"], tokenize=lambda s: s.replace("-", " ")).tolist() == [
        pytest.approx(100)
    ]


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("effective", [False, True])
def test_a_corpus_is_the_sum_of_statistics(smoothing: str, effective: bool) -> None:
    batch = [(h, r[:1]) for h, r in pairs(5, 200)]
    metric = BLEU(tokenize="none", smooth_method=smoothing, effective_order=effective)
    found = metric.corpus_score([spell(h) for h, _ in batch], [[spell(r[0]) for _, r in batch]])
    statistics = bleu_statistics([h for h, _ in batch], [r for _, r in batch])
    if smoothing != "add-k":  # which sacrebleu adds to the counts that it returns
        counts = [found.sys_len, found.ref_len, *found.counts, *found.totals]
        assert statistics.sum(0).tolist() == counts
    score = corpus_bleu(statistics, smoothing=smoothing, effective_order=effective)
    assert score == found.score
    halves = torch.stack([statistics[:100].sum(0), statistics[100:].sum(0)])
    assert corpus_bleu(halves, smoothing=smoothing, effective_order=effective) == score


def test_the_rules_by_hand() -> None:
    def one(h: list[int], references: Any, **options: Any) -> float:
        return float(bleu([h], [references], **options))

    # Of references as close as each other the shorter counts: no brevity penalty.
    assert one([1, 2, 3], [[1, 2], [1, 2, 3, 4]], max_order=1) == 100
    assert one([], [1, 2]) == 0
    assert one([], [[]]) == 0
    assert one([1], [1]) == 100  # orders that do not exist do not count
    assert one([1], [1], effective_order=False, smoothing="none") == 0
    assert one([1, 1, 1, 1], [2, 3, 4, 5], smoothing="add-k") == 0  # without a match, whatever
    # Shorter than its reference: exp(1 - 4/2), all else right.
    assert one([1, 2], [1, 2, 3, 4]) == pytest.approx(100 * math.exp(-1))
    # A repeated word counts once for each time the reference has it.
    assert one([7] * 4, [7, 7, 8, 9], max_order=1) == 50


def test_the_known_tricks_earn_what_they_earn_from_sacrebleu() -> None:
    perfect = list(range(10))
    options = {"none": 0, "floor": 2.1, "exp": 4.2, "add-k": 10.9}
    for smoothing, earns in options.items():
        score = bleu([[3] * 10], [perfect], smoothing=smoothing, effective_order=True)
        assert score.item() == pytest.approx(earns, abs=0.06)
    assert bleu([[*perfect, 9, 9, 9, 9, 9]], [perfect]).item() == pytest.approx(62.6, abs=0.1)


def test_settings_out_of_range_are_named() -> None:
    h, r = [[1, 2]], [[1, 2]]
    with pytest.raises(ValueError, match=r"smoothing must be one of \['none', .*got 'epx'"):
        bleu(h, r, smoothing="epx")
    for order in (0, 17, 2.0, True):
        with pytest.raises(ValueError, match=f"max_order must be from 1 to 16, got {order}"):
            bleu(h, r, max_order=order)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="smoothing_value must be None for smoothing='exp', got 1"):
        bleu(h, r, smoothing_value=1)
    for value in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="smoothing_value must be 0 or more"):
            bleu(h, r, smoothing="floor", smoothing_value=value)
    with pytest.raises(ValueError, match="tokenize must be None where hypotheses are no strings"):
        bleu(h, r, tokenize="13a")
    with pytest.raises(ValueError, match="lowercase must be False where hypotheses are no strings"):
        bleu(h, r, lowercase=True)
    with pytest.raises(ValueError, match=r"tokenize must be one of \['13a', .*got '14a'"):
        bleu(["a"], ["a"], tokenize="14a")
    with pytest.raises(ValueError, match=r"statistics must be int64 .* got torch.float32 \(3,\)"):
        corpus_bleu(torch.zeros(3))
