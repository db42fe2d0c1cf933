"""BLEU of each sentence, of each of its prefixes, and of a corpus: sacrebleu's, to the bit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgest.rewards.backend import text
from pgest.rewards.sequences import Hypotheses, Pairs, References, Unit, is_ids, read, scores

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pgest.rewards.sequences import Counting

Tokenizer = Callable[[str], str]
DEFAULT_VALUES = {"none": None, "floor": 0.1, "add-k": 1.0, "exp": None}


def bleu(
    hypotheses: Hypotheses,
    references: References,
    *,
    max_order: int = 4,
    smoothing: str = "exp",
    smoothing_value: float | None = None,
    effective_order: bool = True,
    tokenize: str | Tokenizer | None = None,
    lowercase: bool = False,
    per_prefix: bool = False,
    dtype: torch.dtype = torch.float32,
    **counting: Unpack[Counting],
) -> Tensor:
    """Return the BLEU of each hypothesis, 0 to 100: `sacrebleu.sentence_bleu`.

        bleu = brevity exp(1/N sum_n log precision_n),   brevity = min(1, exp(1 - R / H))

    H is the hypothesis' length and R that of the reference closest to it (of two the shorter);
    precision_n is the share of its n-grams that a reference has, each counted at most as often as
    in the reference that has it most.

    Args:
        hypotheses: B strings, B lists of tokens, or ids `[..., B, T]`.
        references: B items, each one sequence of the same kind or a list of them; or padded ids
            `[B, T]`, `[B, R, T]`.
        max_order: N, from 1 to 16.
        smoothing: of an order without a match: "none", "floor" (`smoothing_value` matches, 0.1),
            "add-k" (`smoothing_value`, 1, more of all n-grams beyond unigrams), "exp" (half a
            match, then a quarter, ...). Without any match the score is 0, whatever the smoothing.
        smoothing_value: of "floor" and "add-k".
        effective_order: N is at most the longest n-gram the hypothesis has; without it one shorter
            than N tokens scores about 0.
        tokenize: for strings: a tokenizer of sacrebleu ("13a" without a choice, "intl", "char",
            "zh", "ja-mecab", ..., "none") or a function from a string to one with spaces between
            tokens. What it returns is remembered.
        lowercase: for strings.
        per_prefix: score each prefix: `[..., T]` more, the score after each token; a position that
            does not count has the score of what came before it.
        dtype: of the result; scores are computed in float64.
        **counting: which tokens count: `mask`, `lengths`, `eos`, `keep_eos`, `reference_mask`, as
            `pgest.rewards.Counting` says.

    Returns:
        Scores `[B]`, or `[..., B]` for ids, on the CPU. Nothing is differentiable.

    Raises:
        ValueError, TypeError: for sequences that do not fit each other, and settings out of range.
        ImportError: for a tokenizer other than "none" without sacrebleu.

    Memory: the tokens once, as int64; with `per_prefix` the scores in float64.

    Source: Papineni et al. 2002, BLEU: a method for automatic evaluation of machine translation;
    smoothing: Chen and Cherry 2014; equal to sacrebleu (Post 2018, arXiv:1804.08771).

    Example:
        >>> bleu([[1, 2, 3, 4, 5]], [[1, 2, 3, 4, 6]])
        tensor([66.8740])
        >>> bleu([[1, 2, 3, 4, 5]], [[1, 2, 3, 4, 6]], max_order=2, per_prefix=True).round()
        tensor([[ 2., 22., 51., 78., 77.]])
    """
    settings = _settings(max_order, smoothing, smoothing_value, effective_order)
    pairs = _read(hypotheses, references, tokenize, lowercase, counting)
    values = text.bleu(*pairs.args, settings, pairs.width if per_prefix else 0)
    return scores(pairs, values, per_prefix, dtype)


def bleu_statistics(
    hypotheses: Hypotheses,
    references: References,
    *,
    max_order: int = 4,
    tokenize: str | Tokenizer | None = None,
    lowercase: bool = False,
    **counting: Unpack[Counting],
) -> Tensor:
    """Return what BLEU is made of, to be summed over a corpus: int64 `[..., B, 2 + 2 max_order]`.

    H, R, the matches of each order, and how many n-grams of each order the hypothesis has.
    Arguments, errors and source are those of `bleu`.

    Example:
        >>> bleu_statistics([[1, 2, 3]], [[1, 2, 4, 5]], max_order=2)
        tensor([[3, 4, 2, 1, 3, 2]])
    """
    settings = _settings(max_order, "none", None, False)
    pairs = _read(hypotheses, references, tokenize, lowercase, counting)
    values = torch.from_numpy(text.bleu_statistics(*pairs.args, settings))
    return values.reshape(*pairs.shape, values.shape[-1])


def corpus_bleu(
    statistics: Tensor,
    *,
    smoothing: str = "exp",
    smoothing_value: float | None = None,
    effective_order: bool = False,
) -> float:
    """Return the BLEU of a corpus, `sacrebleu.corpus_bleu`, from the statistics of its sentences.

    It is no mean of sentences' scores: matches and lengths are summed first. `effective_order` is
    False here, as in sacrebleu.

    Args:
        statistics: what `bleu_statistics` returned, or several of them along any dimensions.
        smoothing, smoothing_value, effective_order: as in `bleu`.

    Raises:
        ValueError: for what is no statistics.

    Example:
        >>> round(corpus_bleu(bleu_statistics([[1, 2, 3, 4, 5]], [[1, 2, 3, 4, 6]])), 2)
        66.87
    """
    if not isinstance(statistics, Tensor):
        raise TypeError(f"statistics must be a tensor, got {type(statistics).__name__}")
    size = statistics.shape[-1] if statistics.dim() else 0
    if statistics.dtype != torch.int64 or size < 4 or size % 2:
        raise ValueError(
            "statistics must be int64 [..., 2 + 2 max_order], "
            f"got {statistics.dtype} {tuple(statistics.shape)}"
        )
    settings = _settings(size // 2 - 1, smoothing, smoothing_value, effective_order)
    total = statistics.reshape(-1, size).sum(0, keepdim=True).numpy()
    return float(text.bleu_scores(np.ascontiguousarray(total), settings)[0])


def _settings(order: int, smoothing: str, value: float | None, effective_order: bool) -> Any:
    if not isinstance(smoothing, str) or smoothing not in DEFAULT_VALUES:
        raise ValueError(f"smoothing must be one of {list(DEFAULT_VALUES)}, got {smoothing!r}")
    if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= text.MOST_ORDERS:
        raise ValueError(f"max_order must be from 1 to {text.MOST_ORDERS}, got {order!r}")
    default = DEFAULT_VALUES[smoothing]
    if value is not None and default is None:
        raise ValueError(f"smoothing_value must be None for smoothing={smoothing!r}, got {value!r}")
    if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
        raise TypeError(f"smoothing_value must be a number, got {value!r}")
    chosen = default if value is None else float(value)
    if chosen is not None and not 0 <= chosen < float("inf"):
        raise ValueError(f"smoothing_value must be 0 or more, got {value!r}")
    # Python's own sum, which sacrebleu uses, adds floats with compensation from 3.12 on.
    compensated = sys.version_info >= (3, 12)
    return text.Bleu(order, smoothing, chosen or 0.0, effective_order, compensated)


def _read(
    hypotheses: Hypotheses,
    references: References,
    tokenize: str | Tokenizer | None,
    lowercase: bool,
    counting: Any,
) -> Pairs:
    if is_ids(hypotheses):
        if tokenize is not None:
            raise ValueError(
                f"tokenize must be None where hypotheses are no strings, got {tokenize!r}"
            )
        if lowercase:
            raise ValueError("lowercase must be False where hypotheses are no strings, got True")
        return read(hypotheses, references, counting)
    if not (tokenize is None or isinstance(tokenize, str) or callable(tokenize)):
        raise TypeError(f"tokenize must be a name or a function, got {tokenize!r}")
    split = tokenizer("13a" if tokenize is None else tokenize, bool(lowercase))
    return read(hypotheses, references, counting, string=Unit.words, prepare=split)


@lru_cache(maxsize=32)
def tokenizer(name: str | Tokenizer, lowercase: bool) -> Tokenizer:
    """A function from a string to its tokens with spaces between, which remembers what it did."""
    if callable(name):
        split = name
    elif name == "none":
        split = str
    else:
        try:
            from sacrebleu.metrics.bleu import BLEU
        except ImportError as error:
            raise ImportError(
                f'tokenize={name!r} needs sacrebleu: pip install "pgest[text]", or tokenize="none"'
            ) from error
        if name not in BLEU.TOKENIZERS:
            raise ValueError(f"tokenize must be one of {sorted(BLEU.TOKENIZERS)}, got {name!r}")
        split = BLEU(tokenize=name).tokenizer

    @lru_cache(maxsize=2**16)
    def remembered(sentence: str) -> str:
        return split((sentence.lower() if lowercase else sentence).rstrip())

    return remembered
