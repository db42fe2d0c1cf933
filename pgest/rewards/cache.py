"""A memory of scores, so that what repeats is scored once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from math import isnan
from typing import Any

import torch
from torch import Tensor

from pgest.ops import scalars
from pgest.rewards.failures import FailedSamples, index_of
from pgest.rewards.ids import tensor_of
from pgest.rewards.pairs import Item, pairs_of
from pgest.rewards.protocol import COUNTING, Reward, name_of, no_prefixes, scores_of


class Cached:
    """The reward that `cached` returns.

    `hits` counts the pairs whose score was known, repetitions within one call included, and
    `misses` those that the reward was asked for; `len` is how many scores are remembered.
    """

    def __init__(self, reward: Reward, size: int) -> None:
        self.__name__ = name_of(reward)
        self.hits = self.misses = 0
        self._reward = reward
        self._size = scalars.count("size", size)
        self._known: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def __call__(self, hypotheses: Any, references: Any, **options: Any) -> Tensor:
        """Return the scores: float32 `[B]`, or `[..., B]` for ids."""
        options = no_prefixes("cached", options)
        hypotheses, references = tensor_of(hypotheses), tensor_of(references)
        keys, shape = _keys(hypotheses, references, options)
        first: dict[Hashable, int] = {}
        for i, key in enumerate(keys):
            first.setdefault(key, i)
        found = {key: self._known[key] for key in first if key in self._known}
        new = {key: i for key, i in first.items() if key not in found}
        failures: dict[Hashable, str] = {}
        trace = ""
        if new:
            batch = _select(list(new.values()), hypotheses, references, options)
            try:
                scores = scores_of(self._reward, *batch)
            except FailedSamples as error:
                # Its indices are those of the new pairs, of which one may stand for several here.
                scores, trace = error.scores, error.trace
                asked = list(new)
                failures = {asked[i]: text for i, text in error.failures.items() if type(i) is int}
            found.update(zip(new, scores.tolist(), strict=True))
        self._remember(found)
        self.misses += len(new)
        self.hits += len(keys) - len(new)
        result = torch.tensor([found[key] for key in keys]).reshape(shape)
        if failures:
            where = {i: failures[key] for i, key in enumerate(keys) if key in failures}
            named = {index_of(i, shape): text for i, text in where.items()}
            raise FailedSamples(result, named, trace) from None
        return result

    def clear(self) -> None:
        """Forget all scores; the counts go on."""
        self._known.clear()

    def _remember(self, found: Mapping[Hashable, float]) -> None:
        """Make these the latest and forget the oldest; NaN, a failure that may pass, not at all."""
        for key, score in found.items():
            if not isnan(score):
                self._known[key] = score
                self._known.move_to_end(key)
        while len(self._known) > self._size:
            self._known.popitem(last=False)


def cached(reward: Reward, *, size: int = 65536) -> Cached:
    """Return a reward that scores each pair of a hypothesis and its references once.

    The reward is asked for the new pairs alone, in one call without repetitions. Pairs are the same
    if what counts of them is, whatever the padding, and if the other options are equal. Worth it
    where a score takes longer than the look-up (some microseconds and a copy of the tokens to the
    CPU): slow functions, models, processes; not for the compiled metrics.

    Args:
        reward: one whose score depends on its own pair alone, and not on chance.
        size: how many scores are remembered; the least recently used is forgotten first. NaN, the
            mark of a sample that failed, is never remembered.

    Returns:
        A reward with the counts `hits` and `misses`, and `clear()`.

    Raises:
        ValueError: for `size` below 1; from the call, for `per_prefix` and what `pairs_of` refuses.
        TypeError: from the call, for options that are not hashable.
        FailedSamples: what the reward raises, with the indices and scores of the whole batch.

    Example:
        >>> def slow(hypotheses, references, **options):
        ...     print("asked for", hypotheses)
        ...     return torch.tensor([float(len(text)) for text in hypotheses])
        >>> reward = cached(slow, size=1000)
        >>> reward(["a", "bc", "a"], ["d", "e", "d"])
        asked for ['a', 'bc']
        tensor([1., 2., 1.])
        >>> reward(["bc", "fgh"], ["e", "i"])
        asked for ['fgh']
        tensor([2., 3.])
        >>> reward.hits, reward.misses
        (2, 3)
    """
    return Cached(reward, size)


def _keys(
    hypotheses: Any, references: Any, options: Mapping[str, Any]
) -> tuple[list[Hashable], tuple[int, ...]]:
    """Return what each score depends on, and the shape of the scores."""
    counting: Any = {name: options[name] for name in COUNTING if name in options}
    pairs = pairs_of(hypotheses, references, **counting)
    # What the masks say is in the pairs already.
    masks = {"mask", "lengths", "reference_mask"}
    settings = tuple(sorted((key, value) for key, value in options.items() if key not in masks))
    try:
        hash(settings)
    except TypeError as error:
        raise TypeError(f"options of a cached reward must be hashable: {error}") from error
    groups = [tuple(map(_hashable, group)) for group in pairs.references]
    keys: list[Hashable] = [
        (_hashable(item), groups[i % len(groups)], settings)
        for i, item in enumerate(pairs.hypotheses)
    ]
    return keys, pairs.shape


def _hashable(item: Item) -> Hashable:
    return item if isinstance(item, str) else tuple(item)


def _select(
    chosen: Sequence[int], hypotheses: Any, references: Any, options: Mapping[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    """Return a batch of some of the hypotheses, counted through all leading dimensions."""
    groups = [i % len(references) for i in chosen]
    options = dict(options)
    for name, which in (("mask", chosen), ("lengths", chosen), ("reference_mask", groups)):
        if (value := options.get(name)) is not None:
            value = torch.as_tensor(value)
            flat = value.flatten(0, hypotheses.dim() - 2) if which is chosen else value
            options[name] = flat[which]
    if isinstance(hypotheses, Tensor):
        hypotheses = hypotheses.flatten(0, -2)[chosen]
    else:
        hypotheses = [hypotheses[i] for i in chosen]
    if isinstance(references, Tensor):
        return hypotheses, references[groups], options
    return hypotheses, [references[i] for i in groups], options
