"""Per-token losses on top of `token_stats`: plain PyTorch, one copy of each formula.

Losses are minimised. A normaliser is an argument: no loss hides a mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pgest.ops import checks, token_stats


def reinforce_loss(
    logits: Tensor,
    tokens: Tensor,
    weight: Tensor,
    *,
    mask: Tensor | None = None,
    entropy_coef: float = 0.0,
    normalizer: float | Tensor = 1.0,
) -> Tensor:
    """REINFORCE loss of sampled tokens: its gradient raises what `weight` calls good.

        loss = -(1 / normalizer) sum_{s,n} mask (weight log p(token) + entropy_coef H)

    Args:
        logits: [..., V].
        tokens: [...], or [S, ...] for S samples per row at the cost of one pass.
        weight: broadcastable to `tokens`: reward, return or advantage of each token. Not detached:
            its gradient is -mask log p / normalizer, so a learned weight can be trained.
        mask: bool shaped like `tokens` or [...], True counts. What is masked is not read.
        entropy_coef: bonus per token, in units of reward per nat.
        normalizer: what the sum is divided by, e.g. the number of sequences.

    Returns:
        A scalar, float32 (float64 for float64 logits). An unmasked token that the logits exclude
        (-inf) makes it infinite, or NaN with weight 0.

    Raises:
        ValueError, TypeError: as `token_stats`, and for a weight or mask that does not fit.

    Memory: as `token_stats`, plus a few numbers per token.

    Source: Williams (1992), Simple statistical gradient-following algorithms; entropy bonus as in
    Williams and Peng (1991).

    Example:
        >>> logits = torch.zeros(3, 4, requires_grad=True)
        >>> reward = torch.tensor([1.0, 0.0, -1.0])
        >>> reinforce_loss(logits, torch.tensor([0, 1, 2]), reward).backward()
        >>> logits.grad[0].tolist()
        [-0.75, 0.25, 0.25, 0.25]
    """
    outputs = ("logp", "entropy") if entropy_coef else ("logp",)
    keep = _token_mask(mask, tokens, logits)
    rows = keep
    if keep is not None and keep.dim() == logits.dim():
        rows = keep.any(0)
        tokens = torch.where(keep, tokens, 0)
    stats = token_stats(logits, tokens, outputs=outputs, mask=rows)
    assert stats.logp is not None
    logp, weight = stats.logp, _broadcast(weight, stats.logp)
    if keep is not None:  # both factors: 0 * inf is NaN, in the loss or in its gradient
        logp, weight = torch.where(keep, logp, 0.0), torch.where(keep, weight, 0.0)
    gain = weight * logp
    if stats.entropy is not None:
        entropy = stats.entropy.expand(logp.shape)
        gain = gain + entropy_coef * (entropy if keep is None else torch.where(keep, entropy, 0.0))
    return -gain.sum() / normalizer


def _token_mask(mask: Tensor | None, tokens: Tensor, logits: Tensor) -> Tensor | None:
    checks.tensor("logits", logits)
    checks.tensor("tokens", tokens)
    if mask is None:
        return None
    checks.boolean(mask)
    if mask.shape == tokens.shape or mask.shape == logits.shape[:-1]:
        return mask
    raise ValueError(
        f"mask must have shape {tuple(tokens.shape)} like tokens or {tuple(logits.shape[:-1])} "
        f"like logits[..., 0], got {tuple(mask.shape)}"
    )


def _broadcast(weight: Tensor, logp: Tensor) -> Tensor:
    checks.tensor("weight", weight)
    try:
        return weight.expand(logp.shape)
    except RuntimeError:
        raise ValueError(
            f"weight must be broadcastable to {tuple(logp.shape)} like tokens, "
            f"got {tuple(weight.shape)}"
        ) from None
