"""Coupled bits: samples that avoid each other, and the leave-one-out estimate put right for it."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pgest.advantages import leave_one_out
from pgest.distributions import Bernoulli, Distribution
from pgest.distributions.base import readable, uniform
from pgest.distributions.paths import still
from pgest.estimators import walks
from pgest.estimators.base import Cost, Estimator, Traits
from pgest.estimators.first_order import add_surrogate


class CoupledBits(Estimator):
    """Estimators that draw the samples of a bit together, each bit apart from the others.

    A subclass says how in `couple`, and in `slope` what the costs make of it. Tokens are drawn as
    walks down a binary tree of V - 1 bits, as Dong, Mnih and Tucker (2021), arXiv 2106.08056, do; a
    bit that none of the coupled samples has reached gets the gradient 0.

    Memory: the bits, V - 1 of each token, and two temporaries of their size.
    """

    per_noise: ClassVar[int] = 1  # samples that one row of noise gives

    def noise_shape(self, distribution: Distribution, num_samples: int) -> torch.Size:
        """One uniform for each bit of a sample, or of a pair, where samples come in pairs."""
        return torch.Size((num_samples // self.per_noise, *walks.shape(distribution)))

    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the mean cost of all samples, with the gradient attached."""
        walk = walks.Walk(distribution)
        logits = walk.logits.detach()
        bits, u = self.draw(distribution, logits, num_samples, generator, noise)
        z, reached = walk.decode(bits)
        cost = f(z)
        slope = self.slope(walk.like_bits(cost.detach()), bits, reached, logits, u)
        surrogate = walk.sum(still(slope, logits) * walk.logits)
        return add_surrogate(cost.mean(0), surrogate, self.name)

    def draw(
        self,
        distribution: Distribution,
        logits: Tensor,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return bits [S, ...], bool, and the uniforms that `slope` is to see."""
        shape = self.noise_shape(distribution, num_samples)
        u = uniform((), shape, logits, logits.dtype, generator, noise)
        return self.couple(logits, u), u

    @abstractmethod
    def couple(self, logits: Tensor, u: Tensor) -> Tensor:
        """Return bits [S, ...], bool, each 1 with the probability that its logit says."""

    @abstractmethod
    def slope(
        self, cost: Tensor, bits: Tensor, reached: Tensor | None, logits: Tensor, u: Tensor
    ) -> Tensor:
        """Return the estimate of the gradient of the bits' logits, like `logits`.

        `cost` [S, ...] broadcasts to the bits; `reached` says which of them it depends on.
        """


class _Pairs(CoupledBits):
    """The second half of the samples mirrors the first: 1 - u for u."""

    per_noise: ClassVar[int] = 2

    def couple(self, logits: Tensor, u: Tensor) -> Tensor:
        """Return b = 1[u < p] and, behind them, 1[1 - u <= p], which does not round 1 - u."""
        return torch.cat([u < logits.sigmoid(), u >= (-logits).sigmoid()])


class ARM(_Pairs):
    """ARM: augment, REINFORCE, merge. The costs of an antithetic pair, weighted by its uniforms.

        gradient = mean over pairs of (f(b') - f(b)) (u - 1/2),   b = 1[u < p],   b' = 1[u > 1 - p]

    S is even, S / 2 pairs. Unbiased; where the two bits agree it scatters for nothing, which
    `disarm` removes by integrating u out: there is no reason to prefer this one.

    `noise`: [S / 2, *variables], for tokens [S / 2, *variables, V - 1].

    Source: Yin and Zhou (2019), arXiv 1807.11143.

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> value = pgest.expect(lambda z: (z.sum(-1) - 1) ** 2, bits, "arm", num_samples=4)
        >>> value.sum().backward()
        >>> logits.grad.shape
        torch.Size([2, 3])
    """

    name: ClassVar[str] = "arm"
    traits: ClassVar[Traits] = Traits(
        unbiased=True, distributions=walks.DRAWN_AS_BITS, min_samples=2, multiple=2, scores=False
    )

    def slope(
        self, cost: Tensor, bits: Tensor, reached: Tensor | None, logits: Tensor, u: Tensor
    ) -> Tensor:
        """Return the mean over pairs."""
        first, second = cost.chunk(2)
        slope = (second - first) * (u - 0.5)
        if reached is not None:
            one, other = reached.chunk(2)
            slope = torch.where(one | other, slope, 0.0)
        return slope.mean(0)


class DisARM(_Pairs):
    """DisARM, also called U2G: `arm` with the uniforms integrated out of each antithetic pair.

        gradient = mean over pairs of 1/2 (f(b) - f(b')) (b - b') max(p, 1 - p)

    S is even, S / 2 pairs. Unbiased, never worse than `arm`, and without variance where p = 1/2 and
    f is of one bit. Of two samples, where f adds up over D bits, it scatters less than `rloo` by an
    amount that does not grow with D.

    `noise`: [S / 2, *variables], for tokens [S / 2, *variables, V - 1].

    Source: Dong, Mnih and Tucker (2020), arXiv 2006.10680; Yin, Ho, Yan, Qian and Zhou (2020),
    arXiv 2006.06448; for tokens Dong, Mnih and Tucker (2021), arXiv 2106.08056.

    Example:
        >>> logits = torch.zeros(1, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits)
        >>> pgest.expect(lambda z: (z - 0.45) ** 2, bits, "disarm", num_samples=2).backward()
        >>> round(logits.grad.item(), 4)
        0.025
    """

    name: ClassVar[str] = "disarm"
    traits: ClassVar[Traits] = Traits(
        unbiased=True, distributions=walks.DRAWN_AS_BITS, min_samples=2, multiple=2, scores=False
    )

    def draw(
        self,
        distribution: Distribution,
        logits: Tensor,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return pairs of bits; their uniforms, which `slope` does not use, are not always made."""
        if noise is None and isinstance(distribution, Bernoulli) and readable(logits):
            args = num_samples, generator
            return distribution.drawn(*args, antithetic=True, dtype=torch.bool), logits
        return super().draw(distribution, logits, num_samples, generator, noise)

    def slope(
        self, cost: Tensor, bits: Tensor, reached: Tensor | None, logits: Tensor, u: Tensor
    ) -> Tensor:
        """Return the mean over pairs."""
        first, second = cost.chunk(2)
        one, other = bits.to(cost.dtype).chunk(2)
        slope = (first - second) * (one - other)
        if reached is not None:
            by_one, by_other = reached.chunk(2)
            slope = torch.where(by_one | by_other, slope, 0.0)
        return slope.mean(0) * (logits.abs().sigmoid() / 2)


class ARMS(CoupledBits):
    """ARMS: any number of samples that avoid each other, and leave one out.

        gradient = 1/S sum_s (f(b_s) - mean of the others) b_s / (1 - rho)
        rho = the correlation of a bit between two samples, which is negative

    A bit takes its less likely value in those samples whose share d_s of a stick, broken at random
    (d ~ Dirichlet(1, ..., 1)), is above 1 - r^(1 / (S - 1)), r = min(p, 1 - p). With two samples it
    is `disarm`; with independent ones, rho = 0, it would be `rloo`.

    S is at least 2, and all samples are coupled. Unbiased.

    `noise`: [S, *variables], for tokens [S, *variables, V - 1]; -log(1 - noise) over its sum is the
    stick.

    Source: Dimitriev and Zhou (2021), arXiv 2105.14141.

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> value = pgest.expect(lambda z: (z.sum(-1) - 1) ** 2, bits, "arms", num_samples=3)
        >>> value.sum().backward()
        >>> logits.grad.shape
        torch.Size([2, 3])
    """

    name: ClassVar[str] = "arms"
    traits: ClassVar[Traits] = Traits(
        unbiased=True, distributions=walks.DRAWN_AS_BITS, min_samples=2, scores=False
    )

    def couple(self, logits: Tensor, u: Tensor) -> Tensor:
        """Return the bits that a broken stick decides together."""
        pieces = torch.log1p(-u)  # less than 0, as is their sum
        total = pieces.sum(0)
        # r^(1 / (S - 1)) > 1 - d, the share of all others, which nothing rounds to 0.
        root = (logsigmoid(-logits.abs()) / (len(u) - 1)).exp()
        rare = total - pieces > root * total
        return rare ^ (logits > 0)

    def slope(
        self, cost: Tensor, bits: Tensor, reached: Tensor | None, logits: Tensor, u: Tensor
    ) -> Tensor:
        """Return the leave-one-out estimate over 1 - rho.

        P(both rare) = max(0, 2 a - 1)^(S - 1), a = r^(1 / (S - 1)), and
        1 / (1 - rho) = (1 - r) / (1 - P(both rare) / r).
        """
        samples = len(bits)
        weight, ones = leave_one_out(cost), bits.to(cost.dtype)
        slope = (weight * ones).mean(0)
        if reached is not None:  # less what pairs say of a bit that neither of them has reached
            unreached = (~reached).to(cost.dtype)
            both = unreached.sum(0) * (weight * ones * unreached).sum(0)
            slope = slope - (both - (weight * unreached).sum(0) * (ones * unreached).sum(0)) / (
                samples**2
            )
        log_rare = logsigmoid(-logits.abs())
        inverse_root = (-log_rare / (samples - 1)).exp()
        together = (2 - inverse_root).clamp_min(0) ** (samples - 1)
        return slope * (logits.abs().sigmoid() / (1 - together))
