"""What rewards, masks and groups must be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pgest.ops import checks, scalars


def floating(name: str, value: Any) -> None:
    """A floating-point tensor."""
    came = value.dtype if isinstance(value, Tensor) else type(value).__name__
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {came}")


def size_along(name: str, value: Tensor, dim: Any, of: str) -> int:
    """How many there are along a dimension that exists."""
    dim = scalars.integer("dim", dim)
    if value.dim() == 0:
        raise ValueError(f"{name} must have a dimension of {of}, got a scalar")
    if not -value.dim() <= dim < value.dim():
        raise ValueError(f"dim must be one of {name}'s {value.dim()} dimensions, got {dim}")
    return value.shape[dim]


def boolean(name: str, value: Any, like: Tensor) -> Tensor | None:
    """None, or a bool tensor of the reward's shape and device."""
    if value is None:
        return None
    if name == "mask":
        checks.boolean(value)
    elif not isinstance(value, Tensor) or value.dtype != torch.bool:
        came = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a bool tensor, got {came}")
    shaped(name, value, like.shape, "like reward")
    return _beside(name, value, like)


def shaped(name: str, value: Tensor, shape: torch.Size, of: str) -> None:
    """A tensor of exactly this shape."""
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {tuple(shape)} {of}, got {tuple(value.shape)}")


def group_ids(groups: Any, like: Tensor, size: int) -> Tensor:
    """Integers [size] on the reward's device."""
    came = groups.dtype if isinstance(groups, Tensor) else type(groups).__name__
    if not isinstance(groups, Tensor) or groups.is_floating_point() or groups.is_complex():
        raise TypeError(f"groups must be an integer tensor, got {came}")
    if groups.dtype == torch.bool:
        raise TypeError(f"groups must be an integer tensor, got {came}")
    if groups.shape != (size,):
        raise ValueError(
            f"groups must have shape ({size},), one group for each sample, "
            f"got {tuple(groups.shape)}"
        )
    return _beside("groups", groups, like)


def number(name: str, value: Any, low: float, high: float) -> float:
    """A number in [low, high]."""
    x = scalars.number(name, value)
    if not low <= x <= high:
        raise ValueError(f"{name} must be in [{low}, {high}], got {value}")
    return x


def _beside(name: str, value: Tensor, like: Tensor) -> Tensor:
    if value.device != like.device:
        raise ValueError(f"{name} must be on {like.device} like reward, got {value.device}")
    return value
