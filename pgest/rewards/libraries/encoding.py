"""Python's lists, strings and arrays as sequences of tokens."""

from __future__ import annotations

import enum
import operator
import string as characters
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

FIRST_CODE = -(2**63)  # what is no whole number is numbered from here, below all ids in use


class Unit(enum.Enum):
    """What the tokens of one item are."""

    tokens = 0
    characters = 1
    visible = 2
    words = 3
    chrf_words = 4


class Sequences:
    """Sequences of whole numbers."""

    def __init__(self, rows: Iterable[Sequence[int]]) -> None:
        self.rows = [list(row) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> np.ndarray:
        """All tokens, end to end."""
        return np.array([token for row in self.rows for token in row], dtype=np.int64)

    @property
    def offsets(self) -> np.ndarray:
        """Where each sequence begins, and the end."""
        return np.cumsum([0, *map(len, self.rows)], dtype=np.int64)

    @property
    def longest(self) -> int:
        """Tokens of the longest."""
        return max(map(len, self.rows), default=0)


def encode(name: str, items: Any, unit: Unit, vocabulary: dict[Hashable, int]) -> Sequences:
    """One sequence for each item."""
    found = (
        _sequence(f"{name}[{i}]", x, unit, vocabulary) for i, x in enumerate(_list(name, items))
    )
    return Sequences(found)


def encode_groups(
    name: str, items: Any, unit: Unit, vocabulary: dict[Hashable, int]
) -> tuple[Sequences, np.ndarray]:
    """The sequences of all items, each one or a list of them, and where those of each begin."""
    rows: list[list[int]] = []
    starts = [0]
    for i, item in enumerate(_list(name, items)):
        where = f"{name}[{i}]"
        rows += _group(where, item, unit, vocabulary)
        if len(rows) == starts[-1]:
            raise ValueError(f"{where} must hold at least one reference, got an empty list")
        starts.append(len(rows))
    return Sequences(rows), np.array(starts, dtype=np.int64)


def piece_ends(name: str, items: Any, whitespace: bool) -> np.ndarray:
    """How many characters that count each piece ends after; a string's are its characters."""
    rows = [[len(p if whitespace else "".join(p.split())) for p in item] for item in items]
    ends = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=np.int64)
    for end, sizes in zip(ends, rows, strict=True):
        end[: len(sizes)] = sizes
    return np.cumsum(ends, axis=1)


def padded(ids: np.ndarray, mask: np.ndarray | None, eos: int | None, keep_eos: bool) -> Sequences:
    """Rows of ids without what the mask leaves out and what follows the first EOS."""
    kept = (
        ids.tolist()
        if mask is None
        else [row[m].tolist() for row, m in zip(ids, mask, strict=True)]
    )
    return cut(Sequences(kept), eos, keep_eos)


def cut(sequences: Sequences, eos: int | None, keep_eos: bool) -> Sequences:
    """Sequences up to their first EOS."""
    if eos is None:
        return sequences
    ends = (row.index(eos) + keep_eos if eos in row else len(row) for row in sequences.rows)
    return Sequences(row[:end] for row, end in zip(sequences.rows, ends, strict=True))


def _list(name: str, item: Any, expected: str = "a list") -> list[Any]:
    """A list, of whatever is one or can become one; a string, bytes or a dictionary is none."""
    if hasattr(item, "tolist"):
        item = item.tolist()
    readable = hasattr(type(item), "__getitem__") and not isinstance(item, str | bytes | bytearray)
    if readable and not isinstance(item, dict):
        return list(item)
    raise TypeError(f"{name} must be {expected}, got {repr(item)[:80]}")


def _group(name: str, item: Any, unit: Unit, vocabulary: dict[Hashable, int]) -> list[list[int]]:
    if unit is not Unit.tokens and isinstance(item, str):
        return [_sequence(name, item, unit, vocabulary)]
    tokens = unit is Unit.tokens
    members = _list(name, item, "a list of tokens" if tokens else "a string or a list of strings")
    first = members[0] if members else None
    nested = isinstance(first, list | tuple) or getattr(first, "ndim", 0) > 0
    if tokens and not nested:
        return [_sequence(name, members, unit, vocabulary)]
    return [_sequence(f"{name}[{j}]", x, unit, vocabulary) for j, x in enumerate(members)]


def _sequence(name: str, item: Any, unit: Unit, vocabulary: dict[Hashable, int]) -> list[int]:
    if unit is Unit.tokens:
        return [_token(name, token, vocabulary) for token in _list(name, item, "a list of tokens")]
    if not isinstance(item, str):
        raise TypeError(f"{name} must be a string, got {repr(item)[:80]}")
    if unit is Unit.characters:
        return [ord(c) for c in item]
    if unit is Unit.visible:
        return [ord(c) for c in item if not c.isspace()]
    words = item.split()
    if unit is Unit.chrf_words:
        words = [part for word in words for part in _without_punctuation(word)]
    return [_token(name, word, vocabulary) for word in words]


def _token(name: str, token: Any, vocabulary: dict[Hashable, int]) -> int:
    if not isinstance(token, str):
        whole = hasattr(token, "is_integer") and token.is_integer()
        if whole or hasattr(token, "__index__"):
            number = int(token) if whole else _index(name, token)
            if FIRST_CODE + 2**40 <= number < 2**63:
                return number
            token = number
    try:
        return vocabulary.setdefault(token, FIRST_CODE + len(vocabulary))
    except TypeError:
        raise TypeError(f"{name} must be hashable tokens, got {repr(token)[:80]}") from None


def _index(name: str, token: Any) -> int:
    try:
        return operator.index(token)
    except TypeError:  # a tensor that holds a fraction
        came = repr(token)[:80]
        raise TypeError(f"{name} must be whole numbers or hashable tokens, got {came}") from None


def _without_punctuation(word: str) -> list[str]:
    if len(word) > 1 and word[-1] in characters.punctuation:
        return [word[:-1], word[-1]]
    if len(word) > 1 and word[0] in characters.punctuation:
        return [word[0], word[1:]]
    return [word]
