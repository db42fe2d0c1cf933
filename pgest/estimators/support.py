"""What estimators share that choose among all values of one draw."""

from __future__ import annotations

import torch
from torch import Tensor

from pgest.distributions import Distribution
from pgest.estimators.base import Cost
from pgest.estimators.first_order import add_surrogate

MAX_SUPPORT = 65536


def check_support(distribution: Distribution, name: str, max_support: int) -> None:
    """Refuse a support that is too large to be listed.

    Raises:
        ValueError: more values than `max_support`.
    """
    size = distribution.support_size
    if size > max_support:
        event = tuple(distribution.event_shape)
        came = size if size < 10**9 else f"{float(size):.1e}" if size < 10**99 else "over 1e99"
        raise ValueError(
            f"{name} enumerates at most {max_support} values of one draw, got {came} of "
            f"{type(distribution).__name__} with event shape {event}"
        )


def log_probabilities(distribution: Distribution) -> Tensor:
    """Log-probability of every value, float64 [*batch_shape, support_size], detached."""
    with torch.no_grad():
        return distribution.support_log_prob().double()


def evaluate(
    f: Cost, distribution: Distribution, index: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """The values at places [n, *batch_shape] of the support, and their costs [n, *batch_shape].

    f is not shown what has weight 0, which may be an impossible value: one that counts stands for
    it, so that no cost or score meets that weight as 0 * inf.
    """
    counts = index.gather(0, weight.argmax(0, keepdim=True))
    z = distribution.support_value(torch.where(weight == 0, counts, index))
    return z, f(z)


def weighted(
    distribution: Distribution,
    z: Tensor,
    cost: Tensor,
    weight: Tensor,
    advantage: Tensor,
    name: str,
) -> Tensor:
    """Return sum_i weight_i cost_i, with the gradient of sum_i weight_i advantage_i log p(z_i).

    Args:
        z, cost, weight, advantage: [n, *batch_shape, ...]; the last two are constants.
        name: the estimator's.
    """
    value = (weight.to(cost.dtype) * cost).sum(0)
    score = distribution.score(z)
    factor = (weight * advantage).detach().to(score.dtype)
    return add_surrogate(value, (factor * score).sum(0), name)
