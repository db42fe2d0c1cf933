"""Sums over tokens: of any objective, and of the losses that start from logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pgest.objectives.arguments import numbers, row, token_stats_only
from pgest.objectives.policy import reinforce
from pgest.ops import TokenStats, checks, scalars, token_stats, token_stats_sum


def total(
    stats: TokenStats,
    objective: Callable[..., Tensor],
    *rows: Tensor,
    mask: Tensor | None = None,
    normalizer: float | Tensor = 1.0,
) -> Tensor:
    """Sum an objective over the tokens that count.

        loss = (1 / normalizer) sum_{s,n} mask objective(stats, *rows)

    Args:
        stats: of the tokens, as `token_stats` or `linear_token_stats` return them.
        objective: any of this module's but `gspo`, or a function of your own:
            `objective(stats, *rows) -> loss`, one for each token.
        rows: broadcastable to the tokens: weights, advantages, other policies' log p. They may
            require a gradient.
        mask: bool, broadcastable to the tokens, True counts. Statistics and rows of what is masked
            reach the objective as 0, its loss there is not counted, and all gradients there are 0.
        normalizer: what the sum is divided by: sequences, tokens, or what a batch spread over
            several steps or devices has of them in all. A number other than 0, or a tensor of one
            element without a gradient.

    Returns:
        A scalar. Where nothing counts it is 0, and so are its gradients, though a tensor
        `normalizer` (`mask.sum()`) be 0.

    Raises:
        ValueError, TypeError: for stats, rows, a mask, a normalizer or a loss that do not fit.

    Memory: a few numbers for each token and row.

    Example:
        >>> from pgest.objectives import entropy_loss, ppo
        >>> def objective(stats, advantage, old_logp):
        ...     return ppo(stats, advantage, old_logp) + 0.01 * entropy_loss(stats)
        >>> logits, tokens = torch.zeros(2, 4, requires_grad=True), torch.tensor([1, 3])
        >>> stats = pgest.token_stats(logits, tokens, outputs=("logp", "entropy"))
        >>> advantage, old_logp = torch.tensor([1.0, -1.0]), stats.logp.detach()
        >>> mask = torch.tensor([True, False])
        >>> total(stats, objective, advantage, old_logp, mask=mask, normalizer=1).backward()
        >>> logits.grad[0].tolist(), logits.grad[1].tolist()
        ([0.25, -0.75, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0])
    """
    shapes = _shapes(stats)
    depth = max(len(shape) for shape in shapes)
    like = next(shape for shape in shapes if len(shape) == depth)
    values = [row(f"rows[{i}]", value, like) for i, value in enumerate(rows)]
    if mask is not None:
        checks.boolean(mask)
        mask = row("mask", mask, like)
        # Before the objective too: 0 * inf is NaN, in its loss or in its gradient.
        stats = TokenStats(*(x if x is None else x.masked_fill(~mask, 0) for x in stats))
        values = [value.masked_fill(~mask, 0) for value in values]
    loss = objective(stats, *values)
    checks.tensor("objective(stats, *rows)", loss)
    if loss.shape != like and loss.shape not in shapes:  # a row's term counts for each sample
        raise ValueError(
            f"objective must return one loss for each token, {tuple(like)}, without a mean or a "
            f"sum, got shape {tuple(loss.shape)}"
        )
    loss = loss.expand(like)
    loss = loss if mask is None else torch.where(mask, loss, 0)
    return _over(loss.sum(), normalizer, like, mask)


def reinforce_loss(
    logits: Tensor,
    tokens: Tensor,
    weight: Tensor,
    *,
    mask: Tensor | None = None,
    entropy_coef: float = 0.0,
    kl_coef: float = 0.0,
    reference_logits: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    normalizer: float | Tensor = 1.0,
    grad_in_forward: bool = False,
) -> Tensor:
    """REINFORCE loss of sampled tokens: its gradient raises what `weight` calls good.

        loss = -(1 / normalizer) sum_{s,n} mask (weight log p(token) + entropy_coef H - kl_coef KL)

    Args:
        logits: [..., V].
        tokens: [...], or [S, ...] for S samples per row at the cost of one pass.
        weight: broadcastable to `tokens`: reward, return or advantage of each token. Not detached:
            its gradient is -mask log p / normalizer, so a learned weight can be trained.
        mask: bool shaped like `tokens` or [...], True counts. What is masked is not read.
        entropy_coef: bonus per token, in units of reward per nat.
        kl_coef: penalty per token for the exact KL(p || q), in the same units, where q is the
            policy of `reference_logits` [..., V], which are given with it.
        temperature: what the logits are divided by: that at which the tokens were drawn.
        normalizer: as in `total`, e.g. the number of sequences.
        grad_in_forward: make the gradient with the loss, as `token_stats_sum` does: the logits are
            read once, not twice. It pays where a backward follows at once; the gradient's memory
            is held from the forward on. Not for `create_graph` and torch.func.

    Returns:
        A scalar, float32 (float64 for float64 logits). An unmasked token that the logits exclude
        (-inf) makes it infinite, unless its weight is 0.

    Raises:
        ValueError, TypeError: as `token_stats`, and for a weight, normalizer or mask that does not
        fit.

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
    if not isinstance(entropy_coef, Tensor):
        entropy_coef = scalars.number("entropy_coef", entropy_coef)
    kl_coef = scalars.number("kl_coef", kl_coef)
    keep = _token_mask(mask, tokens, logits)
    rows = keep
    count: int | Tensor = tokens.shape[: tokens.dim() - logits.dim() + 1].numel()  # of each row
    if keep is not None and keep.dim() == logits.dim():
        rows, count = keep.any(0), keep.sum(0)
        tokens = torch.where(keep, tokens, 0)
    options: dict[str, Any] = {"temperature": temperature, "mask": rows}
    if kl_coef or reference_logits is not None:  # which is refused on its own
        options["reference_logits"] = reference_logits
    coefs = {"entropy": -entropy_coef, "kl": kl_coef}
    coefs = {name: coef for name, coef in coefs.items() if coef}
    if grad_in_forward:
        weight = numbers("weight", weight, tokens.shape)
        weight = weight if keep is None else torch.where(keep, weight, 0)
        weights = {"logp": -weight} | {name: coef * count for name, coef in coefs.items()}
        return token_stats_sum(logits, tokens, weights, normalizer=normalizer, **options)
    stats = token_stats(logits, tokens, outputs=("logp", *coefs), **options)
    weight = numbers("weight", weight, tokens.shape)

    def objective(stats: TokenStats, weight: Tensor) -> Tensor:
        loss = reinforce(stats, weight)
        for name, coef in coefs.items():
            loss = loss + coef * getattr(stats, name)
        return loss

    return total(stats, objective, weight, mask=keep, normalizer=normalizer)


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
        normalizer: as in `total`, e.g. the number of sequences.

    Returns:
        A scalar in the dtype of the logits.

    Raises:
        ValueError, TypeError: for logits, a weight, normalizer or mask that does not fit.

    Memory: one copy of the logits.

    Example:
        >>> logit_l2(torch.tensor([[3.0, -3.0], [0.0, 1.0]]))
        tensor(9.5000)
    """
    checks.logits(logits)
    shape = logits.shape[:-1]
    if mask is not None:
        checks.boolean(mask)
        if mask.shape != shape:
            raise ValueError(f"mask must have shape {tuple(shape)}, got {tuple(mask.shape)}")
        logits = torch.where(mask.unsqueeze(-1), logits, 0.0)
    rows = torch.where(logits == -torch.inf, 0.0, logits).square().mean(-1)
    if weight is not None:
        rows = rows * numbers("weight", weight, shape)
    return _over(rows.sum(), normalizer, shape, mask)


def _over(
    total: Tensor, normalizer: float | Tensor, shape: torch.Size, mask: Tensor | None
) -> Tensor:
    """A sum over its normalizer, in its own dtype; 0 for nothing over 0."""
    return (total / scalars.divisor(normalizer, total.device, shape, mask)).to(total.dtype)


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


def _shapes(stats: TokenStats) -> list[torch.Size]:
    """Of the statistics that there are: [...], and [S, ...] for the logp of S tokens a row."""
    token_stats_only(stats)
    shapes = [x.shape for x in stats if x is not None]
    if not shapes:
        raise ValueError("stats must hold a statistic, got none")
    return shapes
