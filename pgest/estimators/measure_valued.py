"""Each variable of a draw at all of its values, the others as they were drawn."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pgest.distributions import Bernoulli, Categorical, Distribution, OneHotCategorical
from pgest.estimators.base import Cost, Estimator, Traits
from pgest.estimators.first_order import add_surrogate
from pgest.reference import one_hot, statistics_dtype


class MeasureValued(Estimator):
    """Measure-valued derivatives: f at every value of each variable in turn.

        gradient of variable i = 1/S sum_s sum_v f(z_s with v in place i) grad p_i(v)
        value = 1/S sum_s mean over i of sum_v p_i(v) f(z_s with v in place i)

    For a bit this is p (1 - p) (f(1) - f(0)), the difference of the two measures into which the
    derivative of the Bernoulli distribution splits, with the other bits in common; for one of V it
    takes all V - 1 differences at once. Nothing is left of the variance of variable i itself, so
    that the estimate is exact where f is additive, or a draw has one variable. Unbiased for any f.
    Neither the value nor f's own parameters lose any of the evaluations.

    Cost: S (1 + n (V - 1)) evaluations of f in one call, for n variables of V values in a draw: n +
    1 for n bits. Memory: f's for as many, and S n V numbers a draw.

    Source: Pflug (1989), Sampling derivatives of probabilities; Mohamed, Rosca, Figurnov and Mnih
    (2020), arXiv 1906.10652, section 6. For all values at once: Titsias and Lázaro-Gredilla (2015),
    Local expectation gradients, arXiv 1503.01494.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> pgest.expect(lambda z: z.sum(-1), bits, "measure_valued").backward()
        >>> logits.grad.tolist()
        [0.25, 0.25, 0.25]
    """

    name: ClassVar[str] = "measure_valued"
    traits: ClassVar[Traits] = Traits(
        unbiased=True,
        evaluations="S (1 + n (V - 1))",
        distributions=(Bernoulli, Categorical, OneHotCategorical),
        scores=False,
        enumerable=True,
    )

    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the mean over variables of the exact expectation over each."""
        sample = distribution.sample((num_samples,), generator=generator, noise=noise)
        one_hots = isinstance(distribution, OneHotCategorical)
        batch, variables = distribution.batch_shape, distribution.variables
        p = _probabilities(distribution)
        n, values = variables[len(batch) :].numel(), p.shape[-1]
        tokens = sample.argmax(-1) if one_hots else sample.long()
        tokens, p = tokens.reshape(num_samples, *batch, n), p.reshape(*batch, n, values)

        moves = _moves(n, values, tokens)
        moved = (tokens[:, None] + moves.view(-1, *[1] * len(batch), n)) % values
        moved = moved.reshape(num_samples * len(moves), *variables)
        z = one_hot(moved, values, sample.dtype) if one_hots else moved.to(sample.dtype)
        cost = f(z).view(num_samples, len(moves), *batch).movedim(1, -1)

        # Value number j of a variable is its drawn one, j further on: all share the one at j = 0.
        drawn = cost[..., :1, None].expand(*tokens.shape, 1)
        every = torch.cat([drawn, cost[..., 1:].reshape(*tokens.shape, values - 1)], -1)
        places = (tokens[..., None] + torch.arange(values, device=tokens.device)) % values
        share = p.expand(num_samples, *p.shape).gather(-1, places)
        every = torch.where(share == 0, 0.0, every)
        value = (share.detach().to(cost.dtype) * every).sum(-1).mean(-1).mean(0)
        surrogate = (share * every.detach().to(share.dtype)).sum((-1, -2)).mean(0)
        return add_surrogate(value, surrogate, self.name)


def _probabilities(distribution: Distribution) -> Tensor:
    """P of each value of each variable, [*variables, V], differentiable in the logits."""
    logits = distribution.logits.to(statistics_dtype(distribution.logits))
    if isinstance(distribution, Bernoulli):
        return torch.stack([(-logits).sigmoid(), logits.sigmoid()], -1)
    return logits.softmax(-1)


def _moves(n: int, values: int, like: Tensor) -> Tensor:
    """Steps [1 + n (V - 1), n] from what was drawn: none, then each variable by 1 to V - 1."""
    steps = torch.arange(1, values, device=like.device)
    each = torch.eye(n, dtype=like.dtype, device=like.device)
    moves = (each[:, None, :] * steps[:, None]).reshape(-1, n)
    return torch.cat([moves.new_zeros(1, n), moves])
