"""Rewards to weights: what to subtract from a reward so that its gradient varies less."""

from __future__ import annotations

from torch import Tensor


def leave_one_out(reward: Tensor, dim: int = 0) -> Tensor:
    """Return each sample's reward minus the mean reward of the other samples.

    `weight[s] = reward[s] - sum over r != s of reward[r] / (S - 1)`, along `dim` of size S. The
    baseline of a sample does not depend on that sample, so the mean over S of
    `weight[s] * grad log p(sample[s])` stays an unbiased estimate of the gradient of E[reward].

    Args:
        reward: `[S, ...]`, floating point, of S >= 2 independent samples of one distribution.
        dim: the dimension of the samples.

    Returns:
        The weights, like `reward`; they sum to 0 along `dim`. Nothing is detached.

    Raises:
        ValueError: for S < 2, where no other sample is left to average.
        TypeError: for anything but a floating-point tensor.

    Source: Kool, van Hoof and Welling 2019 (ICLR workshop, "Buy 4 REINFORCE samples, get a
    baseline for free!"); Ahmadian et al. 2024 (arXiv 2402.14740).

    Example:
        >>> leave_one_out(torch.tensor([0.0, 1.0, 2.0]))
        tensor([-1.5000,  0.0000,  1.5000])
    """
    _check_floating("reward", reward)
    if reward.dim() == 0:
        raise ValueError("reward must have a dimension of samples, [S, ...], got a scalar")
    samples = reward.shape[dim]
    if samples < 2:
        raise ValueError(
            f"reward must hold at least 2 samples along dimension {dim}, since leave-one-out "
            f"compares a sample with the others, got {samples}"
        )
    return (reward - reward.mean(dim, keepdim=True)) * (samples / (samples - 1))


def self_critical(reward: Tensor, greedy_reward: Tensor) -> Tensor:
    """Return each sample's reward minus the reward of the greedy decoding.

    `weight[s] = reward[s] - greedy_reward`. The baseline depends on no sample, so the estimate
    stays unbiased, also for one sample.

    Args:
        reward: `[S, ...]`, floating point, of S samples.
        greedy_reward: `[...]`, the reward of the most likely tokens, one for all samples.

    Returns:
        The weights, like `reward`. Nothing is detached.

    Raises:
        ValueError: for a shape of `greedy_reward` other than `reward`'s without its first
            dimension.
        TypeError: for anything but floating-point tensors.

    Source: Rennie et al. 2017 (arXiv 1612.00563).

    Example:
        >>> self_critical(torch.tensor([[0.0], [1.0]]), torch.tensor([0.25]))
        tensor([[-0.2500],
                [ 0.7500]])
    """
    _check_floating("reward", reward)
    _check_floating("greedy_reward", greedy_reward)
    if reward.dim() == 0 or greedy_reward.shape != reward.shape[1:]:
        raise ValueError(
            f"greedy_reward must have shape {tuple(reward.shape[1:])}, that of reward without its "
            f"samples, got {tuple(greedy_reward.shape)}"
        )
    return reward - greedy_reward


def _check_floating(name: str, value: Tensor) -> None:
    came = value.dtype if isinstance(value, Tensor) else type(value).__name__
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {came}")
