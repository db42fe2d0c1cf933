"""Checks of arguments that are numbers, in the style of `checks`. NumPy's count like Python's."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor


def integer(name: str, x: Any) -> int:
    """An integer, as Python's own."""
    if type(x) is int:
        return x
    if isinstance(x, bool) or not isinstance(x, Integral):
        raise TypeError(f"{name} must be an integer, got {type(x).__name__}")
    return int(x)


def count(name: str, x: Any) -> int:
    """An integer that is at least 1."""
    value = integer(name, x)
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {x}")
    return value


def number(name: str, x: Any, or_tensor: bool = False) -> float:
    """A real number, as Python's own."""
    if isinstance(x, bool) or not isinstance(x, Real):
        wanted = "a number or a tensor" if or_tensor else "a number"
        raise TypeError(f"{name} must be {wanted}, got {type(x).__name__}")
    return float(x)


def positive(name: str, x: Any) -> float:
    """A positive, finite number."""
    value = number(name, x)
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {x}")
    return value


def share(name: str, x: Any) -> float:
    """A number in (0, 1]."""
    value = number(name, x)
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be in (0, 1], got {x}")
    return value


def softcap(x: Any) -> float:
    """0 for None, else a positive number."""
    if x is None:
        return 0.0
    value = number("softcap", x)
    if not 0 < value < float("inf"):
        raise ValueError(f"softcap must be positive and finite, got {x}")
    if not 1e-37 <= value <= 1e37:  # it and its reciprocal are normal numbers in float32
        raise ValueError(f"softcap must be from 1e-37 to 1e+37, got {x}")
    return value


def divisor(
    x: float | Tensor, device: torch.device, shape: torch.Size, mask: Tensor | None
) -> float | Tensor:
    """`normalizer` of a sum over `shape`, where `mask` counts: 1 for nothing over 0."""
    by = normalizer(x)
    if isinstance(by, Tensor):
        by = by.to(device)
        nothing = shape.numel() == 0 if mask is None else ~mask.any()
        by = torch.where((by == 0) & nothing, 1.0, by)
    return by


def normalizer(x: Any) -> float | Tensor:
    """What a sum is divided by: a number that is not 0, or one without a gradient in float64."""
    if isinstance(x, Tensor):
        if x.numel() != 1 or x.is_complex():
            raise ValueError(
                f"normalizer must be a number or a tensor of one element, got {x.dtype} of shape "
                f"{tuple(x.shape)}"
            )
        if x.requires_grad:
            raise ValueError("normalizer must not require a gradient: none is given; detach it")
        return x.to(torch.float64).reshape(())
    value = number("normalizer", x, or_tensor=True)
    if value == 0:
        raise ValueError(
            "normalizer must not be the number 0; as a tensor (mask.sum()) it may be 0 where "
            "nothing counts"
        )
    return value
