"""Bounds of several samples, whose logarithm is outside of the mean."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pgest.estimators.first_order import add_surrogate
from pgest.reference import statistics_dtype


def vimco(log_weight: Tensor, logp: Tensor) -> Tensor:
    """The bound of S samples, log of their mean weight, with the VIMCO gradient.

        bound = log 1/S sum_s w_s,   w_s = p(x, z_s) / q(z_s),   z_s ~ q
        gradient = sum_s (bound - bound_s) grad log q(z_s)  +  grad bound, the samples held

    where bound_s has the geometric mean of the others in the place of w_s. It is no expectation of
    a cost of one sample, so it is a function of its own rather than an estimator of `expect`. The
    estimate is unbiased for the gradient of E[bound], for the parameters of p and q alike.

    Args:
        log_weight: log w_s, [S, *batch_shape], with S >= 2; differentiable in p's and q's
            parameters where they have any. -inf is a sample that p excludes.
        logp: log q(z_s), likewise: what `log_prob` of the distribution that was drawn from returns.

    Returns:
        The bound [*batch_shape], at least float32, to be maximised: minimise its negative. It is
        -inf where all weights are 0, and credits no sample then. A second derivative raises, as
        that of any sampled estimate.

    Raises:
        TypeError, ValueError: what is no floating-point tensor [S, ...], or of different shapes.

    Memory: a few numbers a sample.

    Source: Mnih and Rezende (2016), arXiv 1602.06725; the bound is Burda, Grosse and Salakhutdinov
    (2016), arXiv 1509.00519.

    Example:
        >>> logits, x = torch.zeros(5, 3, requires_grad=True), torch.ones(5)
        >>> q = pgest.Bernoulli(logits, event_dims=1)
        >>> z = q.sample((4,))
        >>> logp = q.log_prob(z)
        >>> log_joint = -((z.sum(-1) - x) ** 2)
        >>> bound = pgest.estimators.vimco(log_joint - logp, logp)
        >>> (-bound).mean().backward()
        >>> bound.shape, logits.grad.shape
        (torch.Size([5]), torch.Size([5, 3]))
    """
    for name, x in (("log_weight", log_weight), ("logp", logp)):
        _check(name, x)
    if log_weight.shape != logp.shape:
        raise ValueError(
            f"logp must have shape {tuple(log_weight.shape)} like log_weight, got "
            f"{tuple(logp.shape)}"
        )
    log_weight = log_weight.to(statistics_dtype(log_weight))
    samples = len(log_weight)
    bound = log_weight.logsumexp(0) - math.log(samples)
    signal = _signal(log_weight.detach())
    return add_surrogate(bound, (signal * logp).sum(0), "vimco")


def _signal(log_weight: Tensor) -> Tensor:
    """What each sample adds to the bound, [S, ...]: the bound less that without it."""
    geometric = _sum_of_others(log_weight) / (len(log_weight) - 1)
    nothing = torch.full_like(log_weight[:1], -torch.inf)
    # A sum of exponentials less one of them would cancel where that one is nearly all.
    before = torch.cat([nothing, log_weight[:-1].logcumsumexp(0)])
    after = torch.cat([log_weight[1:].flip(0).logcumsumexp(0).flip(0), nothing])
    without = before.logaddexp(after).logaddexp(geometric)
    # Where the others weigh nothing any number will do that does not depend on the sample.
    signal = log_weight.logsumexp(0) - torch.where(without.isneginf(), 0.0, without)
    return torch.where(signal.isneginf(), 0.0, signal)


def _sum_of_others(x: Tensor) -> Tensor:
    """The sum over all but one, for each, where infinities do not cancel: [S, ...]."""
    excluded = x.isneginf()
    kept = torch.where(excluded, 0.0, x)
    others_excluded = excluded.sum(0) - excluded.to(torch.int64) > 0
    return torch.where(others_excluded, -torch.inf, kept.sum(0) - kept)


def _check(name: str, x: Any) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        came = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {came}")
    if x.dim() == 0 or x.shape[0] < 2:
        raise ValueError(
            f"{name} must have shape (samples, *batch_shape) with at least 2 samples, got "
            f"{tuple(x.shape)}"
        )
