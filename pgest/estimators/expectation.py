"""`expect`: one call for every estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from pgest.distributions import Distribution, as_distribution
from pgest.estimators import checks
from pgest.estimators.base import Cost, Estimator
from pgest.estimators.registry import resolve


def expect(
    f: Callable[[Tensor], Tensor],
    distribution: Any,
    estimator: str | Estimator,
    *,
    num_samples: SupportsIndex = 1,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Estimate E[f(z)] for a discrete z, with a backward that estimates its gradient.

        value ~ E[f(z)],   z ~ distribution,   value.backward() ~ grad E[f(z)]

    The gradient of the distribution's parameters is the estimator's; that of whatever else f uses
    is the plain one, from f's own evaluations, and f may use the distribution's parameters too.
    A sampled gradient is of first order: differentiating it again raises for the score-function
    estimators, in eager code and under torch.func alike, unless by f's own parameters alone; a
    pathwise one gives the second derivative of its path. `exact` and `dice` are right to any order.
    The value of `gumbel_softmax` and `hard_concrete` estimates E[f(relaxed z)].

    Args:
        f: z [n, *batch_shape, *event_shape] -> cost [n, *batch_shape], of all samples at once. n
            belongs to the estimator (it may be the support's size): f must not assume it, nor let
            one sample's cost depend on another sample.
        distribution: `pgest.Categorical`, `OneHotCategorical` or `Bernoulli`, or torch's, the
            latter also inside `Independent`.
        estimator: a name from `pgest.estimators.registry`, or an instance.
        num_samples: S, the draws per element of the batch.
        generator: reproduces the draws; eager code only.
        noise: uniforms in [0, 1) to draw from instead: [S, *batch_shape, *event_shape], without
            the axis V of one-hot vectors, or the `noise_shape` of an estimator that wants another,
            as `gumbel_softmax` does. Equal noise, equal draws, under torch.compile and
            torch.func.vmap too. Other numbers are a ValueError in eager code on the CPU; elsewhere
            they are clamped, lest the GPU waits.

    Returns:
        [*batch_shape], in the dtype of the costs, at least float32. Costs are minimised: minimise
        the value. Samples are detached, save for what pathwise estimators pass through them.

    Raises:
        TypeError, ValueError: arguments, a distribution or a number of samples that the estimator
            does not take, by name, before f runs; a cost of another shape, or one without the path
            that the estimator needs (looked for in eager code only), right after.
        RuntimeError: a second derivative of a score-function estimate, where it is taken. In
            compiled code it is the compiler's own error, but not with its backend "eager".

    Memory: f's for n samples at once, plus what the estimator says.

    Example:
        >>> logits = torch.zeros(5, 8, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> cost = lambda z: (z.sum(-1) - 3).abs()
        >>> g = torch.Generator().manual_seed(0)
        >>> value = pgest.expect(cost, bits, "rloo", num_samples=4, generator=g)
        >>> value.mean().backward()
        >>> value.shape, logits.grad.shape
        (torch.Size([5]), torch.Size([5, 8]))
    """
    checks.cost_function(f)
    chosen, drawn = resolve(estimator), as_distribution(distribution)
    samples = checks.num_samples(num_samples)
    chosen.check(drawn, samples)
    return chosen.estimate(_checked(f, drawn, chosen), drawn, samples, generator, noise)


def _checked(f: Cost, distribution: Distribution, estimator: Estimator) -> Cost:
    def checked(z: Tensor) -> Tensor:
        given = checks.Given(z, estimator)
        shape = (z.shape[0], *distribution.batch_shape)
        cost = checks.cost(f(given.sample), shape, distribution)
        given.check_unchanged()
        checks.paths(cost, [(given, "it")])
        return cost

    return checked
