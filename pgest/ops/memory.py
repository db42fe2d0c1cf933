"""Fresh memory of the size of logits or of a head's weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pgest.ops.library import define


def fresh(like: Tensor, *shape: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor on the device of `like`, in huge pages where it is large.

    Page faults, not stores, are what the first use of fresh memory costs on the CPU.

    Example:
        >>> fresh(torch.zeros(1), 2, 3, dtype=torch.float64).shape
        torch.Size([2, 3])
    """
    x = torch.empty(shape, dtype=dtype, device=like.device)
    return torch.ops.pgest.advise_huge_pages_.default(x)


def _unadvised(x: Tensor) -> Any:
    return x


define("advise_huge_pages_(Tensor(a!) x) -> Tensor(a!)", _unadvised, _unadvised)
