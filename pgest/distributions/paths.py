"""How a gradient comes to a tensor, and where it does not."""

from __future__ import annotations

import torch
from torch import Tensor

from pgest.distributions.base import finite


def still(slope: Tensor, logits: Tensor) -> Tensor:
    """The slope, 0 where a logit of `finite` was infinite: their product must not grow either."""
    return torch.where(logits.abs() > torch.finfo(logits.dtype).max / 2, 0.0, slope)


def attached(moved: Tensor, logits: Tensor) -> Tensor:
    """`moved` with the gradient of the logits, an infinite one's excepted."""
    path = finite(logits)
    return moved.detach() + (path - path.detach())


def with_path(sample: Tensor, path: Tensor) -> Tensor:
    """`sample`, to the last bit, with the gradient of `path`."""
    return sample + (path - path.detach())


def without_path(value: Tensor, where: Tensor) -> Tensor:
    """`value` without a gradient where a logit is infinite: its slope there would be infinite."""
    return torch.where(where, value.detach(), value)
