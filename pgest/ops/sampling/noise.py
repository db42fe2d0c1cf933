"""The uniforms of a draw: the caller's, or fresh ones. The only door of randomness."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pgest.ops.noise import given


def shape_of(method: str, num_samples: int, batch: torch.Size) -> tuple[int, ...]:
    """How many uniforms a method needs: one a token, half of them, or two."""
    if method == "antithetic":
        return ((num_samples + 1) // 2, *batch)
    if method == "without_replacement":
        return (2, num_samples, *batch)
    return (num_samples, *batch)


def uniforms(shape: tuple[int, ...], logits: Tensor, generator: Any, noise: Any) -> Tensor:
    """float64 uniforms in [0, 1): 24 bits would distort the tails. Values are the op's to check."""
    u = given(shape, logits, generator, noise)
    if u is None:
        return torch.rand(shape, dtype=torch.float64, device=logits.device, generator=generator)
    return u.to(torch.float64)
