"""The uniforms of a draw: the caller's, or fresh ones. The only door of randomness."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def shape_of(method: str, num_samples: int, batch: torch.Size) -> tuple[int, ...]:
    """How many uniforms a method needs: one a token, half of them, or two."""
    if method == "antithetic":
        return ((num_samples + 1) // 2, *batch)
    if method == "without_replacement":
        return (2, num_samples, *batch)
    return (num_samples, *batch)


def uniforms(shape: tuple[int, ...], logits: Tensor, generator: Any, noise: Any) -> Tensor:
    """float64 uniforms in [0, 1): 24 bits would distort the tails. Values are the op's to check."""
    if noise is None:
        return torch.rand(
            shape, dtype=torch.float64, device=logits.device, generator=_checked(generator)
        )
    if generator is not None:
        raise ValueError("noise and generator exclude each other: got both")
    if not isinstance(noise, Tensor) or not noise.is_floating_point():
        came = noise.dtype if isinstance(noise, Tensor) else type(noise).__name__
        raise TypeError(f"noise must be a floating-point tensor of uniforms in [0, 1), got {came}")
    if tuple(noise.shape) != shape:
        raise ValueError(f"noise must have shape {shape}, got {tuple(noise.shape)}")
    if noise.device != logits.device:
        raise ValueError(f"noise must be on {logits.device} like logits, got {noise.device}")
    return noise.detach().to(torch.float64)


def _checked(generator: Any) -> torch.Generator | None:
    if generator is None:
        return None
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if torch.compiler.is_compiling():
        raise ValueError("generator is for eager code: compiled code passes noise=")
    if torch._C._are_functorch_transforms_active():
        raise ValueError("generator is for eager code: code under torch.func passes noise=")
    return generator
