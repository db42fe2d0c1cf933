"""The score-function family: samples with weights. Unbiased for any f, which may be a black box."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from pgest.advantages import leave_one_out
from pgest.distributions import Distribution
from pgest.estimators.base import LocalEstimator, Traits
from pgest.estimators.first_order import add_surrogate


class ScoreFunction(LocalEstimator):
    """Estimators that are a weight for each sample.

        gradient = 1/S sum_s weight_s grad log p(z_s),   where E[f grad log p] = grad E[f]

    A subclass implements `weight`. Samples, costs and weights are detached, so what a weight rule
    learns from them cannot reach the model, nor the model's loss what it learns.

    Memory: one log-probability, cost and weight a sample.
    """

    def draw(
        self,
        distribution: Distribution,
        sample_shape: Sequence[int],
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return independent samples, detached."""
        return distribution.sample(sample_shape, generator=generator, noise=noise)

    def attach(
        self, value: Tensor, distribution: Distribution, sample: Tensor, cost: Tensor
    ) -> Tensor:
        """Return `value` with the estimate added to its gradient, which is of first order only."""
        weight = self.weight(cost.detach()).detach()
        if weight.shape != cost.shape:
            raise ValueError(
                f"{self.name}.weight must return shape {tuple(cost.shape)}, one weight for each "
                f"cost, got {tuple(weight.shape)}"
            )
        return weigh(value, distribution, sample, weight, self.name)

    @abstractmethod
    def weight(self, cost: Tensor) -> Tensor:
        """Return the weight of each sample, [S, *batch_shape], from the costs of all, detached.

        Unbiased if what it subtracts from a cost does not depend on that sample.
        """


class Reinforce(ScoreFunction):
    """REINFORCE: the weight of a sample is its cost.

        gradient = 1/S sum_s f(z_s) grad log p(z_s)

    One evaluation of f is enough, but the variance grows with the size of f: adding a constant to
    f changes it.

    Source: Williams (1992), Simple statistical gradient-following algorithms.

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> value = pgest.expect(lambda z: z.sum(-1), bits, "reinforce")
        >>> value.sum().backward()
        >>> value.shape, logits.grad.shape
        (torch.Size([2]), torch.Size([2, 3]))
    """

    name: ClassVar[str] = "reinforce"
    traits: ClassVar[Traits] = Traits(unbiased=True, enumerable=True)

    def weight(self, cost: Tensor) -> Tensor:
        """Return the cost."""
        return cost


class RLOO(ScoreFunction):
    """REINFORCE, leave one out: the baseline of a sample is the mean cost of the others.

        weight_s = f(z_s) - 1/(S-1) sum_{r != s} f(z_r)

    Needs S >= 2 samples. Unbiased, and adding a constant to f changes nothing: the first one to
    try where f is a black box.

    Source: Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a baseline for free!

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> value = pgest.expect(lambda z: (z.sum(-1) - 1) ** 2, bits, "rloo", num_samples=4)
        >>> value.sum().backward()
        >>> logits.grad.shape
        torch.Size([2, 3])
    """

    name: ClassVar[str] = "rloo"
    traits: ClassVar[Traits] = Traits(unbiased=True, min_samples=2, enumerable=True)

    def weight(self, cost: Tensor) -> Tensor:
        """Return the cost minus the mean cost of the other samples."""
        return leave_one_out(cost)


def weigh(
    value: Tensor, distribution: Distribution, sample: Tensor, weight: Tensor, name: str
) -> Tensor:
    """Return `value` with the gradient of the mean of weight * log p(sample) added to its own."""
    return add_surrogate(value, distribution.weighted_score(sample, weight), name)
