"""The straight-through family: hard samples with a Jacobian that needs no noise. Biased."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from pgest.distributions import Relaxable
from pgest.distributions.base import check_temperature
from pgest.distributions.paths import with_path
from pgest.estimators.base import Traits
from pgest.estimators.pathwise import FLOATING, HardPathwise
from pgest.ops import scalars


class StraightThrough(HardPathwise):
    """Straight-through: hard samples, and the gradient of their mean.

        forward z,   backward dz/dlogits := dp/dlogits,   p = E[z]

    f sees only hard samples, once each. Exact for f that is linear in z, biased otherwise: the
    gradient of E[f] would need f at both values of a bit, and this asks f's slope at one.

    Memory: as the samples, twice.

    Source: Bengio, Léonard and Courville (2013), arXiv 1308.3432, who name Hinton's lectures.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> pgest.expect(lambda z: 2 * z.sum(-1), bits, "straight_through").backward()
        >>> logits.grad.tolist()
        [0.5, 0.5, 0.5]
    """

    name: ClassVar[str] = "straight_through"
    traits: ClassVar[Traits] = Traits(
        unbiased=False,
        exact_for="linear f",
        needs_path=True,
        distributions=FLOATING,
        scores=False,
        enumerable=True,
    )

    def passed(self, distribution: Relaxable, sample: Tensor) -> Tensor:
        """Return the sample with the gradient of the mean."""
        return with_path(sample, distribution.mean)


@dataclass(frozen=True)
class ReinMax(HardPathwise):
    """ReinMax, also known as ZGR: straight-through of second order.

        backward 1/2 [(diag(p) - p p^T) g + (z - p) <z - p, g>],   one bit: 1/2 |z - p| g

    Exact for f that is quadratic in z, across independent variables too, with one evaluation of f
    and its gradient a sample; biased otherwise. The first biased one to try. It is also the limit
    T -> 0 of `gumbel_rao`.

    Args:
        temperature: T, a positive number. With q = softmax(logits / T) the Jacobian is that of
            `pgest.straight_through`, J_q + 1/2 (z - q) (z - q)^T - 1/2 J_p. Published scripts use
            1.1 to 1.5, but only T = 1 is exact, whatever f: any other is biased for linear f too.

    Raises:
        TypeError, ValueError: a temperature that is not a positive, finite number.

    `noise` is what `straight_through` takes: [S, *batch_shape, *event_shape], without the axis V.

    Memory: the samples, and a token a row for the backward; for bits four times the samples. Twice
    differentiable; forward mode raises for one-hot vectors.

    Source: Liu, Dong, Liu, Yu and Gao (2023), Bridging discrete and backpropagation, arXiv
    2304.08612 (ReinMax); Shekhovtsov (2023), Cold analysis of Rao-Blackwellized straight-through
    Gumbel-softmax gradient estimator, ICML (ZGR).

    Example:
        >>> logits = torch.zeros(1, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> value = pgest.expect(lambda z: (3 * z.sum(-1) - 1) ** 2, bits, "reinmax", num_samples=2)
        >>> value.backward()
        >>> logits.grad.shape
        torch.Size([1])
    """

    temperature: float = 1.0
    name: ClassVar[str] = "reinmax"
    traits: ClassVar[Traits] = replace(StraightThrough.traits, exact_for="quadratic f")

    def __post_init__(self) -> None:
        scalars.positive("temperature", self.temperature)
        if self.temperature != 1:  # declared for this instance; frozen ones are set in this way
            object.__setattr__(self, "traits", replace(self.traits, exact_for=""))

    def passed(self, distribution: Relaxable, sample: Tensor) -> Tensor:
        """Return the sample with ReinMax's Jacobian."""
        return distribution.reinmax(sample, self.temperature)


@dataclass(frozen=True, eq=False)  # tensors have no equality that is one truth value
class GappedST(HardPathwise):
    """Gapped straight-through: the gradient of a softmax in which the sample leads by a gap.

        backward the gradient of softmax(m / T)
        m_j = max_k logits_k at the sample's token,   min(logits_j, max_k logits_k - gap) elsewhere

    As `st_gumbel` its Jacobian is that of a softmax whose largest entry is the sample, but it moves
    the logits no more than that takes, without noise: less variance. The moves are constants to
    the gradient. A bit is the two logits (0, z). Biased, for linear f too.

    Args:
        temperature: T, a positive number, or a tensor as in `GumbelSoftmax`.
        gap: a positive number, 1 in most of the paper's experiments.

    Raises:
        TypeError, ValueError: a temperature or gap that is not positive and finite.

    `noise` is what `straight_through` takes: [S, *batch_shape, *event_shape], without the axis V.

    Memory: as the samples, about four times.

    Source: Fan, Chi, Rudnicky and Ramadge (2022), Training discrete deep generative models via
    gapped straight-through estimator, arXiv 2206.07235.

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> places = pgest.OneHotCategorical(logits)
        >>> cost = lambda z: (z * torch.tensor([1.0, 2.0, 3.0])).sum(-1)
        >>> pgest.expect(cost, places, "gapped_st", num_samples=8).sum().backward()
        >>> logits.grad.shape
        torch.Size([2, 3])
    """

    temperature: float | Tensor = 1.0
    gap: float = 1.0
    name: ClassVar[str] = "gapped_st"
    traits: ClassVar[Traits] = replace(StraightThrough.traits, exact_for="")

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        scalars.positive("gap", self.gap)

    def passed(self, distribution: Relaxable, sample: Tensor) -> Tensor:
        """Return the sample with the gradient of the moved logits' softmax."""
        moved = distribution.gapped(sample, self.gap)
        soft = distribution.soften(moved, self.temperature)
        return with_path(sample.to(soft.dtype), soft).to(sample.dtype)
