"""A score-function estimate that may be differentiated as often as one likes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pgest.advantages import leave_one_out
from pgest.distributions import Distribution
from pgest.estimators.base import Cost, Estimator, Traits


class DiCE(Estimator):
    """DiCE: the value has unbiased derivatives of any order.

        value = 1/S sum_s box_s (f(z_s) - b_s) + b_s,   box_s = exp(log p(z_s) - its own value)

    box is 1, and its n-th derivative that of p over p. The baseline b_s is the mean cost of the
    other samples, a constant to all derivatives (0 for one sample), so the first one is that of
    `rloo`. f may use the distribution's parameters: the mixed derivatives are right too.

    Memory: as `rloo`; a second derivative keeps the graph of the first.

    Source: Foerster et al. (2018), arXiv 1802.05098.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> value = pgest.expect(lambda z: z.prod(-1), bits, "dice", num_samples=100)
        >>> (first,) = torch.autograd.grad(value, logits, create_graph=True)
        >>> (second,) = torch.autograd.grad(first.sum(), logits)
        >>> second.shape
        torch.Size([3])
    """

    name: ClassVar[str] = "dice"
    traits: ClassVar[Traits] = Traits(unbiased=True, enumerable=True)

    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the mean cost of the samples, with all its derivatives."""
        sample = distribution.sample((num_samples,), generator=generator, noise=noise)
        cost = f(sample)
        known = cost.detach()
        baseline = known - leave_one_out(known) if num_samples > 1 else torch.zeros_like(known)
        score = distribution.score(sample)
        # The difference is 0: written thus, value and box are exact to the last bit.
        box = (score - score.detach()).expm1().to(cost.dtype)
        return (cost + box * (cost - baseline)).mean(0)
