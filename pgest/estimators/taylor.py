"""Control variates from Taylor expansions of the cost: MuProp and double control variates."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pgest.advantages import leave_one_out
from pgest.distributions import Relaxable
from pgest.estimators.base import Traits
from pgest.estimators.slopes import FLOATING, SlopeControl, event_sum
from pgest.reference import statistics_dtype


def mean_of(distribution: Relaxable) -> Tensor:
    """E[z] in the dtype of statistics."""
    mean = distribution.mean
    return mean.to(statistics_dtype(mean))


class MuProp(SlopeControl):
    """MuProp: the cost minus its tangent at the mean of the samples, whose own part is exact.

        weight_s = f(z_s) - f(m) - <f'(m), z_s - m>,   m = E[z]
        gradient = 1/S sum_s weight_s grad log p(z_s) + grad <f'(m), m>

    Unbiased. Exact, without variance, for linear f; a constant added to f changes nothing. f must
    make sense at the mean, a point between the discrete values, and be differentiable there.

    Cost: S + 1 evaluations of f in one call, and a backward pass of it. Memory: f's, twice the
    samples.

    Source: Gu, Levine, Sutskever and Mnih (2016), MuProp: unbiased backpropagation for stochastic
    neural networks, arXiv 1511.05176, equation 5.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> pgest.expect(lambda z: 4 * z.sum(-1), bits, "muprop").backward()
        >>> logits.grad.tolist()
        [1.0, 1.0, 1.0]
    """

    name: ClassVar[str] = "muprop"
    traits: ClassVar[Traits] = Traits(
        unbiased=True, evaluations="S + 1", needs_path=True, distributions=FLOATING
    )

    def points(self, z: Tensor, distribution: Relaxable) -> Tensor:
        """The samples and the mean."""
        return torch.cat([z, distribution.mean.detach().to(z.dtype)[None]])

    def coefficients(
        self, cost: Tensor, z: Tensor, slope: Tensor, distribution: Relaxable
    ) -> tuple[Tensor, Tensor]:
        """Return what the tangent leaves of the costs, and the slope at the mean."""
        tangent = event_sum(distribution, slope[-1] * (z - mean_of(distribution)))
        return cost[:-1] - cost[-1] - tangent, slope[-1]

    def carrier(self, distribution: Relaxable) -> Tensor:
        """The mean."""
        return mean_of(distribution)


class DoubleCV(SlopeControl):
    """Double control variates: leave-one-out, with a tangent to the cost taken off both its parts.

        v_s = f(z_s) - alpha <g_s, z_s - m>,   g_s = mean over r != s of f'(z_r),   m = E[z]
        weight_s = v_s - mean over r != s of v_r
        gradient = 1/S sum_s weight_s grad log p(z_s) + alpha grad <mean of f', m>

    The slopes are those of the other samples, so that the part taken off has a known gradient.
    Unbiased for any alpha: 0 is `rloo`, and for linear f 1 is exact, without variance.

    Args:
        alpha: the share of the tangent to begin with.
        learn: whether `alpha` is a parameter, with a `fit_loss` in eager code; the registry's name
            has a constant 1.

    Cost: S evaluations of f in one call, and a backward pass of it. Memory: twice the samples.

    Source: Titsias and Shi (2022), Double control variates for gradient estimation in discrete
    latent variable models, arXiv 2111.05300 (whose alpha is minus this one).

    Example:
        >>> estimator = pgest.estimators.DoubleCV(alpha=0.5)
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> cost = lambda z: 4 * z.sum(-1)
        >>> pgest.expect(cost, bits, estimator, num_samples=3).backward()
        >>> estimator.fit_loss.backward()
        >>> estimator.alpha.grad.shape, logits.grad.shape
        (torch.Size([]), torch.Size([3]))
    """

    name: ClassVar[str] = "double_cv"
    traits: ClassVar[Traits] = Traits(
        unbiased=True,
        needs_path=True,
        distributions=FLOATING,
        min_samples=2,
        enumerable=True,
    )
    alpha: Tensor

    def __init__(self, alpha: float = 1.0, *, learn: bool = True) -> None:
        super().__init__()
        self.hold(learn, alpha=alpha)

    def coefficients(
        self, cost: Tensor, z: Tensor, slope: Tensor, distribution: Relaxable
    ) -> tuple[Tensor, Tensor]:
        """Return the leave-one-out weights of what is left of the costs, and the mean slope."""
        centred = z - mean_of(distribution).detach()
        tangent = event_sum(distribution, of_others(slope) * centred)
        return leave_one_out(cost - self.alpha * tangent), self.alpha * slope.mean(0)

    def carrier(self, distribution: Relaxable) -> Tensor:
        """The mean."""
        return mean_of(distribution)


def of_others(x: Tensor) -> Tensor:
    """For each sample the mean over the other samples, of x [S, ...]."""
    return (x.sum(0) - x) / (len(x) - 1)
