"""The slope of a cost in its samples, and control variates that are made of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pgest.distributions import Bernoulli, Distribution, OneHotCategorical, Relaxable
from pgest.estimators.base import Cost, Estimator
from pgest.estimators.first_order import add_surrogate
from pgest.reference import statistics_dtype

FLOATING = (Bernoulli, OneHotCategorical)


def eager() -> bool:
    """Whether autograd's own graph is what is being built."""
    return not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


def with_slope(f: Cost, z: Tensor, graph: bool = False) -> tuple[Tensor, Tensor]:
    """The costs of z [n, ...], and their derivatives in z, like z.

    The costs keep the gradient of f's own parameters, but none goes further than z. The slope is
    detached unless `graph`, in eager code, when z must require a gradient. Without gradients it is
    0: only the value is asked for.
    """
    if not torch.is_grad_enabled():
        return f(z), torch.zeros_like(z)
    if not eager():
        pulled: Any = torch.func.vjp(f, z.detach())
        cost, pull = pulled
        return cost, pull(torch.ones_like(cost))[0].detach()
    leaf = z if graph else z.detach().requires_grad_()
    # A copy is a node of the graph, whose path to the cost can be looked for, and may be changed in
    # place, which is for `f` to refuse by name; of a leaf that is an error of autograd.
    cost = f(leaf.clone())
    (slope,) = torch.autograd.grad(cost.sum(), leaf, retain_graph=True, create_graph=graph)
    return cost, slope


def with_logits(distribution: Distribution, logits: Tensor) -> Relaxable:
    """The same distribution with other logits."""
    assert isinstance(distribution, FLOATING)
    return type(distribution)(logits, distribution.event_dims)


def event_sum(distribution: Distribution, x: Tensor) -> Tensor:
    """Sums over the dimensions of one draw, [..., *batch_shape, *event_shape] -> [..., *batch]."""
    dims = len(distribution.event_shape)
    return x.sum(tuple(range(-dims, 0))) if dims else x


class Learned(nn.Module):
    """Own parameters, learned by the gradient of the estimate's second moment.

        fit_loss = sum of the squares of the gradient of the logits

    The estimate is unbiased whatever the parameters are, so that its variance is the second moment
    up to a constant. `learn=False` makes buffers of them, and sets no `fit_loss`.
    """

    learn: bool

    def hold(self, learn: bool, **values: float) -> None:
        """Register 0-dimensional parameters, or buffers."""
        self.learn = learn
        for name, value in values.items():
            x = torch.tensor(float(value), dtype=torch.float32)
            if learn:
                self.register_parameter(name, nn.Parameter(x))
            else:
                self.register_buffer(name, x)

    @property
    def learning(self) -> bool:
        """Whether this call is to set `fit_loss`: in eager code, in training mode."""
        return self.learn and self.training and torch.is_grad_enabled() and eager()


def second_moment(
    distribution: Distribution, surrogate: Callable[[Relaxable], Tensor]
) -> tuple[Tensor, Relaxable]:
    """Sum of squares of the gradient of a surrogate, and the private distribution it was taken of.

    The graph leads to what the surrogate is made of, but not to the model behind the logits.
    """
    logits = distribution.logits.detach().requires_grad_()
    private = with_logits(distribution, logits)
    total = surrogate(private).sum()
    (gradient,) = torch.autograd.grad(total, logits, create_graph=True)
    return gradient.to(statistics_dtype(gradient)).square().sum(), private


class SlopeControl(Estimator, Learned):
    """Score functions whose weights, and a term without noise, are made of costs and their slopes.

        gradient = 1/S sum_s weight_s grad log p(z_s) + grad <extra, carrier>

    A subclass implements `points`, `coefficients` and `carrier`.
    """

    def __init__(self) -> None:
        Learned.__init__(self)
        self.learn = False

    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the mean cost, with the estimate attached."""
        assert isinstance(distribution, Relaxable)
        z = distribution.sample((num_samples,), generator=generator, noise=noise)
        cost, slope = with_slope(f, self.points(z, distribution))
        seen = cost.detach(), z.to(cost.dtype), slope.to(statistics_dtype(slope)), distribution

        def surrogate(q: Relaxable, weight: Tensor, extra: Tensor) -> Tensor:
            carrier = self.carrier(q)
            return q.weighted_score(z, weight) + event_sum(q, extra.to(carrier.dtype) * carrier)

        if self.learning:
            coefficients = self.coefficients(*seen)
            self.fit_loss, _ = second_moment(distribution, lambda q: surrogate(q, *coefficients))
        with torch.no_grad():
            weight, extra = self.coefficients(*seen)
        value = cost[:num_samples].mean(0)
        return add_surrogate(value, surrogate(distribution, weight, extra), self.name)

    def points(self, z: Tensor, distribution: Relaxable) -> Tensor:
        """Where f is evaluated: the samples first."""
        return z

    @abstractmethod
    def coefficients(
        self, cost: Tensor, z: Tensor, slope: Tensor, distribution: Relaxable
    ) -> tuple[Tensor, Tensor]:
        """Return weight [S, *batch_shape] and extra [*batch_shape, *event_shape].

        Differentiable in the estimator's own parameters.

        Args:
            cost, slope: of all points, detached.
            z: the samples.
        """

    @abstractmethod
    def carrier(self, distribution: Relaxable) -> Tensor:
        """What the term without noise is linear in, like the logits: a function of the logits."""
