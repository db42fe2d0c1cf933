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
    temperature: float | Tensor = 1.0,
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
        temperature: what the logits are divided by: that at which the tokens were drawn.
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
    stats = token_stats(logits, tokens, outputs=outputs, temperature=temperature, mask=rows)
    assert stats.logp is not None
    logp, weight = stats.logp, _broadcast(weight, stats.logp)
    if keep is not None:  # both factors: 0 * inf is NaN, in the loss or in its gradient
        logp, weight = torch.where(keep, logp, 0.0), torch.where(keep, weight, 0.0)
    gain = weight * logp
    if stats.entropy is not None:
        entropy = stats.entropy.expand(logp.shape)
        gain = gain + entropy_coef * (entropy if keep is None else torch.where(keep, entropy, 0.0))
    return -gain.sum() / normalizer


def logit_l2(
    logits: Tensor,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    normalizer: float | Tensor = 1.0,
) -> Tensor:
    """Penalty for large logits, which keeps a policy from becoming certain too early.

        loss = (1 / normalizer) sum_n mask weight (1 / V) sum_j logits_j^2

    Unlike an entropy bonus it also bounds what softmax does not see: a shift of all logits.

    Args:
        logits: [..., V]; a -inf logit, which is excluded, counts as 0.
        weight: broadcastable to [...]; how often each row counts, 1 without it.
        mask: [...], bool, True counts. What is masked is not read.
        normalizer: what the sum is divided by, e.g. the number of sequences.

    Returns:
        A scalar in the dtype of the logits.

    Raises:
        ValueError, TypeError: for a weight or mask that does not fit.

    Memory: one copy of the logits.

    Example:
        >>> logit_l2(torch.tensor([[3.0, -3.0], [0.0, 1.0]]))
        tensor(9.5000)
    """
    shape = logits.shape[:-1]
    if mask is not None:
        checks.boolean(mask)
        if mask.shape != shape:
            raise ValueError(f"mask must have shape {tuple(shape)}, got {tuple(mask.shape)}")
        logits = torch.where(mask.unsqueeze(-1), logits, 0.0)
    rows = torch.where(logits == -torch.inf, 0.0, logits).square().mean(-1)
    if weight is not None:
        rows = rows * _broadcast(weight, rows)
    return rows.sum() / normalizer


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


def _broadcast(weight: Tensor, like: Tensor) -> Tensor:
    checks.tensor("weight", weight)
    try:
        return weight.expand(like.shape)
    except RuntimeError:
        raise ValueError(
            f"weight must be broadcastable to {tuple(like.shape)}, one for each token, "
            f"got {tuple(weight.shape)}"
        ) from None
