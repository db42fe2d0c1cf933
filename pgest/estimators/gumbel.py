"""The Gumbel family: samples whose gradient is that of logits with noise. Biased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pgest.distributions import Distribution, Relaxable
from pgest.distributions.base import check_temperature, uniform
from pgest.distributions.paths import with_path
from pgest.estimators.base import Traits
from pgest.estimators.pathwise import FLOATING, Pathwise
from pgest.ops import scalars
from pgest.reference import statistics_dtype

_TRAITS = Traits(unbiased=False, needs_path=True, distributions=FLOATING, scores=False)


class _PerNumber(Pathwise):
    """What draws its noise for each number of a sample, V of a one-hot vector."""

    def noise_shape(self, distribution: Distribution, num_samples: int) -> torch.Size:
        """One uniform for each number of a sample."""
        return torch.Size((num_samples, *distribution.logits.shape))


@dataclass(frozen=True, eq=False)  # tensors have no equality that is one truth value
class GumbelSoftmax(_PerNumber):
    """Gumbel-softmax (Concrete): a relaxed sample, whose gradient is its own.

        z = softmax((logits + gumbel) / T),   bits: z = sigmoid((logits + logistic) / T)

    It is the exact gradient of a different cost, E[f(relaxed z)], which is also its value. T -> 0
    approaches the discrete cost at the price of variance.

    Args:
        temperature: T, a positive number, or a tensor, through which gradients go too. It
            broadcasts to the samples' shape, for one-hot vectors without the axis V: one T a row.

    Raises:
        TypeError, ValueError: a temperature that is not positive and finite (a tensor's values are
            looked at, at every call, in eager code on the CPU only), or of another shape.

    `noise` is one uniform for each number of a sample: [*sample_shape, *logits.shape].

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
    name: ClassVar[str] = "gumbel_softmax"
    traits: ClassVar[Traits] = _TRAITS

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    def relax(
        self,
        distribution: Relaxable,
        sample_shape: Sequence[int],
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return relaxed samples."""
        relaxed = distribution.relaxed(
            sample_shape, temperature=self.temperature, generator=generator, noise=noise
        )
        return relaxed.to(distribution.logits.dtype)


@dataclass(frozen=True, eq=False)
class STGumbel(_PerNumber):
    """Straight-through Gumbel-softmax: the discrete value nearest to the relaxed one.

        forward one_hot(argmax(logits + gumbel)),   backward that of softmax((logits + gumbel) / T)

    f sees only hard samples, once each. Biased, for linear f too. `gumbel_softmax(hard=True)` of
    torch and of `pgest` is the same.

    Args, raises, `noise`, memory: as `GumbelSoftmax`. For bits, the hard sample is the one that
    score-function estimators draw from the same noise.

    Source: Jang, Gu and Poole (2017), arXiv 1611.01144.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> value = pgest.expect(lambda z: z.sum(-1) ** 2, bits, "st_gumbel", num_samples=4)
        >>> value.backward()
        >>> logits.grad.shape
        torch.Size([3])
    """

    temperature: float | Tensor = 1.0
    name: ClassVar[str] = "st_gumbel"
    traits: ClassVar[Traits] = _TRAITS

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    def relax(
        self,
        distribution: Relaxable,
        sample_shape: Sequence[int],
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the discrete values nearest to relaxed ones, with their gradient."""
        relaxed = distribution.relaxed(
            sample_shape, temperature=self.temperature, generator=generator, noise=noise
        )
        return with_path(distribution.nearest(relaxed), relaxed).to(distribution.logits.dtype)


@dataclass(frozen=True)
class DecoupledSTGumbel(_PerNumber):
    """Decoupled straight-through Gumbel-softmax: one temperature to draw, another to go back.

        forward one_hot(argmax(logits / T_f + gumbel))
        backward that of softmax(logits / T_b + gumbel),   of the same Gumbel noise

    With T_f = 1 the samples are the distribution's; with another they are those of softmax(logits /
    T_f), at which the value estimates E[f]. T_f = T_b = 1 is `st_gumbel`. A larger T_b moves bias
    for variance. Biased, for linear f too.

    Args:
        forward_temperature: T_f, a positive number.
        backward_temperature: T_b, a positive number.

    Raises:
        TypeError, ValueError: temperatures that are not positive, finite numbers.

    `noise` and memory: as `GumbelSoftmax`, twice.

    Source: Shah, Yan, Mozer and Liu (2024), Improving discrete optimisation via decoupled
    straight-through Gumbel-softmax, arXiv 2410.13331v1.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> decoupled = pgest.estimators.DecoupledSTGumbel(backward_temperature=3.0)
        >>> pgest.expect(lambda z: z.sum(-1) ** 2, bits, decoupled, num_samples=4).backward()
        >>> logits.grad.shape
        torch.Size([3])
    """

    forward_temperature: float = 1.0
    backward_temperature: float = 2.0
    name: ClassVar[str] = "decoupled_st_gumbel"
    traits: ClassVar[Traits] = _TRAITS

    def __post_init__(self) -> None:
        scalars.positive("forward_temperature", self.forward_temperature)
        scalars.positive("backward_temperature", self.backward_temperature)

    def relax(
        self,
        distribution: Relaxable,
        sample_shape: Sequence[int],
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return hard samples at one temperature with the gradient at the other."""
        logits = distribution.logits.to(statistics_dtype(distribution.logits))
        u = uniform(sample_shape, logits.shape, logits, logits.dtype, generator, noise)
        kind: Any = type(distribution)
        there, back = (
            kind(logits / t, event_dims=distribution.event_dims)
            for t in (self.forward_temperature, self.backward_temperature)
        )
        hard = there.nearest(there.relaxed(sample_shape, noise=u).detach())
        path = back.relaxed(sample_shape, noise=u)
        return with_path(hard, path).to(distribution.logits.dtype)


@dataclass(frozen=True, eq=False)
class GumbelRao(Pathwise):
    """Gumbel-Rao: straight-through Gumbel-softmax, averaged over the noise given the sample.

        backward 1/K sum_k that of softmax((logits + gumbel_k) / T),   gumbel_k given the sample

    The expectation of `st_gumbel` with the same T, and less variance, for one evaluation of f a
    sample. K -> infinity averages the noise out; then T -> 0 is `reinmax`, which needs no noise at
    all. K = 1 is `st_gumbel` with the noise drawn in another order.

    Args:
        temperature: T, a positive number, or a tensor as in `GumbelSoftmax`.
        draws: K, the draws of the noise a sample.

    Raises:
        TypeError, ValueError: a temperature that is not positive and finite, draws that are not a
            positive integer.

    `noise` has one uniform for each variable's value and K for each number of its vector, in a last
    dimension: [*sample_shape, *batch_shape, *event_shape, 1 + K V] without the axis V of one-hot
    vectors, and 1 + K for bits. The noise is a constant to the gradient.

    Memory: K times the samples, about four times.

    Source: Paulus, Maddison and Krause (2021), Rao-Blackwellizing the straight-through
    Gumbel-softmax gradient estimator, arXiv 2010.04838.

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> places = pgest.OneHotCategorical(logits)
        >>> cost = lambda z: (z * torch.tensor([1.0, 2.0, 3.0])).sum(-1) ** 2
        >>> rao = pgest.estimators.GumbelRao(temperature=0.5, draws=100)
        >>> pgest.expect(cost, places, rao, num_samples=8).sum().backward()
        >>> logits.grad.shape
        torch.Size([2, 3])
    """

    temperature: float | Tensor = 1.0
    draws: int = 10
    name: ClassVar[str] = "gumbel_rao"
    traits: ClassVar[Traits] = _TRAITS

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        scalars.count("draws", self.draws)

    def noise_shape(self, distribution: Distribution, num_samples: int) -> torch.Size:
        """One uniform for each variable's value, and K for each number of its vector."""
        variables = distribution.variables
        numbers = distribution.logits.shape[len(variables) :].numel()  # V of one-hot, 1 of bits
        return torch.Size((num_samples, *variables, 1 + self.draws * numbers))

    def relax(
        self,
        distribution: Relaxable,
        sample_shape: Sequence[int],
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return hard samples with the mean gradient of the noise that would draw them."""
        logits, shape = distribution.logits, self.noise_shape(distribution, 1)[1:]
        numbers = logits.shape[len(distribution.variables) :]
        u = uniform(sample_shape, shape, logits, statistics_dtype(logits), generator, noise)
        sample = distribution.sample(sample_shape, noise=u[..., 0])
        each = u[..., 1:].reshape(*u.shape[:-1], self.draws, *numbers)
        each = each.movedim(len(u.shape) - 1, 0)
        moved = distribution.perturbed_given(sample, each)
        soft = distribution.soften(moved, self.temperature).mean(0)
        return with_path(sample.to(soft.dtype), soft).to(logits.dtype)
