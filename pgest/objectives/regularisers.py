"""Terms that ask for no reward: they keep a policy open and its logits small."""

from __future__ import annotations

from torch import Tensor

from pgest.objectives.arguments import statistic
from pgest.ops import TokenStats


def entropy_loss(stats: TokenStats) -> Tensor:
    """Minus the entropy of each row: times a coefficient, the bonus that keeps a policy open.

        loss = -H = sum_j p_j log p_j

    The statistic is exact, so its gradient is exact and has no variance. The term sees each step on
    its own; the entropy of whole sequences also needs `-log p` in the reward.

    Args:
        stats: with `entropy`.

    Returns:
        `[...]`, in nats. Nothing is detached.

    Raises:
        ValueError, TypeError: for stats without entropy, or that are none.

    Source: Williams and Peng (1991), Function optimization using connectionist reinforcement
    learning algorithms.

    Example:
        >>> stats = pgest.token_stats(torch.zeros(1, 4), None, outputs=("entropy",))
        >>> round(entropy_loss(stats).item(), 3)
        -1.386
    """
    return -statistic(stats, "entropy")


def z_loss(stats: TokenStats) -> Tensor:
    """The squared log-sum-exp of each row: it holds what softmax does not see, the logits' shift.

        loss = lse^2,   lse = log sum_j exp(z_j / T)

    Args:
        stats: with `lse`.

    Returns:
        `[...]`. Nothing is detached.

    Raises:
        ValueError, TypeError: for stats without lse, or that are none.

    Source: Chowdhery et al. 2022 (arXiv 2204.02311), who weigh it by 1e-4.

    Example:
        >>> stats = pgest.token_stats(torch.tensor([[2.0]]), None, outputs=("lse",))
        >>> z_loss(stats)
        tensor([4.])
    """
    return statistic(stats, "lse").square()
