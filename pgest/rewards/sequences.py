"""What every reward takes, read once: hypotheses and references as sequences of tokens."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from pgest.rewards.backend import text
from pgest.rewards.ids import flat_ids, mask_of, reference_ids, tensor_of

Tokens = str | Sequence[Hashable] | Tensor | np.ndarray
Hypotheses = Tensor | np.ndarray | Sequence[Tokens]
References = Tensor | np.ndarray | Sequence[Tokens | Sequence[Tokens]]
Unit = text.Unit


class Counting(TypedDict, total=False):
    """Which tokens count: keywords that every reward of this package takes.

    mask: for ids, bool shaped like them, True counts.
    lengths: for ids, integers [..., B]: how many of the first tokens count, in place of a mask.
    eos: a token. A hypothesis or a reference ends before its first one.
    keep_eos: whether that first EOS counts as a token, so that a score sees a missing end.
    reference_mask: for references that are ids, bool shaped like them, True counts. Of ids
        [B, R, T] a reference of which nothing counts is none: it pads their number.
    """

    mask: Tensor | None
    lengths: Tensor | None
    eos: Hashable
    keep_eos: bool
    reference_mask: Tensor | None


class Pairs(NamedTuple):
    """Hypotheses and the references of each group of them, encoded.

    `shape` is that of the scores. `counted()` [N, T] says how many tokens count up to each
    position; it is None for lists and strings, in which all do.
    """

    hypotheses: Any
    references: Any
    starts: np.ndarray
    shape: tuple[int, ...]
    counted: Callable[[], np.ndarray] | None

    @property
    def args(self) -> tuple[Any, Any, np.ndarray, int]:
        """What the metrics take first; threads are PyTorch's."""
        return self.hypotheses, self.references, self.starts, torch.get_num_threads()

    @property
    def width(self) -> int:
        """How many prefixes of each hypothesis there are, the empty one included."""
        return int(self.hypotheses.longest) + 1


def is_ids(hypotheses: Hypotheses) -> bool:
    """Whether hypotheses are surely no strings: an empty list may have held some."""
    return not is_text(hypotheses) and (isinstance(hypotheses, Tensor) or len(hypotheses) > 0)


def is_text(hypotheses: Hypotheses) -> bool:
    """Whether hypotheses are strings."""
    listed = isinstance(hypotheses, Sequence) and not isinstance(hypotheses, str)
    return listed and any(isinstance(hypothesis, str) for hypothesis in hypotheses)


def read(
    hypotheses: Hypotheses,
    references: References,
    counting: Counting,
    *,
    string: Any = Unit.characters,
    prepare: Callable[[str], str] | None = None,
) -> Pairs:
    """Encode a batch and check that its parts belong together.

    `string` says what the tokens of strings are, after `prepare`; what is no string is ids.
    """
    check_keywords(counting)
    if isinstance(hypotheses, str):
        raise TypeError(f"hypotheses must be a list of sequences, got the string {hypotheses!r}")
    vocabulary = text.Vocabulary()
    hypotheses, references = tensor_of(hypotheses), tensor_of(references)
    words = is_text(hypotheses)
    unit = string if words else Unit.tokens
    if words and prepare is not None:
        hypotheses, references = _each(prepare, hypotheses), _each(prepare, references)
    eos = eos_of(hypotheses, counting, vocabulary)
    if isinstance(hypotheses, Tensor):
        ids, mask = flat_ids("hypotheses", "mask", hypotheses, mask_of(hypotheses, counting))
        shape = tuple(hypotheses.shape[:-1])
        # Where all count, prefixes stand at their positions already.
        some = mask is not None or eos[0] is not None or not len(ids)
        counted = partial(_counted, ids, mask, *eos) if some else None
        encoded = text.padded(ids, mask, *eos)
    else:
        refuse_masks(counting)
        encoded, counted = text.encode("hypotheses", hypotheses, unit, vocabulary), None
        encoded = encoded if eos[0] is None else text.cut(encoded, *eos)
        shape = (len(encoded),)
    targets, starts = _references(references, unit, eos, vocabulary, counting)
    check_number(len(starts) - 1, shape[-1])
    return Pairs(encoded, targets, starts, shape, counted)


