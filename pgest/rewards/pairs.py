"""Hypotheses and references of any kind as plain lists of what counts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from pgest.rewards.sequences import flat_ids, mask_of, tensor_of

Item = str | list[Hashable]


class Pairs(NamedTuple):
    """A batch as strings or lists of tokens: hypothesis `i` belongs to `group(i)`.

    `hypotheses` are those of all leading dimensions in a row, `shape` is that of their scores.
    """

    hypotheses: list[Item]
    references: list[list[Item]]
    shape: tuple[int, ...]

    def group(self, index: int) -> list[Item]:
        """Return the references of a hypothesis."""
        return self.references[index % len(self.references)]


def pairs_of(
    hypotheses: Any,
    references: Any,
    *,
    mask: Tensor | None = None,
    lengths: Tensor | None = None,
    eos: Hashable = None,
    keep_eos: bool = False,
    reference_mask: Tensor | None = None,
) -> Pairs:
    """Return hypotheses and references as strings or lists of tokens, without what does not count.

    The keywords are those of every reward: of ids, `mask` or `lengths` (`reference_mask` of
    references that are ids) say what counts; of ids and lists of tokens only what comes before the
    first `eos` does, that token included with `keep_eos`.

    Raises:
        ValueError: for a batch of another size, an item without references, or keywords that do
            not fit.
        TypeError: for anything that is no list of sequences.

    Example:
        >>> pairs_of(torch.tensor([[5, 6, 2, 7]]), [[5, 6]], eos=2)
        Pairs(hypotheses=[[5, 6]], references=[[[5, 6]]], shape=(1,))
    """
    if keep_eos and eos is None:
        raise ValueError("keep_eos must be False without eos, got True")
    hypotheses, references = tensor_of(hypotheses), tensor_of(references)
    if isinstance(hypotheses, Tensor):
        shape = tuple(hypotheses.shape[:-1])
        counts = mask_of(hypotheses, {"mask": mask, "lengths": lengths})
        rows = _rows("hypotheses", "mask", hypotheses, counts)
    else:
        for name, value in (("mask", mask), ("lengths", lengths)):
            if value is not None:
                raise ValueError(f"{name} must be None where hypotheses are no tensor, got a value")
        rows = _items("hypotheses", hypotheses)
        shape = (len(rows),)
    groups = _groups(references, are_strings(rows), reference_mask)
    if len(groups) != shape[-1]:
        raise ValueError(
            f"references must have {shape[-1]} items, one per hypothesis, got {len(groups)}"
        )
    if eos is not None:
        rows = [_until(row, eos, keep_eos) for row in rows]
        groups = [[_until(row, eos, keep_eos) for row in group] for group in groups]
    return Pairs(rows, groups, shape)


def are_strings(items: Sequence[Any]) -> bool:
    """Return whether a batch is one of strings, which its first item says."""
    return len(items) > 0 and isinstance(items[0], str)


def holds_several(item: Any, strings: bool) -> bool:
    """Return whether an item of `references` is a list of references rather than one."""
    if isinstance(item, Tensor | np.ndarray):
        return item.ndim == 2
    if isinstance(item, str) or not isinstance(item, Sequence):
        return False
    first = item[0] if len(item) else None
    return strings or isinstance(first, list | tuple) or _is_row(first)


def _is_row(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray) and value.ndim > 0


def _rows(name: str, mask_name: str, ids: Tensor, mask: Tensor | None) -> list[Item]:
    """Return padded ids as lists of those that the mask keeps."""
    flat, kept = flat_ids(name, mask_name, ids, mask)
    if kept is None:
        return list(flat.tolist())
    return [row[keep].tolist() for row, keep in zip(flat, kept, strict=True)]


def _until(row: Item, eos: Hashable, keep_eos: bool) -> Item:
    if isinstance(row, str):
        raise ValueError(f"eos must be None where hypotheses are strings, got {eos!r}")
    return row[: row.index(eos) + keep_eos] if eos in row else row


def _items(name: str, sequences: Any) -> list[Item]:
    if isinstance(sequences, str) or not isinstance(sequences, Sequence | np.ndarray | Tensor):
        raise TypeError(f"{name} must be a list of sequences, got {sequences!r:.80}")
    return [_item(f"{name}[{i}]", sequence) for i, sequence in enumerate(sequences)]


def _item(name: str, sequence: Any) -> Item:
    if isinstance(sequence, str):
        return sequence
    if _is_row(sequence):
        return list(sequence.tolist())
    if not isinstance(sequence, Sequence):
        raise TypeError(f"{name} must be a string or a list of tokens, got {sequence!r:.80}")
    return list(sequence)


def _groups(references: Any, strings: bool, mask: Tensor | None) -> list[list[Item]]:
    """Return the references of each item, always as a list of them."""
    if isinstance(references, Tensor):
        rows = _rows("references", "reference_mask", references, mask)
        several = references.shape[1] if references.dim() == 3 else 1
        return [rows[i : i + several] for i in range(0, len(rows), several)]
    if mask is not None:
        raise ValueError("reference_mask must be None where references are no tensor, got a value")
    if isinstance(references, str) or not isinstance(references, Sequence):
        raise TypeError(
            f"references must be a list, one item per hypothesis, got {references!r:.80}"
        )
    groups = []
    for i, item in enumerate(references):
        name = f"references[{i}]"
        if not holds_several(item, strings):
            groups.append([_item(name, item)])
        elif len(item):
            groups.append(_items(name, item))
        else:
            raise ValueError(f"{name} must hold at least one reference, got an empty list")
    return groups
