"""Exact expectation and variance of an estimator: every sample, weighted by its probability.

Each outcome becomes one row of a batch, so that one call of `expect` gives all estimates.
Samples are forced through `noise=`, hence by the code that users run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

import pgest
from benchmarks.noise import noise_for
from pgest.comparison.outcomes import Kind, table


@dataclass(frozen=True)
class Moments:
    """Exact mean and variance of a gradient estimate, and of the value beside it."""

    mean: Tensor
    variance: Tensor
    value: Tensor


def moments(
    kind: Kind,
    logits: Tensor,
    f: Callable[..., Tensor],
    estimator: Any,
    num_samples: int = 1,
    closes_over: bool = False,
    event_dims: int = 1,
) -> Moments:
    """The moments of `expect`'s gradient for logits of bits [...] or tokens [..., V].

    f takes z [S, rows, ...] and, where `closes_over`, a distribution over the rows' own logits too.
    Variables that `event_dims` leaves out are a batch within the row, whose values are summed.
    """
    noise, probability = noise_for(estimator, kind, logits, num_samples, event_dims)
    rows = logits.expand(len(probability), *logits.shape).clone().requires_grad_()
    q = kind(rows, event_dims=event_dims)
    cost = (lambda z: f(z, q)) if closes_over else f
    value = pgest.expect(cost, q, estimator, num_samples=num_samples, noise=noise)
    (estimates,) = torch.autograd.grad(value.sum(), rows)
    total = value.detach().flatten(1).sum(1) if value.dim() > 1 else value.detach()
    return weigh(probability, estimates.double(), total)


def weigh(probability: Tensor, estimates: Tensor, value: Tensor) -> Moments:
    """Moments over dimension 0, the outcomes."""
    assert (probability.sum() - 1).abs() < 1e-12
    p = probability.view(-1, *([1] * (estimates.dim() - 1)))
    mean = (p * estimates).sum(0)
    return Moments(mean, (p * (estimates - mean) ** 2).sum(0), (probability * value).sum(0))


def exact_gradient(
    kind: Kind,
    logits: Tensor,
    f: Callable[..., Tensor],
    closes_over: bool = False,
    event_dims: int = 1,
) -> tuple[Tensor, Tensor]:
    """E[f] and its gradient by brute force in plain PyTorch, without any of pgest's estimators."""
    leaf = logits.clone().requires_grad_()
    values, variables = table(kind, logits)
    total = torch.zeros((), dtype=logits.dtype)
    for outcome in product(range(values), repeat=variables.numel()):
        tokens = torch.tensor(outcome).view(variables)
        if kind is pgest.Bernoulli:
            z = tokens.to(logits.dtype)
            p = torch.where(tokens == 1, leaf.sigmoid(), 1 - leaf.sigmoid()).prod()
        else:
            p = leaf.softmax(-1).gather(-1, tokens[..., None]).prod()
            one_hot = torch.nn.functional.one_hot(tokens, logits.shape[-1]).to(logits.dtype)
            z = tokens if kind is pgest.Categorical else one_hot
        q = kind(leaf[None], event_dims=event_dims)
        cost = f(z[None, None], q) if closes_over else f(z[None, None])
        total = total + p * cost[0, 0].sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    return total.detach(), gradient


def assert_unbiased(found: Moments, value: Tensor, gradient: Tensor) -> None:
    """Value and gradient are right in expectation, to 1e-10."""
    bias = float((found.mean - gradient).abs().max())
    assert bias < 1e-10, f"biased by {bias}"
    assert (found.value - value).abs() < 1e-10
