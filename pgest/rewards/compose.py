"""Rewards put together from rewards: sums, scales, bounds, gates, and penalties of length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import torch
from torch import Tensor

from pgest.ops import scalars
from pgest.rewards.failures import Parts
from pgest.rewards.pairs import pairs_of
from pgest.rewards.protocol import Reward, name_of, no_prefixes


class WeightedSum:
    """The reward that `weighted_sum` returns.

    `parts` holds the unweighted scores of the last call by name, for logs.
    """

    def __init__(self, parts: Mapping[str, tuple[float, Reward]]) -> None:
        if not isinstance(parts, Mapping) or not parts:
            raise ValueError(f"parts must be a dict of name: (weight, reward), got {parts!r}")
        self._terms: dict[str, tuple[float, Reward]] = {}
        for name, term in parts.items():
            if not isinstance(term, tuple) or len(term) != 2 or not callable(term[1]):
                raise TypeError(f"parts must map {name!r} to (weight, reward), got {term!r}")
            self._terms[name] = (scalars.number(f"weight of {name!r}", term[0]), term[1])
        terms = (f"{weight:g} {name}" for name, (weight, _) in self._terms.items())
        self.__name__ = " + ".join(terms)
        self.parts: dict[str, Tensor] = {}

    def __call__(self, hypotheses: Any, references: Any, **options: Any) -> Tensor:
        """Return the weighted sum of the parts' scores."""
        parts = Parts(hypotheses, references, options)
        self.parts = {name: parts.of(reward) for name, (_, reward) in self._terms.items()}
        # 0 times infinity or NaN is NaN: what has no weight is for the logs alone.
        counted = [(w, self.parts[name]) for name, (w, _) in self._terms.items() if w != 0]
        total = torch.zeros_like(next(iter(self.parts.values())))
        for weight, scores in counted:
            total = total + weight * scores
        return parts.whole(total)


def weighted_sum(parts: Mapping[str, tuple[float, Reward]]) -> WeightedSum:
    """Return the reward that is a weighted sum of others, each under a name.

        score = sum over parts of weight * reward(hypotheses, references, **options)

    Options, such as `mask`, `eos` and `per_prefix`, reach every part.

    Args:
        parts: name -> (weight, reward). A part of weight 0 is scored for the logs and adds nothing.

    Returns:
        A reward whose `parts` are the unweighted scores of its last call: name -> `[..., B]`.

    Raises:
        ValueError, TypeError: for no parts, a weight that is no number, a reward that cannot be
            called; from the call, what `scores_of` says of the scores of a part.

    Example:
        >>> def words(hypotheses, references, **options):
        ...     return torch.tensor([float(len(text.split())) for text in hypotheses])
        >>> def same(hypotheses, references, **options):
        ...     return torch.tensor([h == r for h, r in zip(hypotheses, references)])
        >>> reward = weighted_sum({"same": (1, same), "words": (-0.1, words)})
        >>> reward(["a cat", "a"], ["a cat", "a cat"])
        tensor([ 0.8000, -0.1000])
        >>> reward.parts["words"]
        tensor([2., 1.])
    """
    return WeightedSum(parts)


def scaled(reward: Reward, factor: float, offset: float = 0.0) -> Reward:
    """Return `factor * reward + offset`; with `factor=-1` a cost becomes a reward.

    Raises:
        TypeError: for a factor or an offset that is no number.

    Example:
        >>> from pgest.rewards import error_rate
        >>> accuracy = scaled(error_rate, -1, offset=1)
        >>> accuracy(["kitten"], [["sitten"]])
        tensor([0.8333])
    """
    factor, offset = scalars.number("factor", factor), scalars.number("offset", offset)

    def score(hypotheses: Any, references: Any, **options: Any) -> Tensor:
        parts = Parts(hypotheses, references, options)
        return parts.whole(factor * parts.of(reward) + offset)

    return _named(score, f"{factor:g} {name_of(reward)}" + (f" + {offset:g}" if offset else ""))


def clipped(reward: Reward, low: float = -inf, high: float = inf) -> Reward:
    """Return a reward bounded to `[low, high]`; NaN stays NaN.

    Raises:
        ValueError: unless `low < high`.
        TypeError: for bounds that are no numbers.

    Example:
        >>> from pgest.rewards import edit_distance
        >>> clipped(scaled(edit_distance, -1), low=-3)(["a", "abcdef"], [["b"], ["b"]])
        tensor([-1., -3.])
    """
    low, high = scalars.number("low", low), scalars.number("high", high)
    if not low < high:
        raise ValueError(f"low must be below high, got {low:g} and {high:g}")

    def score(hypotheses: Any, references: Any, **options: Any) -> Tensor:
        parts = Parts(hypotheses, references, options)
        return parts.whole(parts.of(reward).clamp(low, high))

    return _named(score, f"{name_of(reward)} in [{low:g}, {high:g}]")


