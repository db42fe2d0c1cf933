"""Samples of one distribution against each other, or against its greedy decoding."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from pgest.advantages import checks


def leave_one_out(
    reward: Tensor, dim: int = 0, *, groups: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Return each sample's reward minus the mean reward of the other samples of its group.

    Samples lie along dimension 0: rewards [B, S], S samples of each of B prompts, are
    `leave_one_out(reward, dim=1)`.

        weight[s] = reward[s] - sum over r != s of reward[r] / (S - 1),   S the size of the group

    The baseline of a sample does not depend on that sample, so the mean over S of
    `weight[s] * grad log p(sample[s])` stays an unbiased estimate of the gradient of E[reward].

    Args:
        reward: `[S, ...]`, floating point, of independent samples of one distribution.
        dim: the dimension of the samples: 0 for [S, B], 1 for [B, S].
        groups: integers `[S]`, any and in any order: samples with the same number are of one
            distribution. Without it all along `dim` are.
        mask: bool like `reward`, True counts. What is masked is not read and has weight 0.

    Returns:
        The weights, like `reward` (half types are averaged in float32); they sum to 0 in each
        group, and are exactly 0 where its rewards are equal. A sample that `groups` or `mask`
        leave alone has weight 0: it has nothing to be compared with. (Where the draws decide who is
        alone, as lengths do at a late step, that is a bias.) Nothing is detached.

    Raises:
        ValueError: for S < 2 without `groups`, where no other sample is left to average; for
            groups or a mask that do not fit.
        TypeError: for anything but a floating-point tensor, and for other types of the rest.

    Source: Kool, van Hoof and Welling 2019 (ICLR workshop, "Buy 4 REINFORCE samples, get a
    baseline for free!"); Ahmadian et al. 2024 (arXiv 2402.14740).

    Example:
        >>> leave_one_out(torch.tensor([0.0, 1.0, 2.0]))
        tensor([-1.5000,  0.0000,  1.5000])
        >>> leave_one_out(torch.tensor([0.0, 3.0, 1.0]), groups=torch.tensor([7, 5, 7]))
        tensor([-1.,  0.,  1.])
    """
    group = _Groups(reward, dim, groups, mask)
    return group.against_others(group.centred()).to(reward.dtype)


def group_normalised(
    reward: Tensor,
    dim: int = 0,
    *,
    groups: Tensor | None = None,
    mask: Tensor | None = None,
    baseline: Literal["mean", "leave_one_out"] = "mean",
    scale: Literal["std", "none"] = "std",
    correction: Literal[0, 1] = 1,
    eps: float = 1e-4,
) -> Tensor:
    """Return each sample's reward, centred and scaled within its group: GRPO's advantage.

    Samples lie along dimension 0: rewards [B, S], S samples of each of B prompts, are
    `group_normalised(reward, dim=1)`.

        weight[s] = (reward[s] - baseline[s]) / (std + eps)

    What it does to the gradient that `leave_one_out` estimates without bias, S samples a group:

    - the mean of all samples as the baseline includes the sample itself: exactly (S - 1) / S of the
      gradient, unless `baseline="leave_one_out"`;
    - the division, which depends on the samples too, is another objective: a group counts in
      inverse proportion to its spread. For rewards 0 and 1 it tends, for large S, to the gradient
      of 2 arcsin(sqrt(P(1))), so that prompts that nearly always or hardly ever succeed weigh most.
      `scale="none"` leaves it out (Dr. GRPO).

    Args:
        reward, dim, groups, mask: as in `leave_one_out`.
        baseline: the mean of all samples of the group, or of the others.
        scale: what to divide by: the standard deviation of the group, or nothing.
        correction: by how much less than S the squares are divided: 1 for the unbiased variance, 0
            for that of the group itself.
        eps: added to the deviation, in units of the reward.

    Returns:
        The weights, like `reward` (half types are averaged in float32). Exactly 0 where all rewards
        of a group are equal, and for a sample that `groups` or `mask` leave alone. Nothing is
        detached.

    Raises:
        ValueError, TypeError: as `leave_one_out`, and for other baselines, scales and numbers.

    Source: Shao et al. 2024 (arXiv 2402.03300); without the division Liu et al. 2025 (arXiv
    2503.20783).

    Example:
        >>> group_normalised(torch.tensor([[0.0, 1.0, 2.0], [5.0, 5.0, 5.0]]), dim=1, eps=0.0)
        tensor([[-1.,  0.,  1.],
                [ 0.,  0.,  0.]])
    """
    _one_of("baseline", baseline, ("mean", "leave_one_out"))
    _one_of("scale", scale, ("std", "none"))
    _one_of("correction", correction, (0, 1))
    eps = checks.number("eps", eps, 0, torch.inf)
    group = _Groups(reward, dim, groups, mask)
    centred = group.centred()
    weight = centred if baseline == "mean" else group.against_others(centred)
    if scale == "std":
        weight = weight / (group.std(centred, correction) + eps)
    return weight.to(reward.dtype)


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
    checks.floating("reward", reward)
    checks.floating("greedy_reward", greedy_reward)
    if reward.dim() == 0 or greedy_reward.shape != reward.shape[1:]:
        raise ValueError(
            f"greedy_reward must have shape {tuple(reward.shape[1:])}, that of reward without its "
            f"samples, got {tuple(greedy_reward.shape)}"
        )
    return reward - greedy_reward


