"""The most probable values of a draw summed, the rest sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pgest.distributions import Distribution
from pgest.distributions.categorical import draw_tokens
from pgest.estimators.base import Cost, Estimator, Traits
from pgest.estimators.support import (
    MAX_SUPPORT,
    check_support,
    evaluate,
    log_probabilities,
    weighted,
)
from pgest.ops import scalars


@dataclass(frozen=True)
class SumAndSample(Estimator):
    """The sum over the k most probable values, and samples of the others (Rao-Blackwellised).

        value = sum_{z in top k} p(z) f(z) + p(rest) 1/n sum_s f(z_s),   z_s ~ p(. | rest)

    and the gradient has p(z) grad log p(z) for p(z), and f(z) - b for f(z): b is the mean of f over
    the top where n is 1, else what the top and the other samples say of E[f]. f is evaluated S =
    `num_samples` times: at the k = S - n most probable values of a whole draw, and at n samples.
    Unbiased, and a constant added to f changes nothing, unless S = 1, which is `reinforce`; with n
    = S it is `rloo`, and with S at least the support's size it is `exact`. For the same b the
    variance is at most p(rest) times that of n samples alone: this is for a peaked distribution
    whose values can be listed.

    Args:
        samples: n, how many of the S evaluations are of samples.
        max_support: more values of one draw than this are refused.

    Raises:
        ValueError: fewer than n evaluations; a larger support; n < 1.

    `noise` is uniforms of the rest, one for each sample of a joint draw: [n, *batch_shape].

    Cost: S evaluations of f. Memory: a float64 for every value of the support, three times.

    Source: Liu, Regier, Tripuraneni, Jordan and McAuliffe (2019), Rao-Blackwellized stochastic
    gradients for discrete distributions, arXiv 1810.04777.

    Example:
        >>> logits = torch.tensor([5.0, 2.0, 0.0, -1.0], requires_grad=True)
        >>> cost = torch.tensor([1.0, 2.0, 3.0, 9.0])
        >>> tokens = pgest.Categorical(logits)
        >>> value = pgest.expect(lambda z: cost[z], tokens, "sum_and_sample", num_samples=3)
        >>> value.backward()
        >>> bool((value - 1.08).abs() < 0.05), logits.grad.shape
        (True, torch.Size([4]))
    """

    samples: int = 1
    max_support: int = MAX_SUPPORT
    name: ClassVar[str] = "sum_and_sample"
    traits: ClassVar[Traits] = Traits(unbiased=True)

    def __post_init__(self) -> None:
        scalars.count("samples", self.samples)

    def noise_shape(self, distribution: Distribution, num_samples: int) -> torch.Size:
        """One uniform for each sample of the rest."""
        return torch.Size((self.samples, *distribution.batch_shape))

    def check(self, distribution: Distribution, num_samples: int) -> None:
        """Refuse fewer evaluations than samples, and a support that is too large."""
        super().check(distribution, num_samples)
        check_support(distribution, self.name, self.max_support)
        if num_samples < self.samples:
            raise ValueError(
                f"num_samples must be at least {self.samples} for {self!r}, got {num_samples}"
            )

    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the sum over the top and the mean over samples of the rest."""
        log_p = log_probabilities(distribution)
        listed = num_samples >= distribution.support_size
        n = 0 if listed else self.samples
        index = log_p.topk(distribution.support_size if listed else num_samples - n, -1).indices
        weight, top = log_p.gather(-1, index).exp().movedim(-1, 0), index.movedim(-1, 0)
        if n:
            rest = log_p.scatter(-1, index, -torch.inf)
            log_rest = rest.logsumexp(-1)
            # Where nothing is left, samples of anything possible have weight 0.
            rest = torch.where((log_rest == -torch.inf)[..., None], log_p, rest)
            drawn = draw_tokens(rest, (n,), generator, noise)
            top = torch.cat([top, drawn])
            weight = torch.cat([weight, (log_rest.exp() / n).expand(n, *log_rest.shape)])
        z, cost = evaluate(f, distribution, top, weight)
        advantage = cost.detach() - _baseline(weight, cost.detach().to(weight.dtype), n)
        return weighted(distribution, z, cost, weight, advantage, self.name)


def _baseline(weight: Tensor, cost: Tensor, samples: int) -> Tensor:
    """What multiplies the score of each value, [n, *batch_shape]; see `SumAndSample`.

    That of a sample does not depend on it; that of the top is the mean of the samples' own.
    """
    head = len(cost) - samples
    of_top = (weight[:head] * cost[:head]).sum(0)
    if samples < 2:
        known = of_top / weight[:head].sum(0) if head else torch.zeros_like(of_top)
        return known.expand(cost.shape)
    drawn, share = cost[head:], weight[head:].sum(0)
    of_samples = of_top + share * (drawn.sum(0) - drawn) / (samples - 1)
    return torch.cat([of_samples.mean(0).expand(head, *of_top.shape), of_samples])
