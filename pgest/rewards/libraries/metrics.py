"""The metrics on encoded sequences. sacrebleu, rapidfuzz and rouge-score load when used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from pgest.rewards.libraries.encoding import Sequences

MOST_ORDERS = 16


class Bleu(NamedTuple):
    """Settings of BLEU."""

    orders: int
    smoothing: str
    value: float
    effective_order: bool
    compensated: bool


def bleu(
    h: Sequences, r: Sequences, starts: np.ndarray, threads: int, settings: Bleu, width: int
) -> np.ndarray:
    """sacrebleu's sentence score."""
    metric = _sacrebleu(settings)

    def score(hypothesis: Sequence[int], references: list[list[int]]) -> float:
        return float(
            metric.sentence_score(_spell(hypothesis), [_spell(x) for x in references]).score
        )

    return _each(h, r, starts, width, score)


def bleu_statistics(
    h: Sequences, r: Sequences, starts: np.ndarray, threads: int, settings: Bleu
) -> np.ndarray:
    """sacrebleu's lengths, matches and totals."""
    metric = _sacrebleu(settings._replace(smoothing="none", value=0.0, effective_order=True))
    rows = []
    for hypothesis, references in _pairs(h, r, starts):
        found = metric.sentence_score(_spell(hypothesis), [_spell(x) for x in references])
        rows.append([found.sys_len, found.ref_len, *found.counts, *found.totals])
    return np.array(rows, dtype=np.int64).reshape(len(h), 2 + 2 * settings.orders)


def bleu_scores(statistics: np.ndarray, settings: Bleu) -> np.ndarray:
    """sacrebleu's score of statistics, for each row."""
    from sacrebleu.metrics.bleu import BLEU

    n = settings.orders
    value = settings.value if settings.smoothing in ("floor", "add-k") else None
    options = (settings.smoothing, value, settings.effective_order, n)
    rows = ([int(x) for x in row] for row in statistics)
    found = (BLEU.compute_bleu(x[2 : 2 + n], x[2 + n :], x[0], x[1], *options) for x in rows)
    return np.array([x.score for x in found], dtype=np.float64)


def chrf(
    h: Sequences,
    r: Sequences,
    starts: np.ndarray,
    threads: int,
    h_words: Sequences | None,
    r_words: Sequences | None,
    char_orders: int,
    word_orders: int,
    beta: float,
    eps_smoothing: bool,
    width: int,
) -> np.ndarray:
    """sacrebleu's chrF, of n-grams counted here: characters may be any ids."""
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise ImportError('chrF needs sacrebleu here: pip install "pgest[text]"') from error
    metric = CHRF(char_orders, word_orders, beta, eps_smoothing=eps_smoothing)  # type: ignore[arg-type]

    def score(hypothesis: Sequence[int], references: list[list[int]]) -> float:
        return max(f_score([hypothesis], [x]) for x in references)

    def f_score(hypothesis: list[Sequence[int]], reference: list[Sequence[int]]) -> float:
        statistics: list[int] = []
        for a, b, orders in zip(hypothesis, reference, (char_orders, word_orders), strict=False):
            for n in range(1, orders + 1):
                statistics += metric._get_match_statistics(_ngrams(a, n), _ngrams(b, n))
        return float(metric._compute_f_score(statistics))

    if h_words is None or r_words is None:
        return _each(h, r, starts, width, score)
    pairs = zip(_pairs(h, r, starts), _pairs(h_words, r_words, starts), strict=True)
    return np.array(
        [
            max(f_score([a, c], [x, y]) for x, y in zip(b, d, strict=True))
            for (a, b), (c, d) in pairs
        ]
    )


def closest_reference(
    h: Sequences, r: Sequences, starts: np.ndarray, threads: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """rapidfuzz's distances; of references as close the shortest."""
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise ImportError('edit distances need rapidfuzz: pip install "pgest[text]"') from error

    def score(hypothesis: Sequence[int], references: list[list[int]]) -> tuple[int, int]:
        return min((int(Levenshtein.distance(hypothesis, x)), len(x)) for x in references)

    found = _each(h, r, starts, width, score, np.int64, (2,))
    return found[..., 0].copy(), found[..., 1].copy()


def rouge_n(h: Sequences, r: Sequences, starts: np.ndarray, threads: int, n: int) -> np.ndarray:
    """rouge-score's precision, recall and F-measure."""
    if n > 9:
        raise ValueError(f"n must be at most 9 without the compiled metrics, got {n}")
    return _each(h, r, starts, 0, _rouge(f"rouge{n}"), np.float64, (3,))


def rouge_l(h: Sequences, r: Sequences, starts: np.ndarray, threads: int, width: int) -> np.ndarray:
    """The same of the longest common subsequence."""
    return _each(h, r, starts, width, _rouge("rougeL"), np.float64, (3,))


def exact_match(h: Sequences, r: Sequences, starts: np.ndarray) -> np.ndarray:
    """1 where a reference equals the hypothesis."""
    return np.array([float(a in b) for a, b in _pairs(h, r, starts)], dtype=np.float64)


def _pairs(
    h: Sequences, r: Sequences, starts: np.ndarray
) -> Iterator[tuple[list[int], list[list[int]]]]:
    groups = [r.rows[a:b] for a, b in pairwise(starts)]
    return ((row, groups[i % len(groups)]) for i, row in enumerate(h.rows))


def _each(
    h: Sequences,
    r: Sequences,
    starts: np.ndarray,
    width: int,
    score: Callable[[Sequence[int], list[list[int]]], Any],
    dtype: Any = np.float64,
    more: tuple[int, ...] = (),
) -> np.ndarray:
    """A score of each hypothesis, or of its first 0, 1, 2, ... tokens, the last one repeated."""
    if not width:
        values = [score(a, b) for a, b in _pairs(h, r, starts)]
        return np.array(values, dtype=dtype).reshape(len(h), *more)
    rows = [[score(a[:t], b) for t in range(len(a) + 1)] for a, b in _pairs(h, r, starts)]
    rows = [row + row[-1:] * (width - len(row)) for row in rows]
    return np.array(rows, dtype=dtype).reshape(len(h), width, *more)


def _sacrebleu(settings: Bleu) -> Any:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise ImportError('BLEU needs sacrebleu here: pip install "pgest[text]"') from error
    value = settings.value if settings.smoothing in ("floor", "add-k") else None
    return BLEU(
        smooth_method=settings.smoothing,
        smooth_value=value,
        max_ngram_order=settings.orders,
        effective_order=settings.effective_order,
        tokenize="none",
    )


def _rouge(kind: str) -> Callable[[Sequence[int], list[list[int]]], tuple[float, float, float]]:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ImportError('ROUGE needs rouge-score here: pip install "pgest[text]"') from error

    class Split:
        tokenize = staticmethod(str.split)

    scorer = RougeScorer([kind], tokenizer=Split())

    def score(hypothesis: Sequence[int], references: list[list[int]]) -> tuple[float, float, float]:
        found = scorer.score_multi([_spell(x) for x in references], _spell(hypothesis))[kind]
        return found.precision, found.recall, found.fmeasure

    return score


def _spell(tokens: Sequence[int]) -> str:
    return " ".join(map(str, tokens))


def _ngrams(tokens: Sequence[int], n: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
