"""The straight-through and Gumbel family: the gradient passes through the sample. Biased."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pgest.distributions import Bernoulli, Distribution, OneHotCategorical, Relaxable
from pgest.distributions.base import check_temperature
from pgest.estimators.base import LocalEstimator, Traits

_FLOATING = (Bernoulli, OneHotCategorical)


class Pathwise(LocalEstimator):
    """Estimators that are a sample with a path: f's own gradient goes on to the logits.

    A subclass implements `relax`. f must be differentiable in the sample, so integer tokens are
    refused, and so is a cost that the sample has no path to.
    """

    def draw(
        self,
        distribution: Distribution,
        sample_shape: Sequence[int],
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return samples that carry a gradient to the logits."""
        assert isinstance(distribution, Relaxable)
        return self.relax(distribution, sample_shape, generator, noise)

    def attach(
        self, value: Tensor, distribution: Distribution, sample: Tensor, cost: Tensor
    ) -> Tensor:
        """Return `value`: its own path is the estimate."""
        return value

    @abstractmethod
    def relax(
        self,
        distribution: Relaxable,
        sample_shape: Sequence[int],
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return samples, [*sample_shape, *batch_shape, *event_shape], with a path."""


class StraightThrough(Pathwise):
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
        distributions=_FLOATING,
        scores=False,
    )

    def relax(
        self,
        distribution: Relaxable,
        sample_shape: Sequence[int],
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return hard samples with the gradient of the mean."""
        sample = distribution.sample(sample_shape, generator=generator, noise=noise)
        return _with_path(sample, distribution.mean)


@dataclass(frozen=True, eq=False)  # tensors have no equality that is one truth value
class GumbelSoftmax(Pathwise):
    """Gumbel-softmax (Concrete): a relaxed sample, whose gradient is its own.

        soft: z = softmax((logits + gumbel) / T),   bits: z = sigmoid((logits + logistic) / T)
        hard: forward the discrete value nearest to z, backward the gradient of z

    The soft one is the exact gradient of a different cost, E[f(relaxed z)], which is also its
    value; the hard one evaluates f on discrete samples. T -> 0 approaches the discrete cost at the
    price of variance.

    Args:
        temperature: T, a positive number, or a tensor, through which gradients go too. It
            broadcasts to the samples' shape, for one-hot vectors without the axis V: one T a row.
        hard: evaluate f on discrete samples (straight-through Gumbel-softmax).

    Raises:
        TypeError, ValueError: a temperature that is not positive and finite (a tensor's values are
            looked at, at every call, in eager code on the CPU only), or of another shape.

    `noise` is one uniform for each number of a sample: [*sample_shape, *logits.shape]. For bits,
    the hard sample is the one that score-function estimators draw from the same noise.

    Memory: as the samples, about four times.

    Source: Jang, Gu and Poole (2017), arXiv 1611.01144; Maddison, Mnih and Teh (2017), arXiv
    1611.00712.

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> places = pgest.OneHotCategorical(logits)
        >>> cost = lambda z: (z * torch.tensor([1.0, 2.0, 3.0])).sum(-1)
        >>> soft = pgest.estimators.GumbelSoftmax(temperature=0.5)
        >>> pgest.expect(cost, places, soft, num_samples=8).sum().backward()
        >>> logits.grad.shape
        torch.Size([2, 3])
    """

    temperature: float | Tensor = 1.0
    hard: bool = False
    name: ClassVar[str] = "gumbel_softmax"
    traits: ClassVar[Traits] = Traits(
        unbiased=False, needs_path=True, distributions=_FLOATING, scores=False
    )

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if self.hard:  # the registry's name; a frozen dataclass is set in this way only
            object.__setattr__(self, "name", "gumbel_softmax_hard")

    def noise_shape(self, distribution: Distribution, num_samples: int) -> torch.Size:
        """One uniform for each number of a sample."""
        return torch.Size((num_samples, *distribution.logits.shape))

    def relax(
        self,
        distribution: Relaxable,
        sample_shape: Sequence[int],
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return relaxed samples, or the discrete values nearest to them with their gradient."""
        relaxed = distribution.relaxed(
            sample_shape, temperature=self.temperature, generator=generator, noise=noise
        )
        z = _with_path(distribution.nearest(relaxed), relaxed) if self.hard else relaxed
        return z.to(distribution.logits.dtype)


def _with_path(sample: Tensor, path: Tensor) -> Tensor:
    """Return `sample`, to the last bit, with the gradient of `path`."""
    return sample + (path - path.detach())
