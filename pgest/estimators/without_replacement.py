"""Different values of a draw: sampling without replacement, and what keeps it unbiased."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pgest.distributions import Distribution
from pgest.estimators.base import Cost, Estimator, Traits
from pgest.estimators.support import (
    MAX_SUPPORT,
    check_support,
    evaluate,
    log_probabilities,
    weighted,
)
from pgest.ops import sample

# Impossible values are drawn last, when nothing else is left, and then have weight 0.
_LAST = -700.0


@dataclass(frozen=True)
class Distinct(Estimator):
    """Estimators that evaluate f at S different values of one draw.

    A subclass says how many draws it needs and implements `weights` and `advantage`. The values
    are drawn by `pgest.sample(..., method="without_replacement")` from the joint distribution of a
    draw, whose values are listed; where S is at least their number, all are summed: `exact`.

    `noise` is the uniforms of `pgest.sample`, of joint draws: [2, draws, *batch_shape].

    Memory: a float64 for every value of the support, twice, plus what the estimator says.
    """

    max_support: int = MAX_SUPPORT
    more: ClassVar[int] = 0  # draws beyond the evaluations of f

    def noise_shape(self, distribution: Distribution, num_samples: int) -> torch.Size:
        """Two uniforms for each draw."""
        return torch.Size((2, num_samples + self.more, *distribution.batch_shape))

    def check(self, distribution: Distribution, num_samples: int) -> None:
        """Refuse what the traits exclude, and a support that is too large."""
        super().check(distribution, num_samples)
        check_support(distribution, self.name, self.max_support)

    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the weighted sum of the costs of different values."""
        log_p = log_probabilities(distribution)
        if num_samples >= distribution.support_size:
            p = weight = log_p.exp().movedim(-1, 0)
            places = torch.arange(len(p), device=p.device)
            index = places.view(-1, *[1] * (p.dim() - 1)).expand(p.shape)
            z, cost = evaluate(f, distribution, index, weight)
            advantage = cost.detach() - (p * cost.detach()).sum(0)
            return weighted(distribution, z, cost, weight, advantage, self.name)
        drawn = sample(
            log_p.clamp_min(_LAST),
            num_samples + self.more,
            method="without_replacement",
            generator=generator,
            noise=noise,
        )
        assert drawn.perturbed is not None
        index = drawn.tokens[:num_samples]
        chosen = log_p.gather(-1, index.movedim(0, -1)).movedim(-1, 0)
        weight, state = self.weights(log_p, index, chosen, drawn.perturbed)
        z, cost = evaluate(f, distribution, index, weight)
        advantage = self.advantage(cost.detach().to(weight.dtype), weight, chosen.exp(), state)
        return weighted(distribution, z, cost, weight, advantage, self.name)

    @abstractmethod
    def weights(
        self, log_p: Tensor, index: Tensor, chosen: Tensor, perturbed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the weight of each value [S, *batch_shape], and what `advantage` needs of it.

        Args:
            log_p: of every value, [*batch_shape, M].
            index, chosen: the places drawn and their log-probability, [S, *batch_shape].
            perturbed: log p + Gumbel noise of all draws, descending.
        """

    @abstractmethod
    def advantage(self, cost: Tensor, weight: Tensor, p: Tensor, state: Tensor) -> Tensor:
        """Return what multiplies weight times score for each value, [S, *batch_shape]."""


@dataclass(frozen=True)
class WithoutReplacement(Distinct):
    """S different values with importance weights, and a baseline of the same values.

        value = sum_i w_i f_i,   w_i = p_i / (1 - exp(-exp(log p_i - kappa)))
        gradient = sum_i w_i grad log p_i (f_i (1 - p_i + w_i) - sum_j w_j f_j)

    kappa is the largest log p + Gumbel noise of those that were not drawn. Unbiased, but the
    weights do not sum to 1, so that a constant added to f adds variance, and they have heavy tails:
    for S < 4 (unless it is the support's size) the variance is infinite. `unordered_set` has
    neither fault.

    Cost: S evaluations of f.

    Source: Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a baseline for free!,
    and (2020), arXiv 2002.06043, equation 16.

    Example:
        >>> logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]], requires_grad=True)
        >>> cost = torch.tensor([1.0, 2.0, 3.0, 9.0])
        >>> tokens = pgest.Categorical(logits)
        >>> value = pgest.expect(lambda z: cost[z], tokens, "without_replacement", num_samples=2)
        >>> value.sum().backward()
        >>> logits.grad.shape
        torch.Size([1, 4])
    """

    name: ClassVar[str] = "without_replacement"
    traits: ClassVar[Traits] = Traits(unbiased=True)
    more: ClassVar[int] = 1

    def weights(
        self, log_p: Tensor, index: Tensor, chosen: Tensor, perturbed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return p over the probability of being above the threshold."""
        kappa = perturbed[-1]
        # Of the law that they were drawn by, in which nothing is impossible: 0 / above is 0.
        above = -torch.expm1(-(chosen.clamp_min(_LAST) - kappa).exp())
        return chosen.exp() / above, kappa

    def advantage(self, cost: Tensor, weight: Tensor, p: Tensor, state: Tensor) -> Tensor:
        """Return the cost, with the share that makes up for its part in the baseline, minus it."""
        return cost * (1 - p + weight) - (weight * cost).sum(0)


