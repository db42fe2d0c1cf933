"""chrF and chrF++: n-grams of characters, and of words beside them. sacrebleu's, to the bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pgest.rewards.backend import text
from pgest.rewards.sequences import Hypotheses, References, Unit, is_ids, is_text, read, scores

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pgest.rewards.sequences import Counting


def chrf(
    hypotheses: Hypotheses,
    references: References,
    *,
    char_order: int = 6,
    word_order: int = 0,
    beta: float = 2,
    lowercase: bool = False,
    whitespace: bool = False,
    eps_smoothing: bool = False,
    per_prefix: bool = False,
    dtype: torch.dtype = torch.float32,
    **counting: Unpack[Counting],
) -> Tensor:
    """Return the chrF of each hypothesis, 0 to 100: `sacrebleu.sentence_chrf`.

        chrf = 100 (1 + beta^2) P R / (beta^2 P + R)

    P and R are the shares of n-grams of characters that both have, in the hypothesis and in the
    reference, averaged over the orders that both are long enough for. Of several references the
    best score counts.

    Args:
        hypotheses: B strings; or ids `[..., B, T]` or B lists of them, each id a character; or B
            lists of strings, the pieces of a text (subwords), which is scored whole.
        references: B items, each one sequence or a list of them; strings where hypotheses are
            strings or pieces.
        char_order, word_order: the longest n-grams, of characters and of words. `word_order=2` is
            chrF++; it needs strings or pieces.
        beta: how many times more recall counts than precision.
        lowercase, whitespace: for strings and pieces; white space is left out if not asked for.
        eps_smoothing: average F over all orders, as chrF++.py, NLTK and Moses do.
        per_prefix: score each prefix, `[..., T]`: after each id, piece, or character of a string.
            Not for word_order > 0, where a word changes with each character.
        dtype: of the result; scores are computed in float64.
        **counting: as in `bleu`.

    Returns:
        Scores `[B]`, or `[..., B]` for ids, on the CPU. Nothing is differentiable.

    Raises:
        ValueError, TypeError: for sequences that do not fit each other, and settings out of range.

    Memory: the characters once, as int64; with `per_prefix` a score for each in float64.

    Source: Popović 2015, chrF: character n-gram F-score for automatic MT evaluation; Popović 2017,
    chrF++; equal to sacrebleu.

    Example:
        >>> chrf(["the cat sat"], [["the cat is sat", "a cat"]])
        tensor([50.6213])
        >>> chrf([["the", " cat"]], ["the cat"], per_prefix=True)
        tensor([[ 43.7262, 100.0000]])
    """
    _check(char_order, word_order, beta)
    pieces = _pieces(hypotheses, references)
    if not pieces and is_ids(hypotheses):
        for name, value in (("lowercase", lowercase), ("whitespace", whitespace)):
            if value:
                raise ValueError(f"{name} must be False where hypotheses are ids, got {value!r}")
        if word_order:
            raise ValueError(f"word_order must be 0 where hypotheses are ids, got {word_order}")
    if word_order and per_prefix:
        raise ValueError(f"per_prefix must be False for word_order > 0, got True and {word_order}")
    if pieces and counting.get("eos") is not None:
        raise ValueError("eos must be None where hypotheses are pieces of a text, got a value")
    whole: Any = [_joined(i, h) for i, h in enumerate(hypotheses)] if pieces else hypotheses
    lower = str.lower if lowercase else None
    unit = Unit.characters if whitespace else Unit.visible
    pairs = read(whole, references, counting, string=unit, prepare=lower)
    words = (None, None)
    if word_order:
        both = read(whole, references, counting, string=Unit.chrf_words, prepare=lower)
        words = both.hypotheses, both.references
    options = char_order, word_order, float(beta), bool(eps_smoothing)
    values = text.chrf(*pairs.args, *words, *options, pairs.width if per_prefix else 0)
    if per_prefix and (pieces or is_text(hypotheses)):
        each: Any = hypotheses
        if lowercase:
            each = [[str(piece).lower() for piece in pieces] for pieces in each]
        ends = text.piece_ends("hypotheses", each, bool(whitespace))
        pairs = pairs._replace(counted=lambda: ends)
    return scores(pairs, values, per_prefix, dtype)


def _check(char_order: int, word_order: int, beta: float) -> None:
    most = text.MOST_ORDERS
    for name, value, least in (("char_order", char_order, 1), ("word_order", word_order, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{name} must be from {least} to {most}, got {value!r}")
    if not 0 <= float(beta) < float("inf"):
        raise ValueError(f"beta must be 0 or more, got {beta!r}")


def _pieces(hypotheses: Any, references: Any) -> bool:
    """Whether hypotheses are lists of strings; if all are empty, the references tell."""
    if not isinstance(hypotheses, list | tuple):
        return False
    if not all(isinstance(h, list | tuple) for h in hypotheses):
        return False
    first = next((h for h in hypotheses if len(h)), None)
    if first is not None:
        return isinstance(first[0], str)
    return is_text(references) or (isinstance(references, list) and any(map(is_text, references)))


def _joined(i: int, pieces: Any) -> str:
    try:
        return "".join(pieces)
    except TypeError:
        raise TypeError(f"hypotheses[{i}] must be a list of strings, got {pieces!r}") from None
