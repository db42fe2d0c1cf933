"""Argument checks in one place and one style: the name, what came, what was expected.

Shapes and dtypes only: values are checked inside the kernel, without a synchronisation.
"""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8)


def tensor(name: str, x: Any) -> None:
    """Any tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")


def boolean(x: Any) -> None:
    """A mask's type, whatever its shape."""
    if not isinstance(x, Tensor) or x.dtype != torch.bool:
        came = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"mask must be a bool tensor (True counts), got {came}")


def logits(x: Any) -> None:
    """A floating-point tensor [..., V] with V >= 1."""
    tensor("logits", x)
    if x.dtype not in _FLOATS:
        raise TypeError(f"logits must be float32, float64, bfloat16 or float16, got {x.dtype}")
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f"logits must have shape [..., V] with V >= 1, got {_shape(x)}")


def tokens(x: Any, logits: Tensor, needed: bool, name: str = "tokens") -> Tensor | None:
    """Integers [...] or [S, ...] on the logits' device, as int64; None where logp is not asked."""
    if x is None:
        if needed:
            raise ValueError(f'{name} must be a tensor when outputs ask for "logp", got None')
        return None
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be an integer tensor, got {type(x).__name__}")
    if x.dtype not in _INTEGERS:
        raise TypeError(f"{name} must be int64, int32, int16, int8 or uint8, got {x.dtype}")
    batch = logits.shape[:-1]
    if x.shape != batch and (x.dim() != logits.dim() or x.shape[1:] != batch):
        raise ValueError(
            f"{name} must have shape {_shape(batch)} like logits[..., 0], or "
            f"{_samples(batch)} for S samples, got {_shape(x)}"
        )
    _same_device(name, x, logits)
    return x if x.dtype == torch.int64 else x.to(torch.int64)


def outputs(x: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    """A non-empty sequence of known names, as a tuple."""
    if isinstance(x, str) or not isinstance(x, Iterable):
        raise ValueError(f"outputs must be a sequence of names from {known}, got {x!r}")
    names = tuple(x)
    if not names:
        raise ValueError(f"outputs must be a sequence of names from {known}, got {x!r}")
    for name in names:
        if name not in known:
            raise ValueError(f"outputs must be names from {known}, got {name!r}")
    return names


def mask(x: Any, logits: Tensor) -> Tensor | None:
    """Bool [...], one entry a row."""
    if x is None:
        return None
    boolean(x)
    if x.shape != logits.shape[:-1]:
        raise ValueError(
            f"mask must have shape {_shape(logits.shape[:-1])} like logits[..., 0], got {_shape(x)}"
        )
    _same_device("mask", x, logits)
    return x


def temperature(x: Any, logits: Tensor, name: str = "temperature") -> Tensor | None:
    """None for the number 1, else float64 expanded to one entry a row."""
    batch = logits.shape[:-1]
    if isinstance(x, Tensor):
        if not x.dtype.is_floating_point:
            raise TypeError(f"{name} must be a floating-point tensor, got {x.dtype}")
        _same_device(name, x, logits)
        try:
            return x.to(torch.float64).expand(batch)
        except RuntimeError:
            raise ValueError(
                f"{name} must be a number or broadcastable to {_shape(batch)} like "
                f"logits[..., 0], got shape {_shape(x)}"
            ) from None
    if isinstance(x, bool) or not isinstance(x, Real):
        raise TypeError(f"{name} must be a number or a tensor, got {type(x).__name__}")
    value = float(x)
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {x}")
    if value == 1:
        return None
    return torch.full((), value, dtype=torch.float64, device=logits.device).expand(batch)


def grad_inplace(logits: Tensor) -> None:
    """Logits whose memory may be overwritten: not a leaf, eager, contiguous vocabulary."""
    if torch.compiler.is_compiling():
        raise ValueError("grad_inplace=True is not supported under torch.compile")
    if torch._C._are_functorch_transforms_active():
        raise ValueError("grad_inplace=True is not supported under torch.func transforms")
    owner = logits if logits._base is None else logits._base
    if owner.is_leaf and owner.requires_grad:
        raise ValueError(
            "grad_inplace=True would overwrite logits that are a leaf (a parameter or an input "
            "that requires grad) or a view of one; pass the output of a layer"
        )
    if logits.stride(-1) != 1 and logits.shape[-1] > 1:
        raise ValueError(
            f"grad_inplace=True needs logits with stride 1 in the last dimension, got strides "
            f"{logits.stride()}"
        )
    if _overlaps(logits):
        raise ValueError(
            "grad_inplace=True needs logits whose elements share no memory, got an expanded "
            f"or overlapping view with shape {_shape(logits)} and strides {logits.stride()}"
        )


def _overlaps(x: Tensor) -> bool:
    """Whether two indices may mean one place in memory; False only where that is certain."""
    extent = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1:
            if stride < extent:
                return True
            extent += (size - 1) * stride
    return False


def _same_device(name: str, x: Tensor, logits: Tensor) -> None:
    if x.device != logits.device:
        raise ValueError(f"{name} must be on {logits.device} like logits, got {x.device}")


def _shape(x: Tensor | torch.Size) -> str:
    return str(tuple(x.shape if isinstance(x, Tensor) else x))


def _samples(batch: torch.Size) -> str:
    return "(" + ", ".join(["S", *map(str, batch)]) + ")"