@dataclass(frozen=True)
class NormalisedWithoutReplacement(WithoutReplacement):
    """S different values with importance weights that are made to sum to 1: biased.

        value = sum_i w_i f_i / W,   W = sum_i w_i
        gradient = sum_i (w_i / W) grad log p_i (f_i - sum_j w_j f_j / W)

    with the w of `without_replacement`. A ratio of estimates is not the estimate of a ratio: value
    and gradient are biased, the less the larger S, and not at all once S is the support's size. A
    constant added to f changes nothing.

    Cost: S evaluations of f.

    Source: Kool, van Hoof and Welling (2020), arXiv 2002.06043, section 3.3.

    Example:
        >>> logits = torch.tensor([2.0, 1.0, 0.0, -1.0], requires_grad=True)
        >>> tokens = pgest.Categorical(logits)
        >>> constant = lambda z: 0 * z + 3.0
        >>> pgest.expect(constant, tokens, "normalised_without_replacement", num_samples=2).item()
        3.0
    """

    name: ClassVar[str] = "normalised_without_replacement"
    traits: ClassVar[Traits] = Traits(unbiased=False)

    def weights(
        self, log_p: Tensor, index: Tensor, chosen: Tensor, perturbed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return importance weights that sum to 1."""
        weight, kappa = super().weights(log_p, index, chosen, perturbed)
        return weight / weight.sum(0), kappa

    def advantage(self, cost: Tensor, weight: Tensor, p: Tensor, state: Tensor) -> Tensor:
        """Return the cost minus the weighted mean."""
        return cost - (weight * cost).sum(0)


@dataclass(frozen=True)
class UnorderedSet(Distinct):
    """S different values, weighted as the set that they are, whatever order they came in.

        value = sum_i p_i R_i f_i,   R_i = P(the other S - 1 | i is excluded) / P(the set)
        gradient = sum_i p_i R_i grad log p_i (f_i - sum_j p_j R_ij f_j)

    where P is the probability that draws without replacement give these values in some order, R_ij
    is R_j of the set and the distribution without i, and R_ii is 1. Unbiased; the weights sum to 1
    and so do those of each baseline: a constant added to f changes nothing. This is the estimate of
    the first draw alone, averaged over the orders of the set (Rao-Blackwellised), and the best of
    these estimators for S of a few.

    With V(U) = sum_{i in U} V(U - i) / P(U or what was not drawn), V(nothing) = 1, is p_i R_i = V(S
    - i) / V(S) and p_j R_ij = V(S - i - j) / V(S - i): one pass over all subsets of S gives all.

    Raises:
        ValueError: S > 12; S < 2, which has no baseline.

    Cost: S evaluations of f, and 2^S S numbers a row. Memory: 2^S float64 a row, times S / 2.

    Source: Kool, van Hoof and Welling (2020), Estimating gradients for discrete random variables by
    sampling without replacement, arXiv 2002.06043, equations 8 and 14.

    Example:
        >>> logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]], requires_grad=True)
        >>> cost = torch.tensor([1.0, 2.0, 3.0, 9.0])
        >>> tokens = pgest.Categorical(logits)
        >>> value = pgest.expect(lambda z: cost[z], tokens, "unordered_set", num_samples=4)
        >>> exact = pgest.expect(lambda z: cost[z], tokens, "exact")
        >>> bool(torch.isclose(value, exact))
        True
    """

    max_samples: ClassVar[int] = 12
    name: ClassVar[str] = "unordered_set"
    traits: ClassVar[Traits] = Traits(unbiased=True, min_samples=2)

    def check(self, distribution: Distribution, num_samples: int) -> None:
        """Refuse more samples than subsets can be listed of."""
        super().check(distribution, num_samples)
        if num_samples > self.max_samples and num_samples < distribution.support_size:
            raise ValueError(
                f"num_samples must be at most {self.max_samples} for {self.name}, whose cost "
                f"doubles with each, got {num_samples}"
            )

    def weights(
        self, log_p: Tensor, index: Tensor, chosen: Tensor, perturbed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return p_i R_i, and p_j R_ij [i, j, *batch_shape]."""
        rest = log_p.scatter(-1, index.movedim(0, -1), -torch.inf).logsumexp(-1)
        log_v = _log_orders(chosen.clamp_min(_LAST).exp(), rest.exp())
        n, full = len(chosen), len(log_v) - 1
        bits = 2 ** torch.arange(n, device=index.device)
        without = log_v[full - bits]
        both = log_v[(full - bits[:, None] - bits).clamp_min(0)]  # of no use on the diagonal
        ratio = (both - without[:, None]).exp()
        itself = torch.eye(n, dtype=torch.bool, device=index.device)
        itself = itself.view(n, n, *[1] * (chosen.dim() - 1))
        ratio = torch.where(itself, chosen.exp(), ratio)
        weight = (without - log_v[full]).exp()
        return torch.where(chosen == -torch.inf, 0.0, weight), ratio

    def advantage(self, cost: Tensor, weight: Tensor, p: Tensor, state: Tensor) -> Tensor:
        """Return the cost minus the estimate of E[f] that the other values give."""
        return cost - (state * cost).sum(1)


def _log_orders(p: Tensor, rest: Tensor) -> Tensor:
    """log V(U) of all subsets U of S values, [2^S, *batch_shape]; see `UnorderedSet`.

    Subset number m has value i where bit i of m is set.

    Args:
        p: probabilities [S, *batch_shape], positive.
        rest: the probability of all that was not drawn, [*batch_shape].
    """
    n = len(p)
    subsets = torch.arange(2**n, device=p.device)
    members = subsets[:, None] >> torch.arange(n, device=p.device) & 1
    log_mass = (rest + torch.tensordot(members.to(p.dtype), p, 1)).log()
    log_v = torch.zeros_like(log_mass)
    places = members.argsort(dim=1, descending=True, stable=True)  # those of the members first
    smaller = subsets[:, None] - (1 << places)
    by_size = members.sum(1).argsort(stable=True).split([math.comb(n, k) for k in range(n + 1)])
    for size, at in enumerate(by_size[1:], 1):
        terms = log_v[smaller[at, :size]]
        log_v = log_v.index_copy(0, at, terms.logsumexp(1) - log_mass[at])
    return log_v
