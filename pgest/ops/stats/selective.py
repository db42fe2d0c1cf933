"""Drop-in names that trainers already call, with the signatures and shapes of TRL 1.16."""

from __future__ import annotations

import torch
from torch import Tensor

from pgest.ops import checks
from pgest.ops.stats.api import token_stats


def selective_log_softmax(
    logits: Tensor,
    index: Tensor,
    temperature: float | Tensor = 1.0,
    row_mask: Tensor | None = None,
) -> Tensor:
    """`log_softmax(logits / temperature)` gathered at `index`, without the log-softmax.

    Args:
        logits: [..., V].
        index: integers [...], or [..., K] for K ids per row at the cost of one pass.
        temperature: a positive number or a tensor broadcastable to [...].
        row_mask: shaped like `index`, or [...]. Zero entries give 0 and their logits are not read
            where a whole row is zero.

    Returns:
        Shaped like `index`, always float32 (float64 for float64 logits), where TRL on CPU gives the
        dtype of the logits. Differentiable in logits. Raises as `token_stats` does.

    Source: `trl.trainer.utils.selective_log_softmax`.

    Example:
        >>> selective_log_softmax(torch.zeros(1, 4), torch.tensor([[0, 3]])).shape
        torch.Size([1, 2])
    """
    _check_tensors(logits, index, row_mask)
    rows, entries = _masks(logits, index, row_mask)
    tokens = _tokens(logits, index if entries is None else torch.where(entries, index, 0))
    logp = token_stats(logits, tokens, outputs=("logp",), temperature=temperature, mask=rows).logp
    assert logp is not None
    logp = logp if index.dim() < logits.dim() else logp.movedim(0, -1)
    return logp if entries is None else torch.where(entries, logp, 0.0)


def selective_log_softmax_and_entropy(
    logits: Tensor,
    index: Tensor,
    entropy_requires_grad: bool = True,
    temperature: float | Tensor = 1.0,
    row_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`selective_log_softmax` and the entropy of each row, in one pass.

    Args:
        logits: [..., V].
        index: integers [...].
        entropy_requires_grad: False detaches the entropy, whose part of the backward is then free.
        temperature, row_mask: as in `selective_log_softmax`.

    Returns:
        logp and entropy [...], float32 (float64 for float64 logits), in nats. A row of `row_mask`
        that is zero gives 0 in both. Raises as `token_stats` does.

    Source: `trl.trainer.utils.selective_log_softmax_and_entropy`.

    Example:
        >>> logp, entropy = selective_log_softmax_and_entropy(torch.zeros(1, 4), torch.tensor([0]))
        >>> round(float(entropy), 3)
        1.386
    """
    _check_tensors(logits, index, row_mask)
    if index.shape != logits.shape[:-1]:
        raise ValueError(
            f"index must have shape {tuple(logits.shape[:-1])} like logits[..., 0], "
            f"got {tuple(index.shape)}"
        )
    rows, _ = _masks(logits, index, row_mask)
    stats = token_stats(
        logits, index, outputs=("logp", "entropy"), temperature=temperature, mask=rows
    )
    logp, entropy = stats.logp, stats.entropy
    assert logp is not None
    assert entropy is not None
    return logp, entropy if entropy_requires_grad else entropy.detach()


def _check_tensors(logits: Tensor, index: Tensor, row_mask: Tensor | None) -> None:
    checks.tensor("logits", logits)
    checks.tensor("index", index)
    if row_mask is not None:
        checks.tensor("row_mask", row_mask)


def _tokens(logits: Tensor, index: Tensor) -> Tensor:
    batch = logits.shape[:-1]
    if index.shape == batch:
        return index
    if index.dim() != logits.dim() or index.shape[:-1] != batch:
        raise ValueError(
            f"index must have shape {tuple(batch)} like logits[..., 0], or (*that, K), "
            f"got {tuple(index.shape)}"
        )
    return index.movedim(-1, 0)


def _masks(
    logits: Tensor, index: Tensor, row_mask: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The rows to read, and the entries to keep where that says more."""
    if row_mask is None:
        return None, None
    if row_mask.shape not in (index.shape, logits.shape[:-1]):
        raise ValueError(
            f"row_mask must have shape {tuple(index.shape)} like index, got {tuple(row_mask.shape)}"
        )
    keep = row_mask != 0
    if keep.shape == logits.shape[:-1]:
        return keep, None
    return keep.any(-1), keep
