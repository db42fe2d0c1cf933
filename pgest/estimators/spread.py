"""Samples spread over [0, 1) by their uniforms, for bits and tokens alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from pgest.advantages import leave_one_out
from pgest.distributions import Bernoulli, Categorical, Distribution, OneHotCategorical
from pgest.distributions.base import readable, uniform
from pgest.distributions.bernoulli import check_bits
from pgest.distributions.paths import still
from pgest.estimators.base import Cost, Estimator, Traits
from pgest.estimators.first_order import add_surrogate
from pgest.estimators.score import ScoreFunction
from pgest.estimators.walks import usable
from pgest.reference import statistics_dtype
from pgest.reference.draw import coupled

_BY_INVERSION = (Bernoulli, Categorical, OneHotCategorical)


class Antithetic(ScoreFunction):
    """REINFORCE with antithetic pairs, u and 1 - u, and the other pairs' mean as the baseline.

        weight_s = f(z_s) - mean of f over all pairs but that of s

    The mean of all others would be wrong here: the mirror image depends on the sample. Each sample
    by itself has the right distribution and pairs are independent, so it is unbiased. S is even and
    at least 4. Where u and 1 - u cost the same, S samples tell no more than S / 2.

    `noise`: [S / 2, *variables]. Sample S / 2 + s has 1 - noise[s].

    Source: Hammersley and Morton (1956), A new Monte Carlo technique: antithetic variates.

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> tokens = pgest.Categorical(logits)
        >>> value = pgest.expect(lambda z: 1.0 * z, tokens, "antithetic", num_samples=4)
        >>> value.sum().backward()
        >>> logits.grad.shape
        torch.Size([2, 3])
    """

    name: ClassVar[str] = "antithetic"
    traits: ClassVar[Traits] = Traits(
        unbiased=True, distributions=_BY_INVERSION, min_samples=4, multiple=2
    )

    def noise_shape(self, distribution: Distribution, num_samples: int) -> torch.Size:
        """One uniform for each variable of a pair."""
        return torch.Size((num_samples // 2, *distribution.variables))

    def draw(
        self,
        distribution: Distribution,
        sample_shape: Sequence[int],
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return samples whose second half mirrors the first, detached."""
        samples, *variables = *sample_shape, *distribution.variables
        logits = distribution.logits
        if noise is None and len(sample_shape) == 1 and isinstance(distribution, Bernoulli):
            check_bits(logits)
            if readable(logits):
                return distribution.drawn(samples, generator, antithetic=True)
        u = uniform((samples // 2,), torch.Size(variables), logits, torch.float64, generator, noise)
        # Rounding must not carry it to 1, nor to another token than that of 1 - u.
        mirrored = (1 - u).clamp_max(1 - torch.finfo(u.dtype).eps / 2)
        return distribution.sample(sample_shape, noise=torch.cat([u, mirrored]))

    def weight(self, cost: Tensor) -> Tensor:
        """Return the cost minus the mean cost of the other pairs."""
        first, second = cost.chunk(2)
        pair = (first + second) / 2
        others = pair - leave_one_out(pair)
        return cost - torch.cat([others, others])


class Stratified(Estimator):
    """REINFORCE with one sample in each S-th of [0, 1), and leave one out, put right for it.

        u_s = (a_s + noise_s) / S,   a_s = (a_0 + s) mod S,   u_0 = noise_0, wherever it lies
        gradient = 1/S sum_s (f(z_s) - mean of the others) (onehot(z_s) - m_s / S)

    with m_s the probabilities of the variable's values given that u is in part a_s. The gradient of
    log p is onehot - m, which has mean 0 and is independent of the others' costs once the parts are
    given, so that any baseline of theirs will do, plus m - p, which sums to 0 over the parts; with
    the leave-one-out baseline both add up to the above. Unbiased, and adding a constant to f
    changes nothing. S is at least 2.

    `noise`: [S, *variables]; the part of the first sample decides those of the others.

    Memory: m, V numbers for each token of each sample.

    Source: stratified sampling after Neyman (1934); the baseline is Kool, van Hoof and Welling's
    (2019), given the strata.

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> tokens = pgest.Categorical(logits)
        >>> value = pgest.expect(lambda z: 1.0 * z, tokens, "stratified", num_samples=3)
        >>> value.tolist()  # each of three equally likely tokens once
        [1.0, 1.0]
    """

    name: ClassVar[str] = "stratified"
    traits: ClassVar[Traits] = Traits(
        unbiased=True, distributions=_BY_INVERSION, min_samples=2, scores=False
    )

    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the mean cost of all samples, with the gradient attached."""
        logits = usable(distribution)
        known = logits.detach()
        if noise is None and isinstance(distribution, Bernoulli):
            z, given = _systematic(distribution, known, num_samples, generator)
        else:
            shape = self.noise_shape(distribution, num_samples)
            # A vocabulary needs finer uniforms than a bit, lest it lose its rare tokens.
            dtype = known.dtype if isinstance(distribution, Bernoulli) else torch.float64
            noise = uniform((), shape, known, dtype, generator, noise)
            noise = noise.to(torch.promote_types(noise.dtype, dtype))
            u = coupled(noise, "stratified", num_samples)
            z = distribution.sample((num_samples,), noise=u)
            given = _given_part(distribution, known, (u * num_samples).floor())
        drawn = _numbers(distribution, z)
        cost = f(z)
        weight = leave_one_out(cost.detach())
        weight = weight.reshape(*weight.shape, *[1] * (drawn.dim() - weight.dim()))
        slope = (weight * (drawn - given / num_samples)).mean(0)
        surrogate = _sum(distribution, still(slope, known) * logits)
        return add_surrogate(cost.mean(0), surrogate, self.name)


def _systematic(
    bits: Bernoulli, logits: Tensor, samples: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Samples [S, ...] and their means given their parts, of one uniform for each bit.

    Only in one part is a bit random, that in which its probability ends, so that all its samples
    may have the same place in their parts: the law is that of a uniform for each.
    """
    u = samples * uniform((), logits.shape, logits, logits.dtype, generator, None)
    first = u.floor()
    part = first + torch.arange(samples, device=u.device).view(-1, *[1] * u.dim())
    given = _given_part(bits, logits, torch.where(part < samples, part, part - samples))
    return (u - first < given).to(bits.logits.dtype), given


def _numbers(distribution: Distribution, z: Tensor) -> Tensor:
    """Samples as bits or one-hot vectors [S, *logits.shape], in the dtype of statistics."""
    if isinstance(distribution, Categorical):
        z = z[..., None] == torch.arange(distribution.logits.shape[-1], device=z.device)
    return z.to(statistics_dtype(distribution.logits), copy=True)


def _given_part(distribution: Distribution, logits: Tensor, part: Tensor) -> Tensor:
    """E[sample] given that u is in a part, [S, *logits.shape]."""
    parts = part.shape[0]
    if isinstance(distribution, Bernoulli):
        return (parts * logits.sigmoid() - part.to(logits.dtype)).clamp(0, 1)
    p = logits.double().softmax(-1)
    ends = p.cumsum(-1)
    # What of [end - p, end) lies in part a, as a share of it.
    upper = (parts * ends - part[..., None]).clamp(0, 1)
    lower = torch.nn.functional.pad(upper[..., :-1], (1, 0))
    return (upper - lower).to(logits.dtype)


def _sum(distribution: Distribution, x: Tensor) -> Tensor:
    """Sum over all numbers of one draw, [*logits.shape] -> [*batch_shape]."""
    batch = len(distribution.batch_shape)
    return x.flatten(batch).sum(-1) if x.dim() > batch else x
