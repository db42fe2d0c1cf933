"""What an objective is given: statistics that were asked for, rows that fit, settings in range."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from pgest.ops import TokenStats, checks, scalars


def token_stats_only(stats: Any) -> None:
    """Statistics, not one of them."""
    if not isinstance(stats, TokenStats):
        raise TypeError(
            f"stats must be a TokenStats, as token_stats returns it, got {type(stats).__name__}"
        )


def statistic(stats: Any, name: Literal["logp", "entropy", "lse"]) -> Tensor:
    """One of the statistics; an error says how to get it."""
    token_stats_only(stats)
    found = getattr(stats, name)
    if found is None:
        raise ValueError(f'stats must hold {name}, got None: ask for it with outputs=("{name}",)')
    return found


def numbers(name: str, value: Any, shape: torch.Size, each: str = "token") -> Tensor:
    """A row to calculate with: of real numbers."""
    checks.tensor(name, value)
    if value.dtype == torch.bool or value.is_complex():
        raise TypeError(f"{name} must be a tensor of real numbers, got {value.dtype}")
    return row(name, value, shape, each)


def row(name: str, value: Any, shape: torch.Size, each: str = "token") -> Tensor:
    """A tensor that broadcasts to the tokens, at their shape."""
    checks.tensor(name, value)
    try:
        return value.expand(shape)
    except RuntimeError:
        raise ValueError(
            f"{name} must be broadcastable to {tuple(shape)}, one for each {each}, "
            f"got {tuple(value.shape)}"
        ) from None


def bound(name: str, value: Any, low: float, high: float = float("inf")) -> float:
    """A number in [low, high]."""
    x = scalars.number(name, value)
    if not low <= x <= high:
        raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value}")
    return x