def gated(reward: Reward, gate: Reward, at_least: float, otherwise: float = 0.0) -> Reward:
    """Return a reward that is earned only where another one passes.

        score = reward  where gate >= at_least,  otherwise  elsewhere (where gate is NaN too)

    Both score the whole batch, with the same options.

    Raises:
        TypeError: for `at_least` or `otherwise` that is no number.

    Example:
        >>> def words(hypotheses, references, **options):
        ...     return torch.tensor([len(text.split()) for text in hypotheses])
        >>> def ends(hypotheses, references, **options):
        ...     return torch.tensor([text.endswith(".") for text in hypotheses])
        >>> gated(words, ends, at_least=1, otherwise=-1)(["A cat.", "A cat sat on"], ["", ""])
        tensor([ 2., -1.])
    """
    at_least = scalars.number("at_least", at_least)
    otherwise = scalars.number("otherwise", otherwise)

    def score(hypotheses: Any, references: Any, **options: Any) -> Tensor:
        parts = Parts(hypotheses, references, options)
        return parts.whole(torch.where(parts.of(gate) >= at_least, parts.of(reward), otherwise))

    return _named(score, f"{name_of(reward)} where {name_of(gate)} >= {at_least:g}")


def length_penalty(
    low: float = 1.0, high: float = 1.0, *, length: Callable[[Any], int] = len
) -> Reward:
    """Return a reward that is lost as the length leaves a band around the reference's.

        q = length of the hypothesis / length of the reference (an empty one counts as 1)
        score = -(max(low - q, 0) + max(q - high, 0)),  from 0 (in the band) down

    Of several references the one of the closest length counts, of two as close the shorter. It is
    meant for `weighted_sum`: `low=0` allows everything short, `high=inf` everything long.

    Args:
        low, high: the band, as ratios.
        length: the length of one hypothesis or reference. `len` counts the tokens of ids and lists
            and the characters of strings; `lambda text: len(text.split())` counts words.

    Raises:
        ValueError: unless `0 <= low <= high`; from the call, for `per_prefix` and what `pairs_of`
            refuses.
        TypeError: for bounds that are no numbers.

    Example:
        >>> length_penalty(low=0.9, high=1.5)(["", "abcdefghi", "a" * 20], ["0123456789"] * 3)
        tensor([-0.9000,  0.0000, -0.5000])
    """
    low, high = scalars.number("low", low), scalars.number("high", high)
    if not 0 <= low <= high:
        raise ValueError(f"low and high must be 0 <= low <= high, got {low:g} and {high:g}")

    def score(hypotheses: Any, references: Any, **options: Any) -> Tensor:
        lengths, of_references, shape = _lengths(hypotheses, references, options, length)
        ratios = []
        for i, size in enumerate(lengths):
            group = of_references[i % len(of_references)]
            closest = min(group, key=lambda wanted: (abs(wanted - size), wanted))
            ratios.append(size / max(closest, 1))
        ratio = torch.tensor(ratios, dtype=torch.float64).reshape(shape)
        outside = (low - ratio).clamp(min=0) + (ratio - high).clamp(min=0)
        return (0.0 - outside).float()  # and not -0.0 inside the band

    return _named(score, f"length_penalty({low:g}, {high:g})")


def overlong_penalty(max_length: int, buffer: int, *, length: Callable[[Any], int] = len) -> Reward:
    """Return DAPO's soft over-long punishment: the last `buffer` tokens before the limit cost.

        score = 0                                         where length <= max_length - buffer
                (max_length - buffer - length) / buffer   up to max_length
                -1                                        above

    The length is that of the hypothesis alone, as generated: a sample that the limit cut off gets
    -1. References only have to be there.

    Args:
        max_length: the longest output, L_max of the paper.
        buffer: the soft part of it, L_cache, from 1 to `max_length`.
        length: as for `length_penalty`.

    Raises:
        ValueError: for numbers out of these ranges; from the call, for `per_prefix` and what
            `pairs_of` refuses.
        TypeError: for anything but integers.

    Source: Yu et al. 2025 (arXiv 2503.14476), section 3.4.

    Example:
        >>> ids = torch.arange(8).expand(3, 8)
        >>> mask = torch.arange(8) < torch.tensor([[4], [6], [8]])
        >>> overlong_penalty(8, 4)(ids, [[0]] * 3, mask=mask)
        tensor([ 0.0000, -0.5000, -1.0000])
    """
    max_length, buffer = scalars.count("max_length", max_length), scalars.count("buffer", buffer)
    if buffer > max_length:
        raise ValueError(f"buffer must be at most max_length, {max_length}, got {buffer}")

    def score(hypotheses: Any, references: Any, **options: Any) -> Tensor:
        lengths, _, shape = _lengths(hypotheses, references, options, length)
        left = torch.tensor(lengths, dtype=torch.float64).reshape(shape)
        return ((max_length - buffer - left) / buffer).clamp(-1, 0).float() + 0.0

    return _named(score, f"overlong_penalty({max_length}, {buffer})")


def _lengths(
    hypotheses: Any, references: Any, options: dict[str, Any], length: Callable[[Any], int]
) -> tuple[list[int], list[list[int]], tuple[int, ...]]:
    """Return the lengths of all hypotheses and references, and the shape of the scores."""
    options = no_prefixes("a penalty of length", options)
    pairs = pairs_of(hypotheses, references, **options)
    of_references = [[length(reference) for reference in group] for group in pairs.references]
    return [length(h) for h in pairs.hypotheses], of_references, pairs.shape


def _named(score: Callable[..., Tensor], name: str) -> Reward:
    score.__name__ = score.__qualname__ = name
    return score
