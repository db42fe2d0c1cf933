"""Rewards along time: reward-to-go and generalised advantage estimation."""

from __future__ import annotations

import torch
from torch import Tensor

from pgest.advantages import checks


def returns(
    reward: Tensor, discount: float = 1.0, *, mask: Tensor | None = None, dim: int = -1
) -> Tensor:
    """Return the discounted reward-to-go of each step.

        R_t = r_t + discount * R_u,   u the next step that counts, R = 0 after the last one

    As the weight of the token of step t it leaves out the rewards that came before the token, which
    it cannot have changed: unbiased for discount 1, and of lower variance than the whole reward.

    Args:
        reward: `[..., T]`, floating point, of each step.
        discount: in [0, 1], what a reward is worth one step earlier.
        mask: bool like `reward`, True counts. A masked step, wherever it stands, is as if it were
            not there: its reward is not read, its return is 0 and it discounts nothing.
        dim: the dimension of the steps.

    Returns:
        The returns, like `reward` (summed in float64). Nothing is detached.

    Raises:
        ValueError, TypeError: for a discount, mask or dimension that does not fit.

    2 log2(T) vectorised steps on ever fewer pairs; memory: a few float64 temporaries of the size of
    the rewards. No power of the discount is divided by, so that none overflows.

    Example:
        >>> returns(torch.tensor([1.0, 0.0, 2.0]), 0.5)
        tensor([1.5000, 1.0000, 2.0000])
    """
    checks.floating("reward", reward)
    checks.size_along("reward", reward, dim, "steps")
    mask = checks.boolean("mask", mask, reward)
    discount = checks.number("discount", discount, 0, 1)
    step = reward.double().movedim(dim, -1)
    decay = torch.full_like(step, discount)
    return _to_go(step, decay, _last(mask, dim)).movedim(-1, dim).to(reward.dtype)


def gae(
    reward: Tensor,
    value: Tensor,
    *,
    discount: float = 1.0,
    trace_decay: float = 0.95,
    last_value: Tensor | None = None,
    done: Tensor | None = None,
    mask: Tensor | None = None,
    dim: int = -1,
) -> Tensor:
    """Return the generalised advantage estimate of each step.

        delta_t = r_t + discount * V_u - V_t
        A_t     = delta_t + discount * trace_decay * A_u,   u the next step that counts

    `trace_decay` is the lambda of the paper: 1 gives `returns` minus value, whose expectation no
    error of the value changes; 0 gives delta, the temporal-difference error, of low variance and as
    wrong as the value. `A + value` is what to fit the value to.

    Args:
        reward: `[..., T]`, floating point, of each step.
        value: like `reward`: the return that a critic expects before the step. Detached: an
            advantage teaches the policy, not the critic.
        discount, trace_decay: in [0, 1].
        last_value: `[...]`, the value after the last step that counts, where the sequence was cut
            off rather than ended. 0 without it. Detached.
        done: bool like `reward`, True where an episode ended with this step: nothing after it
            counts for it, last_value neither.
        mask: bool like `reward`, True counts. A masked step, wherever it stands, is as if it were
            not there: nothing of it is read and its advantage is 0.
        dim: the dimension of the steps.

    Returns:
        The advantages, like `reward` (summed in float64); differentiable in reward.

    Raises:
        ValueError, TypeError: for a shape, dtype or number that does not fit.

    Memory: as `returns`, and a few temporaries more.

    Source: Schulman, Moritz, Levine, Jordan and Abbeel 2015 (arXiv 1506.02438).

    Example:
        >>> reward, value = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.5, 0.5, 0.5])
        >>> gae(reward, value, trace_decay=0.5)
        tensor([0.1250, 0.2500, 0.5000])
    """
    checks.floating("reward", reward)
    checks.floating("value", value)
    checks.size_along("reward", reward, dim, "steps")
    checks.shaped("value", value, reward.shape, "like reward")
    mask = _last(checks.boolean("mask", mask, reward), dim)
    done = _last(checks.boolean("done", done, reward), dim)
    discount = checks.number("discount", discount, 0, 1)
    trace_decay = checks.number("trace_decay", trace_decay, 0, 1)
    step, value = reward.double().movedim(dim, -1), value.detach().double().movedim(dim, -1)
    after, trace = _next_value(value, last_value, mask), torch.full_like(step, discount)
    if done is not None:
        after, trace = after.masked_fill(done, 0.0), trace.masked_fill(done, 0.0)
    delta = step + discount * after - value
    return _to_go(delta, trace * trace_decay, mask).movedim(-1, dim).to(reward.dtype)


def _last(mask: Tensor | None, dim: int) -> Tensor | None:
    return None if mask is None else mask.movedim(dim, -1)


def _to_go(step: Tensor, decay: Tensor, mask: Tensor | None) -> Tensor:
    """x_t = step_t + decay_t x_{t+1} along the last dimension."""
    if mask is not None:  # what is not there hands on what comes after it
        step, decay = torch.where(mask, step, 0.0), torch.where(mask, decay, 1.0)
    found = _by_pairs(step, decay)
    return found if mask is None else torch.where(mask, found, 0.0)


def _by_pairs(step: Tensor, decay: Tensor) -> Tensor:
    """The recursion on pairs of steps, which are half as many, and from them each second step."""
    steps = step.shape[-1]
    if steps < 2:
        return step
    even, odd = slice(0, steps - steps % 2, 2), slice(1, None, 2)
    pair = torch.addcmul(step[..., even], decay[..., even], step[..., odd])
    rest, rest_decay = step[..., steps - steps % 2 :], decay[..., steps - steps % 2 :]
    firsts = _by_pairs(
        torch.cat([pair, rest], -1), torch.cat([decay[..., even] * decay[..., odd], rest_decay], -1)
    )
    after = torch.cat([firsts[..., 1:], torch.zeros_like(firsts[..., :1])], -1)[..., : steps // 2]
    seconds = torch.addcmul(step[..., odd], decay[..., odd], after)
    both = torch.stack([firsts[..., : steps // 2], seconds], -1).flatten(-2)
    return torch.cat([both, firsts[..., steps // 2 :]], -1) if steps % 2 else both


def _next_value(value: Tensor, last_value: Tensor | None, mask: Tensor | None) -> Tensor:
    """The value of the next step that counts, or the last value where there is none."""
    if last_value is None:
        last_value = value.new_zeros(value.shape[:-1])
    checks.floating("last_value", last_value)
    checks.shaped("last_value", last_value, value.shape[:-1], "like reward without its steps")
    after = torch.cat([value, last_value.detach().to(value.dtype).unsqueeze(-1)], -1)
    if mask is None:
        return after[..., 1:]
    steps = value.shape[-1]
    places = torch.where(mask, torch.arange(steps, device=mask.device), steps)
    first = places.flip(-1).cummin(-1).values.flip(-1)  # the first that counts from here on
    beyond = first.new_full((*first.shape[:-1], 1), steps)
    return after.gather(-1, torch.cat([first, beyond], -1)[..., 1:])
