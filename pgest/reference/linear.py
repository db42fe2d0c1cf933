"""Statistics and losses of tokens from hidden states and a head's weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pgest.reference.rows import statistics_dtype
from pgest.reference.stats import token_stats


def linear_logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
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
    tokens: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor | None, ...]:
    """`token_stats` of the logits hidden @ weight.T + bias.

    Args:
        hidden: [..., D].
        weight: [V, D].
        tokens: [...] or [S, ...], or None for no logp.
        bias: [V].
        mask: [...], True counts.
        options: of `token_stats`.

    Returns:
        What `token_stats` returns, differentiable to any order. Memory: the logits [..., V] and a
        few temporaries of their size.
    """
    logits = linear_logits(hidden, weight, bias, mask)
    return token_stats(logits, tokens, mask=mask, **options)


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
