"""Yardsticks: the gradient from values of f alone, at logits that were moved."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pgest.distributions import Bernoulli, Categorical, Distribution, OneHotCategorical
from pgest.distributions.base import finite, uniform
from pgest.distributions.paths import still
from pgest.estimators.base import Cost, Estimator, Traits
from pgest.estimators.first_order import add_surrogate
from pgest.ops import scalars
from pgest.reference import statistics_dtype

_KINDS = (Bernoulli, Categorical, OneHotCategorical)


@dataclass(frozen=True)
class Perturbed(Estimator):
    """Central differences of E[f] along directions in the logits, with common random numbers.

        gradient = 1/S sum_s sum_d d (f(z_s at logits + c d) - f(z_s at logits - c d)) / (2 c)

    Both samples are made of the same uniforms. A subclass says how many directions d of a sample
    there are, and implements `directions`. The value is the mean cost at the logits themselves.

    Args:
        step: c, in units of the logits.

    Raises:
        ValueError: a step that is not positive and finite.

    Memory: f's for as many samples as it is evaluated at.
    """

    step: float = 0.5
    random: ClassVar[bool] = True  # whether directions take uniforms of their own

    def __post_init__(self) -> None:
        if not 0 < scalars.number("step", self.step) < float("inf"):
            raise ValueError(f"step must be positive and finite, got {self.step}")

    def noise_shape(self, distribution: Distribution, num_samples: int) -> torch.Size:
        """One uniform for each variable of a draw, after one for each logit of a random one."""
        variables = distribution.variables[len(distribution.batch_shape) :].numel()
        of_directions = _numbers(distribution) if self.random else 0
        return torch.Size((num_samples, *distribution.batch_shape, of_directions + variables))

    @abstractmethod
    def directions(self, noise: Tensor, n: int) -> Tensor:
        """Return directions [K, S, *batch_shape, n] from uniforms [S, *batch_shape, n or 0]."""

    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the mean cost, with the differences attached."""
        d, n = distribution, _numbers(distribution)
        shape = torch.Size(self.noise_shape(d, num_samples)[1:])
        u = uniform((num_samples,), shape, d.logits, torch.float64, generator, noise)
        logits = d.logits.detach().to(statistics_dtype(d.logits)).reshape(*d.batch_shape, n)
        along = self.directions(u[..., : n if self.random else 0], n).to(logits.dtype)
        moves = torch.cat([torch.zeros_like(along[:1]), along, -along])  # [1 + 2 K, S, *batch, n]
        points = moves.shape[0] * num_samples
        moved = (logits + self.step * moves).reshape(points, *d.logits.shape)
        draws = u[..., n if self.random else 0 :].expand(*moves.shape[:-1], -1)
        q = type(d)(moved, d.event_dims)  # type: ignore[call-arg]
        z = q.sample(noise=draws.reshape(q.variables))
        cost = f(z if z.dtype == torch.int64 else z.to(d.logits.dtype))
        up, down = cost.detach()[num_samples:].view(2, len(along), num_samples, *d.batch_shape)
        slope = ((up - down)[..., None] / (2 * self.step) * along).mean(1).sum(0)
        flat = finite(d.logits).reshape(*d.batch_shape, n)
        surrogate = (still(slope.to(flat.dtype), flat) * flat).sum(-1)
        return add_surrogate(cost[:num_samples].mean(0), surrogate, self.name)


def _numbers(distribution: Distribution) -> int:
    """How many logits one draw has."""
    return distribution.logits.shape[len(distribution.batch_shape) :].numel()


