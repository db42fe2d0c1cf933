"""Padded ids and which of them count, as arrays [N, T]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def tensor_of(items: Any) -> Any:
    """An array of numbers as a tensor, of other things as a list; all else as it is."""
    if not isinstance(items, np.ndarray):
        return items
    # A copy: torch takes no negative strides, and warns of what it must not write to.
    return torch.from_numpy(items.copy()) if items.dtype.kind in "biuf" else items.tolist()


def mask_of(hypotheses: Tensor, counting: Mapping[str, Any]) -> Tensor | None:
    """The mask of ids, from `mask` or `lengths`; None where all count."""
    mask, lengths = counting.get("mask"), counting.get("lengths")
    if lengths is None:
        return mask
    if mask is not None:
        raise ValueError("lengths must be None where there is a mask, got both")
    lengths = torch.as_tensor(lengths)
    steps, shape = hypotheses.shape[-1], tuple(hypotheses.shape[:-1])
    if lengths.is_floating_point() or lengths.dtype == torch.bool or lengths.shape != shape:
        raise ValueError(
            f"lengths must be integers {shape}, got {lengths.dtype} {tuple(lengths.shape)}"
        )
    if lengths.numel() and not 0 <= int(lengths.min()) <= int(lengths.max()) <= steps:
        raise ValueError(
            f"lengths must be from 0 to {steps}, got {int(lengths.min())} to {int(lengths.max())}"
        )
    return torch.arange(steps, device=lengths.device) < lengths[..., None]


def flat_ids(
    name: str, mask_name: str, ids: Tensor, mask: Tensor | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Padded ids as arrays [N, T], and their mask."""
    if ids.dim() < 2 or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(
            f"{name} must be integer ids of shape [..., B, T], got {ids.dtype} {tuple(ids.shape)}"
        )
    if mask is not None:
        mask = torch.as_tensor(mask)
        if mask.shape != ids.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"{mask_name} must be bool {tuple(ids.shape)} like {name}, "
                f"got {mask.dtype} {tuple(mask.shape)}"
            )
    rows = ids.shape[:-1].numel(), ids.shape[-1]
    flat = ids.detach().to("cpu", torch.int64).reshape(rows).numpy()
    return flat, None if mask is None else mask.to("cpu").reshape(rows).numpy()


def reference_ids(
    references: Tensor, mask: Tensor | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Padded ids of all references as arrays [N, T], their mask, and where each item's begin."""
    if references.dim() not in (2, 3):
        raise ValueError(
            "references must be integer ids of shape [B, T] or, several each, [B, R, T], "
            f"got {tuple(references.shape)}"
        )
    several = references.shape[1] if references.dim() == 3 else 1
    if several == 0:
        raise ValueError("references must be at least one each, got [B, 0, T]")
    ids, kept = flat_ids("references", "reference_mask", references, mask)
    if references.dim() == 3 and kept is not None:
        return _present(ids, kept, several)
    return ids, kept, several * np.arange(references.shape[0] + 1)


def _present(
    ids: np.ndarray, mask: np.ndarray, several: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """References without those that pad their number: of which nothing counts."""
    there = mask.any(axis=1)
    left = there.reshape(-1, several).sum(axis=1)
    if not left.all():
        raise ValueError(
            "reference_mask must leave each item a reference, "
            f"got none for item {int(np.argmin(left))}"
        )
    return ids[there], mask[there], np.concatenate([[0], np.cumsum(left)])