def scores(pairs: Pairs, values: np.ndarray, per_prefix: bool, dtype: torch.dtype) -> Tensor:
    """Scores [N] in the batch's shape, or those [N, width] of prefixes at its positions."""
    found = torch.from_numpy(np.ascontiguousarray(values))
    if not per_prefix:
        return found.to(dtype).reshape(pairs.shape)
    # A column for each prefix, the empty one first: position t has that of the tokens up to t.
    if pairs.counted is None:
        found = found[:, 1:]
    else:
        found = found.gather(1, torch.from_numpy(pairs.counted()))
    return found.to(dtype, memory_format=torch.contiguous_format).reshape(
        *pairs.shape, found.shape[1]
    )


def counted_of(hypotheses: Any, options: Mapping[str, Any]) -> Tensor | None:
    """How many tokens count up to each position of ids, [..., B, T]; None for lists and strings."""
    hypotheses = tensor_of(hypotheses)
    if not isinstance(hypotheses, Tensor):
        return None
    known = Counting.__annotations__
    counting: Any = {name: value for name, value in options.items() if name in known}
    ids, mask = flat_ids("hypotheses", "mask", hypotheses, mask_of(hypotheses, counting))
    counted = torch.from_numpy(
        _counted(ids, mask, *eos_of(hypotheses, counting, text.Vocabulary()))
    )
    return counted.reshape(hypotheses.shape)


def check_keywords(counting: Counting) -> None:
    """Refuse keywords that no reward takes, by name."""
    unknown = sorted(set(counting) - set(Counting.__annotations__))
    if unknown:
        raise TypeError(
            f"no keyword {unknown[0]!r}: a reward takes {list(Counting.__annotations__)}"
        )


def _each(prepare: Callable[[str], str], items: Any) -> Any:
    """Prepare strings, alone or in lists; what is neither is left for the encoder to refuse."""
    if not isinstance(items, Sequence) or isinstance(items, str):
        return items

    def prepared(item: Any) -> Any:
        if isinstance(item, str):
            return prepare(item)
        item = item.tolist() if isinstance(item, np.ndarray) else item
        if not isinstance(item, Sequence):
            return item
        return [prepare(x) if isinstance(x, str) else x for x in item]

    return [prepared(item) for item in items]


def refuse_masks(counting: Counting) -> None:
    """Lists and strings hold what counts: a mask of them would go unread."""
    for name in ("mask", "lengths"):
        if counting.get(name) is not None:
            raise ValueError(f"{name} must be None where hypotheses are no tensor, got a value")


def refuse_reference_mask(counting: Counting) -> None:
    """The same of references."""
    if counting.get("reference_mask") is not None:
        raise ValueError("reference_mask must be None where references are no tensor, got a value")


def check_number(groups: int, size: int) -> None:
    """There are references for each hypothesis, and no more."""
    if groups != size:
        raise ValueError(f"references must have {size} items, one per hypothesis, got {groups}")


def eos_of(hypotheses: Any, counting: Counting, vocabulary: Any) -> tuple[int | None, bool]:
    """The EOS as it is encoded, and whether it counts; `vocabulary` is empty still."""
    eos, keep = counting.get("eos"), bool(counting.get("keep_eos", False))
    if eos is None:
        if keep:
            raise ValueError("keep_eos must be False without eos, got True")
        return None, False
    if is_text(hypotheses):
        raise ValueError(f"eos must be None where hypotheses are strings, got {eos!r}")
    code = int(text.encode("eos", [[eos]], Unit.tokens, vocabulary).ids[0])
    if isinstance(hypotheses, Tensor) and len(vocabulary):
        raise ValueError(f"eos must be an integer where hypotheses are ids, got {eos!r}")
    return code, keep


def _counted(
    ids: np.ndarray, mask: np.ndarray | None, eos: int | None, keep_eos: bool
) -> np.ndarray:
    counts = np.ones(ids.shape, dtype=bool) if mask is None else mask
    if eos is not None:
        ends = counts & (ids == eos)
        before = np.cumsum(ends, axis=1) - ends  # how many came earlier
        counts = counts & (before == 0) & (keep_eos | ~ends)
    return np.cumsum(counts, axis=1)


def _references(
    references: References,
    unit: Any,
    eos: tuple[int | None, bool],
    vocabulary: Any,
    counting: Counting,
) -> tuple[Any, np.ndarray]:
    """The references of all items end to end, and where those of each begin."""
    if isinstance(references, Tensor) and unit == Unit.tokens:
        ids, kept, starts = reference_ids(references, counting.get("reference_mask"))
        return text.padded(ids, kept, *eos), starts
    refuse_reference_mask(counting)
    targets, starts = text.encode_groups("references", references, unit, vocabulary)
    return (targets if eos[0] is None else text.cut(targets, *eos)), starts
