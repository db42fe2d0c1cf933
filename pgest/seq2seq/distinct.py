"""Merging equal samples before they are scored."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Distinct(NamedTuple):
    """The `N` distinct sequences of a batch, in no particular order.

    `row [N]` is the batch row of each, `tokens [N, T]` and `mask [N, T]` the sequence, and
    `inverse [S, B]` tells which of them each sample is: `x[inverse]` repeats what was done once.
    """

    row: Tensor
    tokens: Tensor
    mask: Tensor
    inverse: Tensor

    def total(self, weight: Tensor) -> Tensor:
        """Return the summed weight of the samples that are each sequence: `[S, B]` to `[N]`.

        A sum of `weight * f(tokens)` over samples is the same sum over the distinct sequences for
        any `f`, and so is its gradient. Detached; weights that cancel give exactly 0.

        Raises:
            ValueError: for a weight of another shape than `[S, B]`.
        """
        if weight.shape != self.inverse.shape:
            raise ValueError(
                f"weight must have shape {tuple(self.inverse.shape)}, one for each sample, got "
                f"{tuple(weight.shape)}"
            )
        weight, inverse = weight.detach().flatten(), self.inverse.flatten()
        summed = weight.new_zeros(len(self.row)).index_add_(0, inverse, weight)
        # Weights that cancel leave rounding behind. A NaN is kept: the loss must show it.
        size = weight.new_zeros(len(self.row)).index_add_(0, inverse, weight.abs())
        return summed.where(~(summed.abs() <= torch.finfo(weight.dtype).eps * size), 0.0)


def distinct(tokens: Tensor, mask: Tensor) -> Distinct:
    """Merge equal samples of a batch row, so that each is scored once.

    Samples of a confident policy are often equal. Where only `total` of leave-one-out weights
    multiplies the scores, sequences whose total is 0 need no score at all.

    Args:
        tokens: `[S, B, T]`, integer; equal samples must also agree where they are masked, as those
            of `sample` do.
        mask: `[S, B, T]`, bool.

    Raises:
        ValueError: for shapes that do not belong together.

    Example:
        >>> tokens = torch.tensor([[[4, 1]], [[4, 1]], [[5, 1]]])
        >>> merged = distinct(tokens, tokens > 0)
        >>> merged.total(torch.tensor([[0.25], [0.25], [-0.5]]))
        tensor([ 0.5000, -0.5000])
    """
    if mask.shape != tokens.shape or tokens.dim() != 3:
        raise ValueError(
            "tokens and mask must both have shape [S, B, T], got "
            f"{tuple(tokens.shape)} and {tuple(mask.shape)}"
        )
    samples, batch, _ = tokens.shape
    row = torch.arange(batch, device=tokens.device).repeat(samples)
    keys = torch.cat([row.unsqueeze(-1), tokens.flatten(0, 1)], dim=-1)
    merged, inverse = torch.unique(keys, dim=0, return_inverse=True)
    kept_mask = torch.zeros_like(merged[:, 1:], dtype=torch.bool)
    kept_mask[inverse] = mask.flatten(0, 1)
    return Distinct(merged[:, 0], merged[:, 1:], kept_mask, inverse.view(samples, batch))