class _Groups:
    """Sums over groups, each given back to every sample of the group."""

    def __init__(
        self, reward: Tensor, dim: int, groups: Tensor | None, mask: Tensor | None
    ) -> None:
        checks.floating("reward", reward)
        samples = checks.size_along("reward", reward, dim, "samples, [S, ...]")
        if groups is None and samples < 2:
            raise ValueError(
                f"reward must hold at least 2 samples along dimension {dim}, since each is "
                f"compared with the others, got {samples}"
            )
        self.reward = reward.float() if reward.dtype.itemsize < 4 else reward
        self.dim = dim
        self.mask = checks.boolean("mask", mask, reward)
        self.ids: Tensor | None = None
        if groups is not None:
            ids = _dense(checks.group_ids(groups, reward, samples))
            along = [1] * reward.dim()
            along[dim] = samples
            self.ids = ids.view(along).expand_as(reward)
        self.count: float | Tensor = float(samples)
        if self.mask is not None or self.ids is not None:
            self.count = self.pool(self.keep(torch.ones_like(self.reward)))

    def pool(self, x: Tensor, how: Literal["sum", "amin"] = "sum") -> Tensor:
        """Sum or minimum of each group, broadcastable to the reward."""
        if self.ids is None:
            return x.sum(self.dim, True) if how == "sum" else x.amin(self.dim, True)
        pooled = torch.zeros_like(x).scatter_reduce(self.dim, self.ids, x, how, include_self=False)
        return pooled.gather(self.dim, self.ids)

    def keep(self, x: Tensor, other: float = 0.0) -> Tensor:
        """Put `other` where the mask does not count."""
        return x if self.mask is None else torch.where(self.mask, x, other)

    def centred(self) -> Tensor:
        """The reward minus the mean of its group.

        The smallest reward is subtracted first: what is left of equal ones is 0, without a rounding
        error that a division by their deviation would blow up.
        """
        smallest = self.pool(self.keep(self.reward.detach(), torch.inf), "amin")
        above = self.keep(self.reward - smallest)
        return self.keep(above - self.pool(above) / _at_least_1(self.count))

    def against_others(self, centred: Tensor) -> Tensor:
        """The same on the mean of the others: r - mean of all is (S - 1) / S of that."""
        return centred * (self.count / _at_least_1(self.count - 1))

    def std(self, centred: Tensor, correction: int) -> Tensor:
        """The standard deviation, or 1 for 0, where the square root has no derivative."""
        variance = self.pool(centred.square()) / _at_least_1(self.count - correction)
        return torch.where(variance == 0, 1.0, variance).sqrt()


def _at_least_1(count: float | Tensor) -> float | Tensor:
    return count.clamp_min(1) if isinstance(count, Tensor) else max(count, 1.0)


def _dense(groups: Tensor) -> Tensor:
    """Any integers as 0, 1, 2, ... in their order, without a synchronisation."""
    ordered, order = groups.sort()
    new = torch.ones_like(ordered, dtype=torch.int64)
    new[1:] = ordered[1:] != ordered[:-1]
    return torch.empty_like(new).scatter(0, order, new.cumsum(0) - 1)


def _one_of(name: str, value: Any, known: tuple[object, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {known}, got {value!r}")
