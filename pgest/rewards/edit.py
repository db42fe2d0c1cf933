"""Edit distance of a batch of sequences to their closest references."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Tokens = str | Sequence[Hashable] | Tensor
Hypotheses = Tensor | Sequence[Tokens]
References = Sequence[Sequence[Tokens]]


class Closest(NamedTuple):
    """What separates each hypothesis from its closest reference: float32 on the CPU.

    `distance` counts insertions, deletions and substitutions; `length` is that reference's length.
    """

    distance: Tensor
    length: Tensor


def closest_reference(
    hypotheses: Hypotheses, references: References, *, mask: Tensor | None = None
) -> Closest:
    """Return the edit distance to the closest reference and the length of that reference.

    `distance[i] = min over r of Levenshtein(hypotheses[i], references[i][r])`. Of references at
    the same distance the shorter counts, which makes a rate built on the two the stricter one.

    Args:
        hypotheses: B sequences (strings are sequences of characters; otherwise lists of hashable
            tokens), or integer ids `[..., B, T]`, where leading dimensions are samples.
        references: B non-empty lists of references, sequences of the same kind of token.
        mask: for ids only, bool like `hypotheses`: True counts. Every position counts without it.

    Returns:
        `distance` and `length`, `[B]`, or `[..., B]` for ids. Nothing is differentiable.

    Raises:
        ValueError: for a batch of another size, an item without references, a mask of another
            shape, or a mask without ids.

    Source: Levenshtein 1966; computed by rapidfuzz (bit-parallel, Hyyrö 2003).

    Example:
        >>> closest_reference(["kitten"], [["sitting", "kitchen"]])
        Closest(distance=tensor([2.]), length=tensor([7.]))
    """
    rows, shape = _rows(hypotheses, mask)
    _check_references(references, shape[-1])
    code: dict[Hashable, int] = {}
    encoded = [_encode(row, code) for row in rows]
    targets = [[_encode(reference, code) for reference in group] for group in references]
    groups = [targets[i % len(targets)] for i in range(len(encoded))]
    distance = _distances(encoded, groups)
    length = np.array([len(target) for group in groups for target in group], dtype=np.int64)
    first = np.cumsum([0] + [len(group) for group in groups[:-1]])
    if not encoded:
        return Closest(torch.zeros(shape), torch.zeros(shape))
    # One integer orders by distance, then by length, so one segmented minimum finds both.
    scale = int(length.max()) + 1
    best = np.minimum.reduceat(distance * scale + length, first)
    return Closest(_tensor(best // scale, shape), _tensor(best % scale, shape))


def edit_distance(
    hypotheses: Hypotheses, references: References, *, mask: Tensor | None = None
) -> Tensor:
    """Return the edit distance to the closest reference, a cost: float32 `[B]` or `[..., B]`.

    Arguments, errors and source are those of `closest_reference`.

    Example:
        >>> edit_distance([["K", "AE1", "T"]], [[["K", "AH0", "T"], ["K", "AA1", "R", "T"]]])
        tensor([1.])
    """
    return closest_reference(hypotheses, references, mask=mask).distance


def error_rate(
    hypotheses: Hypotheses, references: References, *, mask: Tensor | None = None
) -> Tensor:
    """Return the edit distance to the closest reference divided by that reference's length.

    A cost, float32 `[B]` or `[..., B]`: 0 is perfect, 1 is what an empty hypothesis gets, and more
    is possible; its negative is a reward. An empty reference counts as one token long. Arguments,
    errors and source are those of `closest_reference`.

    Example:
        >>> ids = torch.tensor([[5, 6, 7, 0]])
        >>> error_rate(ids, [[[5, 6]]], mask=ids > 0)
        tensor([0.5000])
    """
    closest = closest_reference(hypotheses, references, mask=mask)
    return closest.distance / closest.length.clamp(min=1)


def _rows(hypotheses: Hypotheses, mask: Tensor | None) -> tuple[Sequence[Tokens], tuple[int, ...]]:
    """Return the hypotheses as a flat list of sequences, and the shape of their scores."""
    if not isinstance(hypotheses, Tensor):
        if mask is not None:
            raise ValueError("mask must be None where hypotheses are no tensor, got a tensor")
        if isinstance(hypotheses, str):
            raise TypeError(
                f"hypotheses must be a list of sequences, got the string {hypotheses!r}"
            )
        return hypotheses, (len(hypotheses),)
    if hypotheses.dim() < 2 or hypotheses.is_floating_point():
        raise ValueError(
            "hypotheses must be integer ids of shape [..., B, T], "
            f"got {hypotheses.dtype} {tuple(hypotheses.shape)}"
        )
    if mask is not None and (mask.shape != hypotheses.shape or mask.dtype != torch.bool):
        raise ValueError(
            f"mask must be bool {tuple(hypotheses.shape)} like hypotheses, "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    shape = tuple(hypotheses.shape[:-1])
    rows: list[list[int]] = hypotheses.reshape(-1, hypotheses.shape[-1]).tolist()
    if mask is None:
        return rows, shape
    kept: list[list[bool]] = mask.reshape(-1, mask.shape[-1]).tolist()
    return [
        [token for token, keep in zip(row, keeps, strict=True) if keep]
        for row, keeps in zip(rows, kept, strict=True)
    ], shape


def _check_references(references: References, size: int) -> None:
    if len(references) != size:
        raise ValueError(
            f"references must have {size} items, one per hypothesis, got {len(references)}"
        )
    for i, group in enumerate(references):
        if isinstance(group, str) or len(group) == 0:
            raise ValueError(
                f"references must hold non-empty lists of references, got {group!r} at item {i}"
            )


def _encode(tokens: Iterable[Hashable], code: dict[Hashable, int]) -> str:
    """Spell tokens as characters, one each: the form rapidfuzz compares fastest."""
    if isinstance(tokens, Tensor):  # its elements are tensors, which are equal to nothing
        tokens = tokens.tolist()
    if not isinstance(tokens, Iterable):
        raise TypeError(
            "hypotheses and references must be sequences of tokens, one list of references per "
            f"hypothesis, got {tokens!r} for a sequence"
        )
    return "".join([chr(code.setdefault(token, len(code))) for token in tokens])


def _distances(hypotheses: list[str], groups: list[list[str]]) -> np.ndarray:
    """Return the distance of each hypothesis to each of its references, in order, int64."""
    try:
        from rapidfuzz.distance import Levenshtein
        from rapidfuzz.process import cpdist
    except ImportError as error:
        raise ImportError(
            'edit distances need rapidfuzz: pip install "pgest[text]" (or "pgest[tasks]")'
        ) from error
    repeated = [h for h, group in zip(hypotheses, groups, strict=True) for _ in group]
    targets = [target for group in groups for target in group]
    return cpdist(repeated, targets, scorer=Levenshtein.distance, dtype=np.int64)


def _tensor(values: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)
