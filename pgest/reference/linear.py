"""Statistics and losses of tokens from hidden states and a head's weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pgest.reference.rows import statistics_dtype, values
from pgest.reference.stats import Stats, StatsInput, token_stats


def linear_logits(
    mask: Tensor | None, hidden: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """hidden @ weight.T + bias, in the statistics' dtype; masked rows of `hidden` count as 0."""
    dtype = statistics_dtype(weight)
    if mask is not None:
        hidden = torch.where(mask[..., None], hidden, 0.0)
    logits = hidden.to(dtype) @ weight.to(dtype).t()
    return logits if bias is None else logits + bias.to(dtype)


def linear_token_stats(
    hidden: Tensor,
    weight: Tensor,
    given: StatsInput,
    bias: Tensor | None = None,
    other: tuple[Tensor, ...] | None = None,
) -> Stats:
    """`token_stats` of the logits hidden @ weight.T + bias.

    Args:
        hidden: [..., D].
        weight: [V, D].
        given: the other arguments of `token_stats`; its logits are not read.
        bias: [V].
        other: hidden, weight and perhaps bias of the reference policy, whose logits pass through
            the same softcap.

    Returns:
        What `token_stats` returns, differentiable to any order. Memory: the logits [..., V] and a
        few temporaries of their size.
    """
    given = given._replace(logits=linear_logits(given.mask, hidden, weight, bias))
    if other is not None:
        of_reference = linear_logits(given.mask, *other)
        given = given._replace(reference_logits=values(of_reference, softcap=given.softcap))
    return token_stats(given)


def linear_objective(
    stats: Any,
    objective: Callable[..., Tensor],
    *rows: Tensor,
    mask: Tensor | None = None,
    normalizer: float | Tensor = 1.0,
) -> Tensor:
    """(1 / normalizer) sum over tokens of mask objective(stats, *rows).

    Args:
        stats: statistics of the rows, with fields as `objective` reads them.
        objective: gives one loss for each token.
        rows: one value a token.
        mask: [...], True counts.
        normalizer: what the sum is divided by.
    """
    losses = objective(stats, *rows)
    return (losses if mask is None else torch.where(mask, losses, 0.0)).sum() / normalizer
