"""Samples with a path: f's own gradient goes on through the sample to the logits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from pgest.distributions import Bernoulli, Distribution, OneHotCategorical, Relaxable
from pgest.estimators.base import LocalEstimator

FLOATING = (Bernoulli, OneHotCategorical)


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


class HardPathwise(Pathwise):
    """Hard samples of the distribution with a Jacobian of the estimator's choice.

        forward z,   backward J(z, p)^T g,   g = df/dz

    A subclass implements `passed`. f sees only hard samples, once each, drawn from the noise as the
    score-function estimators draw theirs.
    """

    def relax(
        self,
        distribution: Relaxable,
        sample_shape: Sequence[int],
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return hard samples with the gradient that the estimator gives them."""
        sample = distribution.sample(sample_shape, generator=generator, noise=noise)
        return self.passed(distribution, sample)

    @abstractmethod
    def passed(self, distribution: Relaxable, sample: Tensor) -> Tensor:
        """Return the hard sample, to the last bit, with a path to the logits."""
