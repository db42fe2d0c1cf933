"""Whether the answer is right, and how much of it is: as extractive question answering scores."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgest.rewards.backend import text
from pgest.rewards.sequences import Hypotheses, Pairs, References, Unit, is_ids, read, scores

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pgest.rewards.sequences import Counting

Normalize = Callable[[str], str]


def exact_match(
    hypotheses: Hypotheses,
    references: References,
    *,
    normalize: str | Normalize | None = None,
    dtype: torch.dtype = torch.float32,
    **counting: Unpack[Counting],
) -> Tensor:
    """Return 1 for each hypothesis that equals one of its references, else 0.

    Args:
        hypotheses: B strings, B lists of tokens, or ids `[..., B, T]`.
        references: B items, each one sequence of the same kind or a list of them; or padded ids
            `[B, T]`, `[B, R, T]`.
        normalize: for strings: a function from a string to what is compared, or "squad": in lower
            case, without punctuation and the articles a, an, the, and single spaces.
        dtype: of the result.
        **counting: as in `bleu`.

    Returns:
        Scores `[B]`, or `[..., B]` for ids, on the CPU. Nothing is differentiable.

    Raises:
        ValueError, TypeError: for sequences that do not fit each other, or an unknown `normalize`.

    Source: Rajpurkar et al. 2016, arXiv:1606.05250 ("squad").

    Example:
        >>> exact_match(["The Cat.", "dog"], [["a cat", "cats"], "cat"], normalize="squad")
        tensor([1., 0.])
    """
    pairs = _read(hypotheses, references, normalize, Unit.characters, counting)
    return scores(pairs, text.exact_match(*pairs.args[:3]), False, dtype)


def token_f1(
    hypotheses: Hypotheses,
    references: References,
    *,
    normalize: str | Normalize | None = None,
    dtype: torch.dtype = torch.float32,
    **counting: Unpack[Counting],
) -> Tensor:
    """Return the F-measure of the tokens that a hypothesis shares with its best reference, 0 to 1.

    Order does not count; a token counts as often as both have it. Nothing equals nothing: an empty
    hypothesis has 1 with an empty reference, else 0. Arguments and errors are those of
    `exact_match`; the tokens of strings are what white space separates.

    Source: Rajpurkar et al. 2016, arXiv:1606.05250, and 2018, arXiv:1806.03822 (nothing).

    Example:
        >>> token_f1(["sat the cat"], ["the cat"])
        tensor([0.8000])
    """
    pairs = _read(hypotheses, references, normalize, Unit.words, counting)
    shared = text.rouge_n(*pairs.args, 1)[:, -1]
    return scores(pairs, np.maximum(shared, text.exact_match(*pairs.args[:3])), False, dtype)


def squad(sentence: str) -> str:
    """In lower case, without punctuation and articles, single spaces.

    Example:
        >>> squad("The  Cat's hat.")
        'cats hat'
    """
    kept = "".join(c for c in sentence.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def _read(
    hypotheses: Hypotheses,
    references: References,
    normalize: str | Normalize | None,
    unit: Any,
    counting: Any,
) -> Pairs:
    if normalize is not None and not callable(normalize) and normalize != "squad":
        raise ValueError(f'normalize must be "squad" or a function, got {normalize!r}')
    if normalize is not None and is_ids(hypotheses):
        raise ValueError("normalize must be None where hypotheses are no strings, got a value")
    prepare = normalize if callable(normalize) else None if normalize is None else squad
    return read(hypotheses, references, counting, string=unit, prepare=prepare)
