"""What a reward is, and the check of what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from pgest.rewards.ids import tensor_of
from pgest.rewards.sequences import Counting

# Keywords that say what counts; `pairs_of` applies them.
COUNTING = tuple(Counting.__annotations__)


class Reward(Protocol):
    """Any callable that scores a batch of hypotheses against their references.

    `reward(hypotheses, references, **options)` returns one real number for each hypothesis: `[B]`,
    or `[..., B]` for integer ids `[..., B, T]`. Every function of `pgest.rewards` is one, whatever
    is put together from them is one again, and so is a function of yours.

    Hypotheses are a list of B strings, a list of B lists of tokens, or a tensor of ids; references
    are B items, each one sequence of the same kind or a list of several. Keywords such as `mask`
    (bool, True counts) and `eos` say what counts; whoever wraps a reward passes them on as they
    came. A score depends on its own pair alone. Rewards are maximised; a cost, which is minimised,
    becomes a reward by `scaled(cost, -1)`.

    Example:
        >>> def brief(hypotheses, references, **options):
        ...     return torch.tensor([-float(len(text)) for text in hypotheses])
        >>> reward: Reward = brief
        >>> reward(["a cat", "cat"], ["a cat", "a cat"])
        tensor([-5., -3.])
    """

    def __call__(self, hypotheses: Any, references: Any, /, *args: Any, **kwargs: Any) -> Tensor:
        """Return the scores: `[B]`, or `[..., B]` for ids `[..., B, T]`."""
        ...


def name_of(reward: object) -> str:
    """Return what a reward is called in tables and errors.

    Example:
        >>> from pgest.rewards import edit_distance
        >>> name_of(partial(edit_distance, mask=None))
        'edit_distance(mask=None)'
    """
    if isinstance(reward, partial):
        settings = [*map(repr, reward.args), *(f"{k}={v!r}" for k, v in reward.keywords.items())]
        return f"{name_of(reward.func)}({', '.join(settings)})"
    return getattr(reward, "__name__", None) or type(reward).__name__


def batch_shape(hypotheses: Any) -> tuple[int, ...]:
    """Return the shape of the scores of these hypotheses."""
    hypotheses = tensor_of(hypotheses)
    if isinstance(hypotheses, Tensor):
        return tuple(hypotheses.shape[:-1])
    return (len(hypotheses),)


def scores_of(
    reward: Reward, hypotheses: Any, references: Any, options: Mapping[str, Any] | None = None
) -> Tensor:
    """Return a reward's checked scores: float32 `[B]` or `[..., B]` on the CPU, detached.

    With the option `per_prefix`, where the reward has it, one dimension more: `[..., B, T]`.

    Raises:
        TypeError: for anything but a tensor of real numbers. Booleans count as 0 and 1.
        ValueError: for another shape. Both name the reward.

    Example:
        >>> scores_of(lambda hypotheses, references: [1.0], ["a"], ["a"])
        Traceback (most recent call last):
        TypeError: reward <lambda> must return a tensor of real numbers, got list
    """
    options = options or {}
    scores = reward(hypotheses, references, **options)
    if not isinstance(scores, Tensor) or scores.is_complex():
        came = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(
            f"reward {name_of(reward)} must return a tensor of real numbers, got {came}"
        )
    shape, extra = batch_shape(hypotheses), int(bool(options.get("per_prefix")))
    if scores.dim() != len(shape) + extra or tuple(scores.shape[: len(shape)]) != shape:
        raise ValueError(
            f"reward {name_of(reward)} must return scores of shape {shape}, "
            f"{'a row' if extra else 'one'} for each hypothesis, got {tuple(scores.shape)}"
        )
    return scores.detach().to("cpu", torch.float32)


def no_prefixes(wrapper: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse scores of prefixes where only whole hypotheses have one; returns the other options."""
    if options.get("per_prefix"):
        raise ValueError(f"per_prefix must be left out with {wrapper}: it scores whole hypotheses")
    return {name: value for name, value in options.items() if name != "per_prefix"}
