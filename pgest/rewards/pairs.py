"""Hypotheses and references of any kind as plain lists of what counts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from pgest.rewards.backend import text
from pgest.rewards.ids import flat_ids, mask_of, reference_ids, tensor_of
from pgest.rewards.sequences import (
    Counting,
    check_keywords,
    check_number,
    eos_of,
    is_text,
    refuse_masks,
    refuse_reference_mask,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

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


def pairs_of(hypotheses: Any, references: Any, **counting: Unpack[Counting]) -> Pairs:
    """Return hypotheses and references as strings or lists of tokens, without what does not count.

    The keywords are those of every reward: of ids, `mask` or `lengths` (`reference_mask` of
    references that are ids) say what counts; of ids and lists of tokens only what comes before the
    first `eos` does, that token included with `keep_eos`. Of references `[B, R, T]` those in which
    the mask counts nothing are left out. Lists of strings may be pieces of a text: their references
    may be strings.

    Raises:
        ValueError: for a batch of another size, an item without references, or keywords that do
            not fit.
        TypeError: for anything that is no list of sequences of one kind; for another keyword.

    Example:
        >>> pairs_of(torch.tensor([[5, 6, 2, 7]]), [[5, 6]], eos=2)
        Pairs(hypotheses=[[5, 6]], references=[[[5, 6]]], shape=(1,))
    """
    check_keywords(counting)
    hypotheses, references = tensor_of(hypotheses), tensor_of(references)
    strings = is_text(hypotheses)
    eos_of(hypotheses, counting, text.Vocabulary())
    if isinstance(hypotheses, Tensor):
        shape = tuple(hypotheses.shape[:-1])
        rows = _rows(*flat_ids("hypotheses", "mask", hypotheses, mask_of(hypotheses, counting)))
    else:
        refuse_masks(counting)
        items = listed("hypotheses", hypotheses, "a list of sequences")
        rows = [_item(f"hypotheses[{i}]", item, strings, strings) for i, item in enumerate(items)]
        shape = (len(rows),)
    if isinstance(references, Tensor) and not strings:
        ids, kept, starts = reference_ids(references, counting.get("reference_mask"))
        targets = _rows(ids, kept)
        groups = [targets[a:b] for a, b in pairwise(starts)]
    else:
        refuse_reference_mask(counting)
        pieces = not isinstance(hypotheses, Tensor) and all(map(_all_strings, rows))
        items = listed("references", references, "a list, one item per hypothesis")
        groups = [_group(f"references[{i}]", item, strings, pieces) for i, item in enumerate(items)]
    check_number(len(groups), shape[-1])
    if (eos := counting.get("eos")) is not None:
        keep_eos = bool(counting.get("keep_eos"))
        rows = [_until(row, eos, keep_eos) for row in rows]
        groups = [[_until(row, eos, keep_eos) for row in group] for group in groups]
    return Pairs(rows, groups, shape)


def listed(name: str, items: Any, expected: str) -> list[Any]:
    """Return a list, of whatever is one or can become one: no string, bytes, set or dictionary.

    Raises:
        TypeError: that `name` must be what is expected.
    """
    made = items.tolist() if hasattr(items, "tolist") else items
    if isinstance(made, Sequence) and not isinstance(made, str | bytes | bytearray):
        return list(made)
    raise TypeError(f"{name} must be {expected}, got {items!r:.80}")


def _rows(ids: Any, mask: Any) -> list[Item]:
    """Return padded ids as lists of those that the mask keeps."""
    if mask is None:
        return list(ids.tolist())
    return [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]


def _until(row: Item, eos: Hashable, keep_eos: bool) -> Item:
    if isinstance(row, str):
        raise ValueError(f"eos must be None where references are strings, got {eos!r}")
    return row[: row.index(eos) + keep_eos] if eos in row else row


def _all_strings(row: Item) -> bool:
    return all(isinstance(token, str) for token in row)


def _item(name: str, item: Any, strings: bool, may_be_string: bool) -> Item:
    """Return one sequence: a string, where the batch is of strings or where it may be one."""
    if may_be_string and isinstance(item, str):
        return item
    if strings:
        raise TypeError(f"{name} must be a string, got {item!r:.80}")
    return _tokens(name, listed(name, item, "a list of tokens"))


def _tokens(name: str, tokens: list[Any]) -> Item:
    try:
        hash(tuple(tokens))
    except TypeError:
        raise TypeError(f"{name} must be hashable tokens, got {tokens!r:.80}") from None
    return tokens


def _group(name: str, item: Any, strings: bool, may_be_string: bool) -> list[Item]:
    """Return the references of one item, which are several or one."""
    if may_be_string and isinstance(item, str):
        return [item]
    expected = "a string or a list of strings" if strings else "a list of tokens"
    members = listed(name, item, expected)
    first = members[0] if members else None
    if not strings and not isinstance(first, list | tuple) and not getattr(first, "ndim", 0) > 0:
        return [_tokens(name, members)]
    if not members:
        raise ValueError(f"{name} must hold at least one reference, got an empty list")
    return [
        _item(f"{name}[{j}]", member, strings, may_be_string) for j, member in enumerate(members)
    ]