class FiniteDifferences(Perturbed):
    """Central differences along each logit, with common random numbers.

        gradient of logit i = 1/S sum_s (f(z_s at logit i + c) - f(z_s at logit i - c)) / (2 c)

    The expectation is the difference of E[f]: biased by c^2 / 6 times its third derivative. A
    small step makes both samples equal but with probability of about c, when their difference
    counts 1 / (2 c): the variance grows with 1 / c. A yardstick, which costs two evaluations of f a
    logit.

    Args:
        step: c, in units of the logits.

    Raises:
        ValueError: a step that is not positive and finite.

    Cost: S (2 n + 1) evaluations of f in one call, for n logits of a draw. Memory: f's for as many.

    `noise` is uniforms in [0, 1): [S, *batch_shape, number of variables of a draw].

    Source: Kiefer and Wolfowitz (1952), Stochastic estimation of the maximum of a regression
    function.

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> pgest.expect(lambda z: z.sum(-1), bits, "finite_differences").sum().backward()
        >>> logits.grad.shape
        torch.Size([2, 3])
    """

    name: ClassVar[str] = "finite_differences"
    traits: ClassVar[Traits] = Traits(
        unbiased=False, evaluations="S (2 n + 1)", distributions=_KINDS, scores=False
    )
    random: ClassVar[bool] = False

    def directions(self, noise: Tensor, n: int) -> Tensor:
        """Return the axes."""
        samples, *batch, _ = noise.shape
        axes = torch.eye(n, dtype=noise.dtype, device=noise.device)
        return axes.view(n, 1, *[1] * len(batch), n).expand(n, samples, *batch, n)


class SPSA(Perturbed):
    """Simultaneous perturbation: a central difference along random signs.

        gradient = 1/S sum_s d_s (f(z_s at logits + c d_s) - f(z_s at logits - c d_s)) / (2 c)

    where d_s has independent signs +1 and -1. Two evaluations of f whatever the number of logits,
    which all share one difference: the variance grows with their number. What the others add has
    mean 0 only to first order: at logit i, up to order c^4, the bias is

        c^2 / 6 (d^3 E[f] / dlogit_i^3 + 3 sum over j != i of d^3 E[f] / dlogit_i dlogit_j^2)

    Args:
        step: c, in units of the logits.

    Raises:
        ValueError: a step that is not positive and finite.

    Cost: 3 S evaluations of f in one call. Memory: f's for as many.

    `noise` is uniforms in [0, 1): [S, *batch_shape, logits + variables of a draw], signs first.

    Source: Spall (1992), Multivariate stochastic approximation using a simultaneous perturbation
    gradient approximation.

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> value = pgest.expect(lambda z: z.sum(-1), bits, "spsa", num_samples=8)
        >>> value.sum().backward()
        >>> logits.grad.shape
        torch.Size([2, 3])
    """

    name: ClassVar[str] = "spsa"
    traits: ClassVar[Traits] = Traits(
        unbiased=False, evaluations="3 S", distributions=_KINDS, scores=False
    )

    def directions(self, noise: Tensor, n: int) -> Tensor:
        """Return signs: -1 for uniforms below 1/2."""
        return torch.where(noise < 0.5, -1.0, 1.0)[None]


class EvolutionStrategies(Perturbed):
    """Evolution strategies: a central difference along a Gaussian direction.

        gradient = 1/S sum_s d_s (f(z_s at logits + c d_s) - f(z_s at logits - c d_s)) / (2 c)

    where d_s is standard normal: the gradient of E[f] smoothed by a Gaussian of width c in the
    logits. At logit i, up to order c^4, the bias is

        c^2 / 2 sum over j of d^3 E[f] / dlogit_i dlogit_j^2

    Args:
        step: c, in units of the logits.

    Raises:
        ValueError: a step that is not positive and finite.

    Cost: 3 S evaluations of f in one call. Memory: f's for as many.

    `noise` is uniforms in [0, 1): [S, *batch_shape, logits + variables of a draw], directions
    first.

    Source: Salimans, Ho, Chen, Sidor and Sutskever (2017), arXiv 1703.03864, with antithetic pairs.

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> value = pgest.expect(lambda z: z.sum(-1), bits, "evolution_strategies", num_samples=8)
        >>> value.sum().backward()
        >>> logits.grad.shape
        torch.Size([2, 3])
    """

    name: ClassVar[str] = "evolution_strategies"
    traits: ClassVar[Traits] = Traits(
        unbiased=False, evaluations="3 S", distributions=_KINDS, scores=False
    )

    def directions(self, noise: Tensor, n: int) -> Tensor:
        """Return normal numbers, by inverting their distribution function."""
        return torch.special.ndtri(noise.clamp_min(2.0**-54))[None]
