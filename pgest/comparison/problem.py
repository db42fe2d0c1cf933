"""A cost and a distribution, in the forms in which estimators are asked for their gradients."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from pgest.comparison.outcomes import KINDS, outcomes, table, tokens_of
from pgest.distributions import Distribution
from pgest.estimators import Estimator, checks, expect

MAX_SUPPORT = 65536
MAX_NUMBERS = 2**24  # of an enumeration's noise

Cost = Callable[[Tensor], Tensor]


@dataclass
class Count:
    """What was asked of f: values of z that it was evaluated at, and its slopes at such values."""

    evaluations: int = 0
    backwards: int = 0

    def of(self, f: Cost) -> Cost:
        """Return f, counted."""

        def counted(z: Tensor) -> Tensor:
            self.evaluations += len(z)
            if z.requires_grad:
                z = z.view_as(z)  # a node of its own: a hook on the caller's tensor would stay
                z.register_hook(lambda g: self._add(len(g)))
            return f(z)

        return counted

    def _add(self, slopes: int) -> None:
        self.backwards += slopes


class Listed:
    """f's values on the whole support of a distribution, and its slopes once they are asked for.

    What an estimator makes of f at discrete values is found without calling f again.

    Attributes:
        resolution: what the rounding of f's values may make of a gradient's length: their dtype's
            eps times the largest of them, twice, times the standard deviation of a sample.
    """

    def __init__(self, f: Cost, distribution: Distribution) -> None:
        kind: Any = type(distribution)
        self.f, self.kind = f, kind
        self.values, _ = table(kind, distribution.logits)
        self.batch, self.event = distribution.batch_shape, distribution.event_shape
        self.support = distribution.enumerate_support()
        values = f(self.support.clone())
        cost = checks.cost(values, (len(self.support), *self.batch), distribution)
        self.cost = cost.detach().double()
        possible = distribution.support_log_prob().movedim(-1, 0).exp() > 0
        self._check_finite(possible)
        eps = max(torch.finfo(x.dtype).eps for x in (values, distribution.logits))
        p = distribution.probs.double()
        largest = torch.where(possible, self.cost.abs(), 0.0).max()
        self.resolution = float(2 * eps * largest * (p * (1 - p)).sum().sqrt())

    def _check_finite(self, possible: Tensor) -> None:
        wrong = possible & ~self.cost.isfinite()
        if wrong.any():
            place = wrong.nonzero()[0].tolist()
            z = self.support[tuple(place)].tolist()
            raise ValueError(
                f"f must return finite costs, got {float(self.cost[tuple(place)])} for z = {z}"
            )

    @cached_property
    def slope(self) -> Tensor:
        """f's derivative on the support; 0 where f has no path."""
        z = self.support.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.f(z.view_as(z)).sum(), z, materialize_grads=True)
        return slope.double()

    def __call__(self, z: Tensor) -> Tensor:
        """Return costs [n, rows, *batch] of z [n, rows, *batch, *event], with f's slope."""
        tokens = tokens_of(self.kind, z.detach())
        flat = tokens.reshape(*z.shape[: 2 + len(self.batch)], -1)
        place = torch.zeros_like(flat[..., 0])
        for i in range(flat.shape[-1]):  # the support counts up, its last variable fastest
            place = place * self.values + flat[..., i]
        index = place.flatten(0, 1)
        cost = self.cost.gather(0, index).view(place.shape)
        if not z.requires_grad:
            return cost
        wide = index.reshape(*index.shape, *[1] * len(self.event)).expand(-1, *self.slope.shape[1:])
        slope = self.slope.gather(0, wide).view(z.shape)
        along = slope * (z - z.detach())
        return cost + (along.flatten(place.dim()).sum(-1) if self.event else along)


class Problem:
    """E[f(z)], and estimates of its gradient for the distribution's logits.

    Attributes:
        listed: f on the support, None where that is too large to be listed.
        gradient: the exact one, None likewise.
    """

    def __init__(self, f: Cost, distribution: Distribution) -> None:
        self.f, self.distribution = f, distribution
        self.kind: Any = type(distribution)
        self.logits = distribution.logits.detach().clone()  # which makes none of inference
        if not self.logits.numel():
            raise ValueError(f"distribution must have a variable to draw, got {distribution!r}")
        listable = self.kind in KINDS and distribution.support_size <= MAX_SUPPORT
        self.listed = Listed(f, self._with(self.logits)) if listable else None
        self.gradient: Tensor | None = None
        if self.listed is not None:
            rows = self.logits[None].double().requires_grad_()
            value = expect(self.listed, self._with(rows), "exact")
            (gradient,) = torch.autograd.grad(value.sum(), rows)
            self.gradient = gradient[0]

    def _with(self, logits: Tensor) -> Distribution:
        return self.kind(logits, event_dims=self.distribution.event_dims)

    def can_enumerate(self, estimator: Estimator, num_samples: int) -> bool:
        """Whether the moments of an estimate are sums over outcomes that are few enough."""
        traits = estimator.traits
        learning = traits.stateful and not estimator.frozen
        if self.listed is None or not traits.enumerable or learning:
            return False
        size = self.distribution.support_size**num_samples
        return size <= MAX_SUPPORT and size * num_samples * self.logits.numel() <= MAX_NUMBERS

    @property
    def draws(self) -> int:
        """How many independent draws the batch has."""
        return self.distribution.batch_shape.numel()

    def enumerate(self, estimator: Estimator, num_samples: int) -> tuple[Tensor, Tensor]:
        """Gradients [n, draws, numbers] of every outcome, and its probability [n, draws].

        In float64: rounding would be taken for a bias. The estimator's own parameters are cast.
        """
        assert self.listed is not None
        if isinstance(estimator, nn.Module):
            estimator = deepcopy(estimator).double()
        batch = len(self.distribution.batch_shape)
        noise, p = outcomes(self.kind, self.logits, num_samples, batch)
        rows = self.logits.double().expand(len(p), *self.logits.shape).clone().requires_grad_()
        value = expect(
            self.listed, self._with(rows), estimator, num_samples=num_samples, noise=noise
        )
        (gradients,) = torch.autograd.grad(value.sum(), rows)
        return gradients.reshape(len(p), self.draws, -1), p.reshape(len(p), -1)

    def sample(
        self, estimator: Estimator, num_samples: int, seed: int, f: Cost | None = None
    ) -> Tensor:
        """One estimate of the gradient; equal seeds draw equal numbers for every estimator.

        Raises:
            ValueError: a gradient that is not finite.
        """
        logits = self.logits.clone().requires_grad_()
        generator = torch.Generator(logits.device).manual_seed(seed)
        value = expect(
            f or self.f,
            self._with(logits),
            estimator,
            num_samples=num_samples,
            generator=generator,
        )
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        if not gradient.isfinite().all():
            raise ValueError(
                f"{estimator.name} must give a finite gradient, got {gradient.flatten().tolist()} "
                f"for seed {seed}"
            )
        return gradient.double()

    def count(self, estimator: Estimator, num_samples: int, seed: int) -> Count:
        """What one estimate asks of f; it raises where the estimator does not apply."""
        count = Count()
        self.sample(estimator, num_samples, seed, count.of(self.f))
        return count
