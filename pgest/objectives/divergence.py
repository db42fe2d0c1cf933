"""The divergence from a reference policy, from the tokens that were drawn.

With the reference policy's logits at hand no estimate is needed: `stats.kl` of `pgest.token_stats`
and `pgest.linear_objective`, where asked for, is exact, and so is its gradient. These functions are
for when only the tokens' log-probabilities are.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from pgest.objectives.arguments import numbers, statistic
from pgest.ops import TokenStats


def k1(stats: TokenStats, reference_logp: Tensor) -> Tensor:
    """Unbiased estimate of KL(policy || reference), of either sign: what to subtract from a reward.

        k1 = log p - log q,   p the policy, q the reference policy, both at the token

    Not a loss: its own gradient is the score, whose expectation is 0. `kl_penalty` has the right
    one. In a reward (`reward - beta * k1`, detached, and `advantages.returns` over it) it
    regularises whole sequences, which no term of single tokens does.

    Args:
        stats: with `logp`, of tokens drawn from the policy.
        reference_logp: broadcastable to `stats.logp`, of the same tokens.

    Returns:
        Like `stats.logp`, in nats. Nothing is detached. A token that only the reference excludes
        has +inf, one that both exclude NaN.

    Raises:
        ValueError, TypeError: for stats without logp and a row that does not fit.

    Source: Schulman (2020), Approximating KL divergence (joschu.net/blog/kl-approx.html).

    Example:
        >>> stats = pgest.TokenStats(logp=torch.tensor([-1.0]))
        >>> k1(stats, torch.tensor([-3.0]))
        tensor([2.])
    """
    logp = statistic(stats, "logp")
    return logp - numbers("reference_logp", reference_logp, logp.shape)


def k2(stats: TokenStats, reference_logp: Tensor) -> Tensor:
    """Biased estimate of KL(policy || reference) whose own gradient is that of the divergence.

        k2 = (log p - log q)^2 / 2,   gradient for log p: log p - log q

    Its expectation differs from the divergence in the third order of the difference; its expected
    gradient, on tokens drawn from the policy, is that of KL(policy || reference).

    Args, Returns, Raises: as `k1`. The gradient for `reference_logp` is not that of the divergence.

    Source: Schulman (2020), as `k1`; its gradient: Tang and Munos 2025 (arXiv 2506.09477).

    Example:
        >>> stats = pgest.TokenStats(logp=torch.tensor([-1.0]))
        >>> k2(stats, torch.tensor([-3.0]))
        tensor([2.])
    """
    return k1(stats, reference_logp).square() / 2


def k3(stats: TokenStats, reference_logp: Tensor) -> Tensor:
    """Unbiased estimate of KL(policy || reference), never negative: the one to look at.

        k3 = q / p - 1 - log(q / p),   gradient for log p: 1 - q / p

    Differentiated, it is another loss: its expected gradient is that of KL(reference || policy).
    `kl_penalty` has that of the divergence it estimates.

    Args, Returns, Raises: as `k1`. Infinite where q / p is too large for the dtype, by a difference
    of 88 nats in float32.

    Source: Schulman (2020), as `k1`; its gradient: Tang and Munos 2025 (arXiv 2506.09477).

    Example:
        >>> stats = pgest.TokenStats(logp=torch.tensor([-1.0]))
        >>> round(k3(stats, torch.tensor([-3.0])).item(), 3)
        1.135
    """
    difference = k1(stats, reference_logp)
    return torch.expm1(-difference) + difference


_VALUES = {"k1": k1, "k2": k2, "k3": k3}


def kl_penalty(
    stats: TokenStats,
    reference_logp: Tensor,
    old_logp: Tensor | None = None,
    *,
    value: Literal["k1", "k2", "k3"] = "k3",
) -> Tensor:
    """Estimate of KL(policy || reference) with its true gradient: the term of a loss.

        loss     = r k,   k one of k1, k2, k3;   r = p / p_old, or 1
        gradient = r (log p - log q) for log p

    E[(log p - log q) grad log p] is the gradient of the divergence, whichever value is shown. It is
    that of a step's own divergence: what a token does to later steps is not in it (see `k1`).

    Args:
        stats: with `logp`, of tokens drawn from the policy.
        reference_logp: broadcastable to `stats.logp`, of the same tokens. Detached.
        old_logp: like `reference_logp`, where an older policy drew the tokens: the estimate and its
            gradient are weighed to stay unbiased (k2's gradient; its value is biased). Detached.
        value: the estimate to return. "k3" is never negative, "k1" adds up over a sequence.

    Returns:
        Like `stats.logp`, in nats. First derivatives only: the gradient's own is 0. A token that
        the policy excludes, which only an older one can have drawn, has 0; one that the reference
        alone excludes is not finite. The ratio overflows as in `ppo`.

    Raises:
        ValueError, TypeError: as `k1`, and for another value.

    Source: Tang and Munos 2025 (arXiv 2506.09477).

    Example:
        >>> logp = torch.tensor([-1.0], requires_grad=True)
        >>> penalty = kl_penalty(pgest.TokenStats(logp=logp), torch.tensor([-3.0]))
        >>> penalty.backward()
        >>> round(penalty.item(), 3), logp.grad.item()
        (1.135, 2.0)
    """
    if value not in _VALUES:
        raise ValueError(f"value must be one of {tuple(_VALUES)}, got {value!r}")
    logp = statistic(stats, "logp")
    reference = numbers("reference_logp", reference_logp, logp.shape).detach()
    ratio: Any = 1.0
    if old_logp is not None:
        ratio = (logp - numbers("old_logp", old_logp, logp.shape)).exp().detach()
        possible = logp != -torch.inf  # 0 log 0 is 0
        logp, reference = torch.where(possible, logp, 0.0), torch.where(possible, reference, 0.0)
    fixed = TokenStats(logp=logp.detach())
    slope = ratio * k1(fixed, reference)
    return ratio * _VALUES[value](fixed, reference) + slope * (logp - logp.detach())
