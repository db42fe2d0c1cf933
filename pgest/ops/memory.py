"""Memory of the size of logits or of a head's weight: fresh, or scaled where it lies."""

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


def scale_(x: Tensor, by: Tensor) -> None:
    """x *= by, a number in the dtype of x's statistics, with one rounding.

    Where it is 1, as after a plain `loss.backward()`, memory is left alone. On CUDA nothing waits
    to know: the kernel looks. Rows may be strided.

    Example:
        >>> x = torch.ones(2, 2)
        >>> scale_(x, torch.tensor(3.0))
        >>> x
        tensor([[3., 3.],
                [3., 3.]])
    """
    torch.ops.pgest.scale_.default(x, by)


def _scale_(x: Tensor, by: Tensor) -> None:
    if by.device.type != "cpu" or by.item() != 1:
        x.copy_(x.to(by.dtype) * by)


def _unadvised(x: Tensor) -> Any:
    return x


define("advise_huge_pages_(Tensor(a!) x) -> Tensor(a!)", _unadvised, _unadvised)
define("scale_(Tensor(a!) x, Tensor by) -> ()", _scale_, lambda x, by: None)
