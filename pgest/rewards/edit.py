"""Edit distance to the closest reference, and the error rates that are made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pgest.rewards.backend import text
from pgest.rewards.sequences import Hypotheses, References, Unit, is_text, read, scores

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pgest.rewards.sequences import Counting


class Closest(NamedTuple):
    """What separates each hypothesis from its closest reference: float32 on the CPU.

    `distance` counts insertions, deletions and substitutions; `length` is that reference's length.
    """

    distance: Tensor
    length: Tensor


def closest_reference(
    hypotheses: Hypotheses,
    references: References,
    *,
    per_prefix: bool = False,
    dtype: torch.dtype = torch.float32,
    **counting: Unpack[Counting],
) -> Closest:
    """Return the edit distance to the closest reference and the length of that reference.

    `distance[i] = min over r of Levenshtein(hypotheses[i], references[i][r])`. Of references at
    the same distance the shorter counts, which makes a rate built on the two the stricter one.

    Args:
        hypotheses: B sequences (strings are sequences of characters; otherwise lists of hashable
            tokens), or integer ids `[..., B, T]`, where leading dimensions are samples.
        references: B items, each one sequence of the same kind of token or a list of them; or
            padded ids `[B, T]`, `[B, R, T]`.
        per_prefix: `[..., T]` more: of the tokens up to each position.
        dtype: of the result; distances are whole numbers.
        **counting: which tokens count: `mask`, `lengths`, `eos`, `keep_eos`, `reference_mask`, as
            `pgest.rewards.Counting` says.

    Returns:
        `distance` and `length`, `[B]`, or `[..., B]` for ids. Nothing is differentiable.

    Raises:
        ValueError, TypeError: for a batch of another size, an item without references, a mask of
            another shape, a mask without ids, or what is no sequence.

    Source: Levenshtein 1966; 64 tokens at a time: Myers 1999, Hyyrö 2003.

    Example:
        >>> closest_reference(["kitten"], [["sitting", "kitchen"]])
        Closest(distance=tensor([2.]), length=tensor([7.]))
    """
    return _closest(hypotheses, references, per_prefix, dtype, counting, Unit.characters)


def edit_distance(
    hypotheses: Hypotheses,
    references: References,
    *,
    per_prefix: bool = False,
    dtype: torch.dtype = torch.float32,
    **counting: Unpack[Counting],
) -> Tensor:
    """Return the edit distance to the closest reference, a cost: float32 `[B]` or `[..., B]`.

    Arguments, errors and source are those of `closest_reference`.

    Example:
        >>> edit_distance([["K", "AE1", "T"]], [[["K", "AH0", "T"], ["K", "AA1", "R", "T"]]])
        tensor([1.])
    """
    return _closest(hypotheses, references, per_prefix, dtype, counting, Unit.characters).distance


def error_rate(
    hypotheses: Hypotheses,
    references: References,
    *,
    per_prefix: bool = False,
    dtype: torch.dtype = torch.float32,
    **counting: Unpack[Counting],
) -> Tensor:
    """Return the edit distance to the closest reference divided by that reference's length.

    A cost, float32 `[B]` or `[..., B]`: 0 is perfect, 1 is what an empty hypothesis gets, and more
    is possible; its negative is a reward. An empty reference counts as one token long. Of phonemes
    it is the PER. Arguments, errors and source are those of `closest_reference`, of which the rate
    of a corpus is made: the sum of its distances over the sum of its lengths.

    Example:
        >>> ids = torch.tensor([[5, 6, 7, 0]])
        >>> error_rate(ids, [[5, 6]], mask=ids > 0)
        tensor([0.5000])
    """
    return _rate(hypotheses, references, per_prefix, dtype, counting, Unit.characters)


def wer(
    hypotheses: Hypotheses,
    references: References,
    *,
    per_prefix: bool = False,
    dtype: torch.dtype = torch.float32,
    **counting: Unpack[Counting],
) -> Tensor:
    """Return the word error rate of strings, a cost: `error_rate` of what white space separates.

    Arguments and errors are those of `error_rate`. Each sentence's rate equals jiwer's where words
    are parted by spaces; here a tab, a line break or a no-break space parts them too.

    Example:
        >>> wer(["the cat sat"], ["the cat sat down"])
        tensor([0.2500])
    """
    _check_text("wer", hypotheses)
    return _rate(hypotheses, references, per_prefix, dtype, counting, Unit.words)


def cer(
    hypotheses: Hypotheses,
    references: References,
    *,
    per_prefix: bool = False,
    dtype: torch.dtype = torch.float32,
    **counting: Unpack[Counting],
) -> Tensor:
    """Return the character error rate of strings, a cost: `error_rate` of stripped strings.

    Arguments and errors are those of `error_rate`; each sentence's rate equals jiwer's.

    Example:
        >>> cer(["sitting "], ["kitten"])
        tensor([0.5000])
    """
    _check_text("cer", hypotheses)
    return _rate(hypotheses, references, per_prefix, dtype, counting, Unit.characters, str.strip)


def _closest(
    hypotheses: Hypotheses,
    references: References,
    per_prefix: bool,
    dtype: torch.dtype,
    counting: Counting,
    string: Any,
    prepare: Any = None,
) -> Closest:
    pairs = read(hypotheses, references, counting, string=string, prepare=prepare)
    found = text.closest_reference(*pairs.args, pairs.width if per_prefix else 0)
    return Closest(*(scores(pairs, values, per_prefix, dtype) for values in found))


def _rate(
    hypotheses: Hypotheses, references: References, per_prefix: bool, dtype: torch.dtype, *rest: Any
) -> Tensor:
    # In float64: a rate is rounded once.
    closest = _closest(hypotheses, references, per_prefix, torch.float64, *rest)
    return (closest.distance / closest.length.clamp(min=1)).to(dtype)


def _check_text(name: str, hypotheses: Hypotheses) -> None:
    if len(hypotheses) and not is_text(hypotheses):
        raise TypeError(
            f"hypotheses of {name} must be strings, got {type(hypotheses).__name__} of something "
            "else; error_rate takes tokens"
        )
