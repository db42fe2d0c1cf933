"""Expectations under a sparse distribution in the place of the softmax. Biased."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pgest.distributions import Distribution
from pgest.distributions.base import readable
from pgest.estimators.base import Cost, Estimator, Traits
from pgest.ops import scalars


@dataclass(frozen=True)
class SparseExpectation(Estimator):
    """Exact expectations under a sparse distribution that is made of the scores log p(z).

        value = sum_z w(z) f(z),   w = weights(log p) with most w(z) exactly 0

    A subclass implements `weights`. There is no noise and no variance: the value and every
    derivative are those of the sparse model, which is another one than p. f is evaluated once, on
    as many values as the element of the batch with the most possible ones has; where that cannot be
    looked at (compiled code, torch.func, GPUs) on all, or on `k`. `num_samples`, `generator` and
    `noise` have no effect.

    Args:
        k: at most so many possible values: the others of an element's k likeliest have weight 0
            (top-k sparsemax); the same as without, where no more are possible anyway.
        max_support: larger supports of p are refused.

    Raises:
        ValueError: a larger support.

    Memory: f's for the possible values, and a sorted copy of the scores.

    Source: Correia, Niculae, Aziz and Martins (2020), Efficient marginalization of discrete and
    structured latent variables via sparsity, arXiv 2007.01919.
    """

    k: int | None = None
    max_support: int = 65536

    def __post_init__(self) -> None:
        if self.k is not None:
            scalars.count("k", self.k)

    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the sparse model's expectation."""
        size = distribution.support_size
        if size > self.max_support:
            came = size if size < 10**9 else "more than 1e9"
            raise ValueError(
                f"{self.name} lists at most {self.max_support} values of one draw, got {came}"
            )
        support = distribution.enumerate_support()
        scores = distribution.log_prob(support)
        scores, place = scores.topk(min(self.k or size, size), 0)
        weight = self.weights(scores)
        if readable(weight):
            possible = int((weight != 0).sum(0).max()) if weight.numel() else 1
            weight, place = weight[:possible], place[:possible]
        at = place.reshape(*place.shape, *[1] * (support.dim() - place.dim()))
        cost = f(support.gather(0, at.expand(len(place), *support.shape[1:])))
        return (weight * torch.where(weight == 0, 0.0, cost)).sum(0).to(cost.dtype)

    @abstractmethod
    def weights(self, scores: Tensor) -> Tensor:
        """Return probabilities [n, ...] from scores that fall along dimension 0, differentiable."""


class Sparsemax(SparseExpectation):
    """Sparsemax: the probabilities nearest to the scores, of which few are not 0.

        w_z = max(0, s_z - tau),   sum_z w_z = 1,   s = log p

    One bit of logit x is 1 with min(1, max(0, (1 + x) / 2)). A value is impossible where its score
    is 1 below the largest, or sooner. See `SparseExpectation` for arguments, cost, and what is
    raised.

    Source: Martins and Astudillo (2016), From softmax to sparsemax, arXiv 1602.02068; Correia et
    al. (2020), arXiv 2007.01919.

    Example:
        >>> logits = torch.tensor([1.0, 0.5, -3.0, -4.0], requires_grad=True)
        >>> cost = torch.tensor([1.0, 2.0, 6.0, 9.0])
        >>> value = pgest.expect(lambda z: cost[z], pgest.Categorical(logits), "sparsemax")
        >>> value.backward()
        >>> round(value.item(), 3), [round(x, 3) for x in logits.grad.tolist()]
        (1.25, [-0.5, 0.5, 0.0, 0.0])
    """

    name: ClassVar[str] = "sparsemax"
    traits: ClassVar[Traits] = Traits(unbiased=False, evaluations="sparse support", scores=False)

    def weights(self, scores: Tensor) -> Tensor:
        """Return max(0, s - tau)."""
        with torch.no_grad():
            s, rank = scores.double(), _ranks(scores)
            inside = 1 + rank * s > s.cumsum(0)
        total = torch.where(inside, scores, 0.0).sum(0)
        tau = (total - 1) / inside.sum(0)
        return _known(torch.where(inside, scores - tau, 0.0), scores)


class Entmax15(SparseExpectation):
    """1.5-entmax: between the softmax and sparsemax, smoother than the latter.

        w_z = max(0, s_z / 2 - tau)^2,   sum_z w_z = 1,   s = log p

    A value is impossible where its score is 2 below the largest, or sooner. See
    `SparseExpectation` for arguments, cost, and what is raised.

    Source: Peters, Niculae and Martins (2019), Sparse sequence-to-sequence models, arXiv
    1905.05702; Correia et al. (2020), arXiv 2007.01919.

    Example:
        >>> logits = torch.tensor([1.0, 0.5, -3.0, -4.0], requires_grad=True)
        >>> cost = torch.tensor([1.0, 2.0, 6.0, 9.0])
        >>> value = pgest.expect(lambda z: cost[z], pgest.Categorical(logits), "entmax15")
        >>> value.backward()
        >>> round(value.item(), 3), [round(x, 3) for x in logits.grad.tolist()]
        (1.326, [-0.337, 0.337, 0.0, 0.0])
    """

    name: ClassVar[str] = "entmax15"
    traits: ClassVar[Traits] = replace(Sparsemax.traits)

    def weights(self, scores: Tensor) -> Tensor:
        """Return max(0, s / 2 - tau)^2."""
        half = (scores - scores[:1].detach()) / 2  # the largest is 0: squares of few digits
        with torch.no_grad():
            s, rank = half.double(), _ranks(scores)
            mean, square = s.cumsum(0) / rank, (s**2).cumsum(0) / rank
            # tau of the first n; n are possible as long as the n-th is above it.
            tau = mean - ((1 / rank - square + mean**2).clamp_min(0)).sqrt()
            inside = tau < s
        count = inside.sum(0)
        mean = torch.where(inside, half, 0.0).sum(0) / count
        scatter = torch.where(inside, half - mean, 0.0).square().sum(0)
        tau = mean - ((1 - scatter) / count).sqrt()
        return _known(torch.where(inside, half - tau, 0.0).square(), scores)


def _ranks(scores: Tensor) -> Tensor:
    """1, 2, ... along dimension 0."""
    rank = torch.arange(1, len(scores) + 1, dtype=torch.float64, device=scores.device)
    return rank.view(-1, *[1] * (scores.dim() - 1))


def _known(weight: Tensor, scores: Tensor) -> Tensor:
    """The weights, NaN where scores are NaN: no comparison would have seen it."""
    return torch.where(scores.isnan().any(0), torch.nan, weight)
