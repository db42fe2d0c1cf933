"""Control variates on relaxed samples: REBAR and RELAX."""

from __future__ import annotations

from math import log
from typing import ClassVar

import torch
from torch import Tensor, nn

from pgest.distributions import Distribution, Relaxable
from pgest.distributions.base import check_temperature, uniform
from pgest.estimators.base import Cost, Estimator, Traits
from pgest.estimators.first_order import add_surrogate
from pgest.estimators.slopes import (
    FLOATING,
    Learned,
    event_sum,
    second_moment,
    with_logits,
    with_slope,
)
from pgest.reference import statistics_dtype

Pair = tuple[Tensor, Tensor]


class Relaxing(Estimator, Learned):
    """Estimators with a function c of relaxed samples.

        gradient = 1/S sum_s (f(z_s) - c(r'_s)) grad log p(z_s) + grad c(r_s) - grad c(r'_s)

    where r_s is the relaxed sample at temperature T that rounds to z_s, and r'_s another one given
    that it does.
    """

    log_temperature: Tensor

    def __init__(self, temperature: float, *, learn: bool, **values: float) -> None:
        Learned.__init__(self)
        check_temperature(temperature)
        self.hold(learn, log_temperature=log(temperature), **values)

    def noise_shape(self, distribution: Distribution, num_samples: int) -> torch.Size:
        """Two uniforms for each number of a sample: of the relaxed one, and of that given z."""
        return torch.Size((2, num_samples, *distribution.logits.shape))

    @property
    def temperature(self) -> Tensor:
        """T, a 0-dimensional tensor."""
        return self.log_temperature.exp()

    def draw(
        self,
        q: Relaxable,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return the uniforms, and samples in the dtype of the logits, detached."""
        dtype = statistics_dtype(q.logits)
        u = uniform((2, num_samples), q.logits.shape, q.logits, dtype, generator, noise)
        with torch.no_grad():
            return u, q.nearest(q.relaxed((num_samples,), noise=u[0])).to(q.logits.dtype)


def relax(q: Relaxable, z: Tensor, u: Tensor, temperature: Tensor) -> Pair:
    """The relaxed samples that round to z, and those given that; differentiable in logits and T."""
    relaxed = q.relaxed(u.shape[1:2], temperature=temperature, noise=u[0])
    return relaxed, q.relaxed_given(z, u[1], temperature=temperature)


def attached(q: Relaxable, z: Tensor, weight: Tensor, along: Tensor) -> Tensor:
    """The surrogate [*batch_shape]: weights times scores, and `along` summed over each draw."""
    return q.weighted_score(z, weight) + event_sum(q, along).mean(0)


class Rebar(Relaxing):
    """REBAR: the cost of relaxed samples as the control variate.

        gradient = 1/S sum_s (f(z_s) - k f(r'_s)) grad log p(z_s) + k grad (f(r_s) - f(r'_s))

    r_s is the relaxed sample at temperature T (Concrete) that rounds to z_s, and r'_s another one
    given that it does; the gradients of f(r) and f(r') go through the relaxed samples alone: what
    else f has learns from the z_s only. Unbiased for any T and k; with k = 0 it is `reinforce`.

    Args:
        temperature: T to begin with.
        scale: k to begin with.
        learn: whether T and k are parameters, with a `fit_loss` in eager code, which takes second
            derivatives of f.

    `noise` is uniforms in [0, 1) of r and of r' given z: [2, S, *logits.shape].

    Cost: 3 S evaluations of f in one call, and a backward pass of it. Memory: f's for as many.

    Source: Tucker, Mnih, Maddison, Lawson and Sohl-Dickstein (2017), REBAR: low-variance, unbiased
    gradient estimates for discrete latent variable models, arXiv 1703.07370, equation 5.

    Example:
        >>> estimator = pgest.estimators.Rebar()
        >>> bits = pgest.Bernoulli(torch.zeros(5, 3, requires_grad=True), event_dims=1)
        >>> cost = lambda z: (z.sum(-1) - 1) ** 2
        >>> pgest.expect(cost, bits, estimator).mean().backward()
        >>> estimator.fit_loss.backward()
        >>> estimator.log_temperature.grad.shape
        torch.Size([])
    """

    name: ClassVar[str] = "Rebar"
    traits: ClassVar[Traits] = Traits(
        unbiased=True, evaluations="3 S", needs_path=True, distributions=FLOATING
    )
    scale: Tensor

    def __init__(self, temperature: float = 0.5, scale: float = 1.0, *, learn: bool = True) -> None:
        super().__init__(temperature, learn=learn, scale=scale)

    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the mean cost of the samples, with the estimate attached."""
        assert isinstance(distribution, Relaxable)
        u, z = self.draw(distribution, num_samples, generator, noise)
        t, k = self.temperature.detach(), self.scale.detach()
        paths = relax(distribution, z, u, t)
        points = torch.cat([z, *(x.detach().to(z.dtype) for x in paths)])
        if self.learning:
            points.requires_grad_()
        cost, slope = with_slope(f, points, graph=self.learning)
        if self.learning:
            self.fit_loss = self._fit_loss(distribution, u, points, cost, slope)
        surrogate = attached(distribution, z, *_terms(cost.detach(), slope.detach(), k, paths))
        return add_surrogate(cost[:num_samples].mean(0), surrogate, self.name)

    def _fit_loss(
        self, distribution: Relaxable, u: Tensor, points: Tensor, cost: Tensor, slope: Tensor
    ) -> Tensor:
        """The second moment, whose backward goes to T and k alone, not to f's parameters."""
        z, own = points.detach().chunk(3)[0], list(self.parameters())

        def surrogate(q: Relaxable) -> Tensor:
            paths = relax(q, z, u, self.temperature)
            return attached(q, z, *_terms(cost, slope, self.scale, paths))

        moment, _ = second_moment(distribution, surrogate)
        at_points, *at_own = torch.autograd.grad(
            moment, [points, *own], retain_graph=True, allow_unused=True
        )
        # T moves the points, too, at which f was evaluated.
        fixed = with_logits(distribution, distribution.logits.detach())
        moved = torch.cat(relax(fixed, z, u, self.temperature))
        terms = [(p * g).sum() for p, g in zip(own, at_own, strict=True) if g is not None]
        if at_points is not None:
            terms.append((at_points[len(z) :] * moved).sum())
        by_own = torch.stack([x.to(moment.dtype) for x in terms]).sum()
        return moment.detach() + (by_own - by_own.detach())


def _terms(cost: Tensor, slope: Tensor, scale: Tensor, paths: Pair) -> Pair:
    """The weights of the scores, and what goes along the relaxed samples."""
    costs = cost.chunk(3)
    _, at_relaxed, at_given = slope.to(paths[0].dtype).chunk(3)
    weight = costs[0].detach() - scale * costs[2]
    return weight, scale * (at_relaxed * paths[0] - at_given * paths[1])


class Relax(Relaxing):
    """RELAX: a function of relaxed samples that is learned as the control variate.

        gradient = 1/S sum_s (f(z_s) - c(r'_s)) grad log p(z_s) + grad (c(r_s) - c(r'_s))

    r_s is the relaxed sample at temperature T (Concrete) that rounds to z_s, and r'_s another one
    given that it does. f is a black box, evaluated at the z_s only. Unbiased for any c and T; with
    c = 0 it is `reinforce`. c is learned by the variance's own gradient, `fit_loss`.

    Args:
        surrogate: c, a module: relaxed samples [n, *batch_shape, *event_shape] -> numbers [n,
            *batch_shape].
        temperature: T to begin with.
        learn: whether calls in eager code set a `fit_loss`, and T is a parameter.

    Raises:
        ValueError: a surrogate that returns another shape.

    `noise` is uniforms in [0, 1) of r and of r' given z: [2, S, *logits.shape].

    Cost: S evaluations of f; of c 2 S and a backward pass, and while it learns twice as many and
    its second derivatives.

    Source: Grathwohl, Choi, Wu, Roeder and Duvenaud (2018), Backpropagation through the void,
    arXiv 1711.00123, equation 8.

    Example:
        >>> class Surrogate(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh())
        ...     def forward(self, r):
        ...         return self.net(r).sum(-1)
        >>> estimator = pgest.estimators.Relax(Surrogate())
        >>> bits = pgest.Bernoulli(torch.zeros(5, 3, requires_grad=True), event_dims=1)
        >>> cost = lambda z: (z.sum(-1) > 1).float()
        >>> pgest.expect(cost, bits, estimator).mean().backward()
        >>> estimator.fit_loss.backward()
        >>> estimator.surrogate.net[0].weight.grad.shape
        torch.Size([8, 3])
    """

    name: ClassVar[str] = "Relax"
    traits: ClassVar[Traits] = Traits(unbiased=True, distributions=FLOATING)

    def __init__(
        self, surrogate: nn.Module, temperature: float = 0.5, *, learn: bool = True
    ) -> None:
        super().__init__(temperature, learn=learn)
        self.surrogate = surrogate

    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the mean cost of the samples, with the estimate attached."""
        assert isinstance(distribution, Relaxable)
        u, z = self.draw(distribution, num_samples, generator, noise)
        cost = f(z)
        seen = cost.detach()
        if self.learning:
            self.fit_loss = self._fit_loss(distribution, u, z, seen)
        paths = relax(distribution, z, u, self.temperature.detach())
        control, slope = with_slope(self._control(seen), torch.cat(paths).detach())
        (_, given), slopes = control.detach().chunk(2), slope.detach().chunk(2)
        along = slopes[0] * paths[0] - slopes[1] * paths[1]
        surrogate = attached(distribution, z, seen - given, along)
        return add_surrogate(cost.mean(0), surrogate, self.name)

    def _fit_loss(self, distribution: Relaxable, u: Tensor, z: Tensor, cost: Tensor) -> Tensor:
        control = self._control(cost)
        fixed = with_logits(distribution, distribution.logits.detach())
        weight = cost - control(relax(fixed, z, u, self.temperature)[1])

        def surrogate(q: Relaxable) -> Tensor:
            at_relaxed, at_given = control(torch.cat(relax(q, z, u, self.temperature))).chunk(2)
            return q.weighted_score(z, weight) + (at_relaxed - at_given).mean(0)

        return second_moment(distribution, surrogate)[0]

    def _control(self, cost: Tensor) -> Cost:
        def control(relaxed: Tensor) -> Tensor:
            c: Tensor = self.surrogate(relaxed)
            if c.shape != (len(relaxed), *cost.shape[1:]):
                expected = (len(relaxed), *cost.shape[1:])
                raise ValueError(
                    f"surrogate must return shape {expected}, one number for each relaxed sample, "
                    f"got {tuple(c.shape)}"
                )
            return c

        return control
