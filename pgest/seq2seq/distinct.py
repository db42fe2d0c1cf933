"""Merging equal samples before they are scored."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Distinct(NamedTuple):
    """The `N` distinct sequences of a batch that carry a weight, in no particular order.

    `row [N]` is the batch row of each, `tokens [N, T]` and `mask [N, T]` the sequence, and
    `weight [N]` the summed weight of all samples that drew it.
    """

    row: Tensor
    tokens: Tensor
    mask: Tensor
    weight: Tensor


def distinct(tokens: Tensor, mask: Tensor, weight: Tensor) -> Distinct:
    """Merge equal samples of a batch row, add up their weights and drop those of weight 0.

    A sum of `weight * f(tokens)` over samples is the same sum over the result for any `f`, and so
    is its gradient, while `f` runs on fewer rows: samples of a confident policy are often equal,
    and where all rewards of a row agree all its leave-one-out weights are 0. A term that does not
    carry the weight (an entropy bonus over all samples) needs all samples: do not merge for it.

    Args:
        tokens: `[S, B, T]`, integer; equal samples must also agree where they are masked, as those
            of `sample` do.
        mask: `[S, B, T]`, bool.
        weight: `[S, B]`, floating point.

    Returns:
        The distinct sequences; the weights are detached.

    Raises:
        ValueError: for shapes that do not belong together.

    Example:
        >>> tokens = torch.tensor([[[4, 1]], [[4, 1]], [[5, 1]]])
        >>> distinct(tokens, tokens > 0, torch.tensor([[0.25], [0.25], [-0.5]])).weight
        tensor([ 0.5000, -0.5000])
    """
    if mask.shape != tokens.shape or weight.shape != tokens.shape[:-1] or tokens.dim() != 3:
        raise ValueError(
            "tokens, mask and weight must have shapes [S, B, T], [S, B, T] and [S, B], got "
            f"{tuple(tokens.shape)}, {tuple(mask.shape)} and {tuple(weight.shape)}"
        )
    samples, batch, _ = tokens.shape
    row = torch.arange(batch, device=tokens.device).repeat(samples)
    keys = torch.cat([row.unsqueeze(-1), tokens.flatten(0, 1)], dim=-1)
    merged, inverse = torch.unique(keys, dim=0, return_inverse=True)
    summed = weight.new_zeros(len(merged)).index_add_(0, inverse, weight.detach().flatten())
    kept_mask = torch.zeros_like(merged[:, 1:], dtype=torch.bool)
    kept_mask[inverse] = mask.flatten(0, 1)
    # Weights that cancel leave rounding behind. A NaN is kept: the loss must show it.
    size = weight.new_zeros(len(merged)).index_add_(0, inverse, weight.detach().abs().flatten())
    keep = ~(summed.abs() <= torch.finfo(weight.dtype).eps * size)
    return Distinct(merged[keep, 0], merged[keep, 1:], kept_mask[keep], summed[keep])
