"""ROUGE against rouge-score; exact match and token F1 against their definition."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from text_cases import pairs, sentences, spell

from pgest.rewards import exact_match, rouge_l, rouge_n, squad, token_f1

MEASURES = ("precision", "recall", "fmeasure")


class Split:
    """Ids joined by spaces are tokens already."""

    tokenize = staticmethod(str.split)


def mine(kind: str, *args: Any, **options: Any) -> torch.Tensor:
    """The function that computes rouge-score's `kind`."""
    options["dtype"] = torch.float64
    return (
        rouge_l(*args, **options)
        if kind == "rougeL"
        else rouge_n(*args, n=int(kind[-1]), **options)
    )


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rouge3", "rougeL"])
@pytest.mark.parametrize("stem", [False, True])
def test_scores_of_strings_equal_rouge_scores(kind: str, stem: bool) -> None:
    batch = list(sentences(len(kind) + stem, 1500))
    scorer = RougeScorer([kind], use_stemmer=stem)
    found = [scorer.score_multi(r, h)[kind] for h, r in batch]
    for measure in MEASURES:
        got = mine(kind, [h for h, _ in batch], [r for _, r in batch], measure=measure, stem=stem)
        assert got.tolist() == [getattr(x, measure) for x in found]


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_scores_of_ids_equal_rouge_scores(kind: str) -> None:
    batch = list(pairs(7, 2500))
    scorer = RougeScorer([kind], tokenizer=Split())
    want = [scorer.score_multi([spell(x) for x in r], spell(h))[kind].fmeasure for h, r in batch]
    got = mine(kind, [h for h, _ in batch], [r for _, r in batch])
    assert got.tolist() == want


def test_prefixes_of_rouge_l() -> None:
    for h, r in pairs(8, 60, longest=70):
        scores = rouge_l([h], [r], per_prefix=True)
        assert scores[0].tolist() == [rouge_l([h[: t + 1]], [r]).item() for t in range(len(h))]


def f1(h: list[Any], r: list[Any]) -> float:
    """SQuAD 2's token F1."""
    if not h or not r:
        return float(h == r)
    shared = sum((Counter(h) & Counter(r)).values())
    precision, recall = shared / len(h), shared / len(r)
    return 2 * precision * recall / (precision + recall) if shared else 0.0


def test_token_f1_and_exact_match_equal_their_definition() -> None:
    batch = list(pairs(9, 3000))
    hypotheses, references = [h for h, _ in batch], [r for _, r in batch]
    want = [max(f1(h, x) for x in r) for h, r in batch]
    assert token_f1(hypotheses, references, dtype=torch.float64).tolist() == want
    assert exact_match(hypotheses, references).tolist() == [float(h in r) for h, r in batch]


def test_answers_are_compared_as_squad_compares_them() -> None:
    assert squad("The  Cat's  hat, an  end") == "cats hat end"
    answers = ["the Eiffel Tower!", "in Paris", ""]
    references = [["Eiffel tower"], ["Paris", "paris, france"], ["a"]]
    assert exact_match(answers, references).tolist() == [0, 0, 0]
    assert exact_match(answers, references, normalize="squad").tolist() == [1, 0, 1]
    scores = token_f1(answers, references, normalize="squad")
    assert scores.tolist() == [1, pytest.approx(2 / 3), 1]
    assert exact_match(["AB"], ["ab"], normalize=str.lower).item() == 1


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="n must be from 1 to 16, got 0"):
        rouge_n([[1]], [[1]], n=0)
    with pytest.raises(ValueError, match=r"measure must be one of \['precision', .*got 'f1'"):
        rouge_l([[1]], [[1]], measure="f1")
    with pytest.raises(ValueError, match="stem must be False where hypotheses are no strings"):
        rouge_l([[1]], [[1]], stem=True)
    with pytest.raises(ValueError, match="normalize must be \"squad\" or a function, got 'lower'"):
        exact_match(["a"], ["a"], normalize="lower")
    with pytest.raises(ValueError, match="normalize must be None where hypotheses are no strings"):
        token_f1([[1]], [[1]], normalize="squad")
