"""ROUGE-N and ROUGE-L: rouge-score's, on ids too."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgest.rewards.backend import text
from pgest.rewards.sequences import Hypotheses, Pairs, References, Unit, is_ids, read, scores

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pgest.rewards.sequences import Counting

MEASURES = ("precision", "recall", "fmeasure")


def rouge_n(
    hypotheses: Hypotheses,
    references: References,
    *,
    n: int = 1,
    measure: str = "fmeasure",
    stem: bool = False,
    dtype: torch.dtype = torch.float32,
    **counting: Unpack[Counting],
) -> Tensor:
    """Return the ROUGE-N of each hypothesis, 0 to 1: how many n-grams it shares with a reference.

        precision = shared / in the hypothesis,  recall = shared / in the reference,
        fmeasure = 2 precision recall / (precision + recall)

    Of several references the one with the best F-measure counts.

    Args:
        hypotheses: B strings, B lists of tokens, or ids `[..., B, T]`. Strings are lower-cased and
            split into what is made of a-z and 0-9, as rouge-score does.
        references: B items, each one sequence of the same kind or a list of them; or padded ids
            `[B, T]`, `[B, R, T]`.
        n: of the n-grams, from 1 to 16.
        measure: "fmeasure", "precision" or "recall".
        stem: for strings: Porter's stemmer on words of more than three letters (needs NLTK).
        dtype: of the result; scores are computed in float64.
        **counting: as in `bleu`.

    Returns:
        Scores `[B]`, or `[..., B]` for ids, on the CPU. Nothing is differentiable.

    Raises:
        ValueError, TypeError: for sequences that do not fit each other, and settings out of range.
        ImportError: for `stem` without NLTK.

    Source: Lin 2004, ROUGE: a package for automatic evaluation of summaries; equal to rouge-score.

    Example:
        >>> rouge_n(["the cat sat"], ["The cat sat down."], n=2)
        tensor([0.8000])
    """
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= text.MOST_ORDERS:
        raise ValueError(f"n must be from 1 to {text.MOST_ORDERS}, got {n!r}")
    column = _column(measure)
    pairs = _read(hypotheses, references, stem, counting)
    values = text.rouge_n(*pairs.args, n)
    return scores(pairs, values[..., column], False, dtype)


def rouge_l(
    hypotheses: Hypotheses,
    references: References,
    *,
    measure: str = "fmeasure",
    stem: bool = False,
    per_prefix: bool = False,
    dtype: torch.dtype = torch.float32,
    **counting: Unpack[Counting],
) -> Tensor:
    """Return the ROUGE-L of each hypothesis, 0 to 1, of its longest common subsequence.

    As `rouge_n`, with the subsequence's tokens for what is shared. With `per_prefix` the score of
    each prefix, `[..., T]` more, after each token.

    Source: Lin 2004; 64 tokens at a time: Hyyrö 2004.

    Example:
        >>> rouge_l([[1, 2, 3]], [[1, 3, 4]], per_prefix=True)
        tensor([[0.5000, 0.4000, 0.6667]])
    """
    column = _column(measure)
    pairs = _read(hypotheses, references, stem, counting)
    values = text.rouge_l(*pairs.args, pairs.width if per_prefix else 0)
    return scores(pairs, np.ascontiguousarray(values[..., column]), per_prefix, dtype)


def _column(measure: str) -> int:
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {list(MEASURES)}, got {measure!r}")
    return MEASURES.index(measure)


def _read(hypotheses: Hypotheses, references: References, stem: bool, counting: Any) -> Pairs:
    if is_ids(hypotheses):
        if stem:
            raise ValueError("stem must be False where hypotheses are no strings, got True")
        return read(hypotheses, references, counting)
    return read(hypotheses, references, counting, string=Unit.words, prepare=words(bool(stem)))


@lru_cache(maxsize=2)
def words(stem: bool) -> Callable[[str], str]:
    """A function from a string to rouge-score's words with spaces between."""
    if not stem:
        return _plain_words
    try:
        from nltk.stem.porter import PorterStemmer
    except ImportError as error:
        raise ImportError("stem=True needs NLTK: pip install nltk") from error
    stemmed = lru_cache(maxsize=2**16)(PorterStemmer().stem)

    def split(sentence: str) -> str:
        return " ".join(
            stemmed(word) if len(word) > 3 else word for word in _plain_words(sentence).split()
        )

    return split


def _plain_words(sentence: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", sentence.lower())
