"""Gates that are exactly 0 or 1 with a probability, and otherwise between. Biased."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pgest.distributions import Bernoulli, Distribution, Relaxable
from pgest.distributions.base import finite
from pgest.estimators.base import Traits
from pgest.estimators.pathwise import Pathwise
from pgest.ops import scalars


@dataclass(frozen=True)
class HardConcrete(Pathwise):
    """Hard concrete: a relaxed bit, stretched beyond [0, 1] and cut off there.

        z = min(1, max(0, low + (high - low) s)),   s = sigmoid((logits + logistic) / T)

    f sees gates of which many are exactly 0 or 1, and the value and gradient are those of
    E[f(z)], z the gate: not of the bit's. A gate that was cut off passes no gradient. `expected_l0`
    is the expected number of gates that are not 0, in closed form, to be added to the loss.

    Args:
        temperature: T, a positive number; 2/3 in the paper.
        low, high: what [0, 1] is stretched to: low < 0 and high > 1.

    Raises:
        TypeError, ValueError: a temperature, low or high that does not fit.

    `noise`: the uniforms, [*sample_shape, *batch_shape, *event_shape].

    Memory: as the samples, about five times.

    Source: Louizos, Welling and Kingma (2018), Learning sparse neural networks through L0
    regularization, arXiv 1712.01312.

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> gates, estimator = pgest.Bernoulli(logits, event_dims=1), "hard_concrete"
        >>> loss = pgest.expect(lambda z: (z.sum(-1) - 1) ** 2, gates, estimator, num_samples=8)
        >>> number = pgest.estimators.registry["hard_concrete"].expected_l0(gates)
        >>> (loss + 0.1 * number).sum().backward()
        >>> number.shape, logits.grad.shape
        (torch.Size([2]), torch.Size([2, 3]))
    """

    temperature: float = 2 / 3
    low: float = -0.1
    high: float = 1.1
    name: ClassVar[str] = "hard_concrete"
    traits: ClassVar[Traits] = Traits(
        unbiased=False, needs_path=True, distributions=(Bernoulli,), scores=False
    )

    def __post_init__(self) -> None:
        scalars.positive("temperature", self.temperature)
        if not -math.inf < scalars.number("low", self.low) < 0:
            raise ValueError(f"low must be negative and finite, got {self.low}")
        if not 1 < scalars.number("high", self.high) < math.inf:
            raise ValueError(f"high must be above 1 and finite, got {self.high}")

    def relax(
        self,
        distribution: Relaxable,
        sample_shape: Sequence[int],
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return gates in [0, 1]."""
        relaxed = distribution.relaxed(
            sample_shape, temperature=self.temperature, generator=generator, noise=noise
        )
        stretched = self.low + (self.high - self.low) * relaxed
        return stretched.clamp(0, 1).to(distribution.logits.dtype)

    def expected_l0(self, distribution: Distribution) -> Tensor:
        """Return the expected number of gates that are not 0, [*batch_shape], to any order.

            sum over the event of P(z > 0) = sigmoid(logits - T log(-low / high))

        Raises:
            TypeError: no `Bernoulli`.
        """
        self.check(distribution, 1)
        open_ = finite(distribution.logits) - self.temperature * math.log(-self.low / self.high)
        return distribution.sum_event(open_.sigmoid())
