"""Policy gradients from weights or advantages: REINFORCE, and ratios to the policy that sampled."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pgest.objectives.arguments import bound, numbers, row, statistic
from pgest.ops import TokenStats, checks


def reinforce(stats: TokenStats, weight: Tensor) -> Tensor:
    """REINFORCE: minus weight times log p.

        loss = -weight log p,   gradient for log p: -weight

    On tokens drawn from the policy its expected gradient is that of minus the expected reward,
    if the weight is the reward, or that minus a baseline of which the token knows nothing.

    Args:
        stats: with `logp`.
        weight: broadcastable to `stats.logp`: reward, return or advantage of each token.

    Returns:
        Like `stats.logp`. Nothing is detached: a learned weight gets -log p. A token that the
        policy excludes is infinite, or 0 with weight 0.

    Raises:
        ValueError, TypeError: for stats without logp and a row that does not fit.

    Source: Williams (1992), Simple statistical gradient-following algorithms.

    Example:
        >>> reinforce(pgest.TokenStats(logp=torch.tensor([-1.0, -2.0])), torch.tensor(0.5))
        tensor([0.5000, 1.0000])
    """
    logp = statistic(stats, "logp")
    weight = numbers("weight", weight, logp.shape)
    nothing = (weight == 0) & (logp == -torch.inf)  # 0 log 0 is 0
    return -weight * torch.where(nothing, 0.0, logp)


def ppo(
    stats: TokenStats,
    advantage: Tensor,
    old_logp: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> Tensor:
    """PPO's clipped loss: a token that moved far enough in the right direction pulls no more.

        loss = -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A),   r = p / p_old

    With `dual_clip` = c the loss of a negative advantage is at most -c A: a token that the policy
    has come to like far too much has no gradient either. At r = 1 the gradient is `reinforce`'s.

    Args:
        stats: with `logp`.
        advantage: A, broadcastable to `stats.logp`.
        old_logp: log p_old of the same tokens under the policy that drew them, in float32: rounded
            to bfloat16 it changes r by up to 3 %.
        clip_low: in [0, 1]; 1 does not clip.
        clip_high: at least 0; infinity does not clip. More than `clip_low` is DAPO's clip-higher.
        dual_clip: at least 1, or None.

    Returns:
        Like `stats.logp`. Nothing is detached. No gradient flows, and none is NaN, where the ratio
        is clipped, though it overflow; with A < 0 and no `dual_clip` a ratio beyond 88 nats, in
        float32, is infinite. A token that both policies exclude is NaN.

    Raises:
        ValueError, TypeError: for stats without logp, a row that does not fit and other bounds.

    Source: Schulman, Wolski, Dhariwal, Radford and Klimov 2017 (arXiv 1707.06347); two-sided: Ye
    et al. 2020 (arXiv 1912.09729).

    Example:
        >>> stats = pgest.TokenStats(logp=torch.tensor([0.5, 0.5]).log())
        >>> ppo(stats, torch.tensor([1.0, -1.0]), torch.tensor([0.25, 0.25]).log())
        tensor([-1.2000,  2.0000])
    """
    logp = statistic(stats, "logp")
    advantage, old_logp = (
        numbers("advantage", advantage, logp.shape),
        numbers("old_logp", old_logp, logp.shape),
    )
    return _clipped(logp - old_logp, advantage, clip_low, clip_high, dual_clip)


def dapo(stats: TokenStats, advantage: Tensor, old_logp: Tensor) -> Tensor:
    """DAPO's loss: `ppo` with the upper bound raised, so that rare tokens can grow.

        loss = -min(r A, clip(r, 1 - 0.2, 1 + 0.28) A)

    The rest of DAPO is in the arguments: A from `advantages.group_normalised`, and for the
    normaliser the number of tokens that count in all samples, so that long ones are not diluted.

    Args, Returns, Raises: as `ppo`.

    Source: Yu et al. 2025 (arXiv 2503.14476).

    Example:
        >>> stats = pgest.TokenStats(logp=torch.tensor([0.5]).log())
        >>> dapo(stats, torch.tensor([1.0]), torch.tensor([0.25]).log())
        tensor([-1.2800])
    """
    return ppo(stats, advantage, old_logp, clip_low=0.2, clip_high=0.28)


def cispo(
    stats: TokenStats,
    advantage: Tensor,
    old_logp: Tensor,
    *,
    clip_low: float = 1.0,
    clip_high: float = 4.0,
) -> Tensor:
    """CISPO: REINFORCE weighed by the clipped ratio, so that no token is left out.

        loss = -w A log p,   w = clip(r, 1 - clip_low, 1 + clip_high) detached,   r = p / p_old

    Where nothing is clipped the expected gradient, on tokens drawn from the older policy, is that
    of the policy itself; the bound trades bias for variance.

    Args:
        stats, advantage, old_logp: as in `ppo`.
        clip_low: in [0, 1]; 1 does not clip, as in the paper.
        clip_high: at least 0. The paper names no number; 4 bounds the ratio by 5.

    Returns:
        Like `stats.logp`. The ratio is detached, and with it `old_logp`. Always finite where log p
        is; a token that the policy excludes has 0, unless `clip_low` lifts its ratio.

    Raises:
        ValueError, TypeError: as `ppo`.

    Source: MiniMax 2025 (arXiv 2506.13585).

    Example:
        >>> logp = torch.tensor([0.5, 0.5]).log().requires_grad_()
        >>> old_logp = torch.tensor([0.25, 0.05]).log()
        >>> cispo(pgest.TokenStats(logp=logp), torch.tensor(1.0), old_logp).sum().backward()
        >>> logp.grad
        tensor([-2., -5.])
    """
    logp = statistic(stats, "logp")
    advantage, old_logp = (
        numbers("advantage", advantage, logp.shape),
        numbers("old_logp", old_logp, logp.shape),
    )
    low, high = _log_bounds(clip_low, clip_high)
    ratio = (logp - old_logp).detach().clamp(low, high).exp()
    return reinforce(stats, ratio * advantage)


def gspo(
    stats: TokenStats,
    advantage: Tensor,
    old_logp: Tensor,
    *,
    mask: Tensor | None = None,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
    dual_clip: float | None = None,
) -> Tensor:
    """GSPO: PPO's clipped loss of whole sequences, with one ratio each.

        loss = -min(s A, clip(s, 1 - clip_low, 1 + clip_high) A)
        s    = (p(sequence) / p_old(sequence))^(1 / length) = exp(mean_t (log p_t - log p_old_t))

    It couples the tokens of a sequence, so it is not an objective for `total` or
    `linear_objective`: it stands on statistics of all tokens (`token_stats`, or
    `linear_token_stats` where the logits are never held), and the caller sums it.

    Args:
        stats: with `logp`, `[..., T]`.
        advantage: A, broadcastable to `[...]`, one for each sequence.
        old_logp: broadcastable to `[..., T]`, as in `ppo`.
        mask: bool, broadcastable to `[..., T]`, True counts. What is masked is not read.
        clip_low, clip_high, dual_clip: as in `ppo`; the mean is near to 1, and so are its bounds.

    Returns:
        `[...]`, one loss for each sequence, 0 for one without tokens. Nothing is detached.

    Raises:
        ValueError, TypeError: as `ppo`, and for a mask that does not fit.

    Source: Zheng et al. 2025 (arXiv 2507.18071).

    Example:
        >>> logp, old_logp = torch.tensor([[-1.0, -1.0]]), torch.tensor([[-1.0, -1.5]])
        >>> gspo(pgest.TokenStats(logp=logp), torch.tensor([-1.0]), old_logp)
        tensor([1.2840])
    """
    logp = statistic(stats, "logp")
    if logp.dim() == 0:
        raise ValueError("stats.logp must have shape [..., T], got a scalar")
    log_ratio = logp - numbers("old_logp", old_logp, logp.shape)
    keep = torch.ones_like(logp, dtype=torch.bool)
    if mask is not None:
        checks.boolean(mask)
        keep = row("mask", mask, logp.shape)
    length = keep.sum(-1)
    mean = torch.where(keep, log_ratio, 0.0).sum(-1) / length.clamp_min(1)
    advantage = numbers("advantage", advantage, mean.shape, "sequence")
    loss = _clipped(mean, advantage, clip_low, clip_high, dual_clip)
    return torch.where(length > 0, loss, 0.0)


def _clipped(
    log_ratio: Tensor,
    advantage: Tensor,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> Tensor:
    """-min(r A, clip(r) A), where r is clipped before it is an exponential that could overflow:
    above for A >= 0, else below, and above by the dual clip."""
    low, high = _log_bounds(clip_low, clip_high)
    ceiling = math.inf
    if dual_clip is not None:
        ceiling = math.log(bound("dual_clip", dual_clip, 1))
    worse = log_ratio.clamp(low, ceiling)
    return -advantage * torch.where(advantage >= 0, log_ratio.clamp(max=high), worse).exp()


def _log_bounds(clip_low: float, clip_high: float) -> tuple[float, float]:
    low = bound("clip_low", clip_low, 0, 1)
    return math.log1p(-low) if low < 1 else -math.inf, math.log1p(bound("clip_high", clip_high, 0))
