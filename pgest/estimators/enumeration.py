"""No sampling: every value of the draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pgest.distributions import Distribution
from pgest.estimators.base import Cost, Estimator, Traits
from pgest.estimators.support import MAX_SUPPORT, check_support


@dataclass(frozen=True)
class Exact(Estimator):
    """The exact expectation, by enumerating the support of one draw.

        value = sum_z p(z) f(z)

    f is evaluated on all values at once: dimension 0 of z is the support's size, V^n for n tokens
    of one draw and 2^n for n bits. A value of probability 0 contributes 0 whatever it costs, to the
    gradient too, unless f's slope in its own parameters is infinite there: 0 * inf is NaN.
    `num_samples`, `generator` and `noise` have no effect. No variance; differentiable to any order.

    Args:
        max_support: more values than this are refused.

    Raises:
        ValueError: a larger support.

    Memory: f's, times the support's size.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> reward = torch.tensor([1.0, 2.0, 6.0])
        >>> value = pgest.expect(lambda z: reward[z], pgest.Categorical(logits), "exact")
        >>> value.backward()
        >>> round(value.item(), 3), [round(x, 3) for x in logits.grad.tolist()]
        (3.0, [-0.667, -0.333, 1.0])
    """

    max_support: int = MAX_SUPPORT
    name: ClassVar[str] = "exact"
    traits: ClassVar[Traits] = Traits(unbiased=True, evaluations="support")

    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the exact expectation."""
        check_support(distribution, self.name, self.max_support)
        support = distribution.enumerate_support()
        cost, p = f(support), distribution.score(support).exp()
        return (p * torch.where(p == 0, 0.0, cost)).sum(0).to(cost.dtype)
