"""Bias and spread of estimates, relative to the true gradient: exact, or with standard errors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

TINY = 1e-300  # keeps a division by 0 away


@dataclass(frozen=True)
class Moments:
    """As the attributes of `Figures`."""

    bias: float
    bias_error: float
    spread: float
    spread_error: float
    along: tuple[float, float]


class Truth:
    """The true gradient [d], or calls [n, d] of an unbiased estimator whose mean stands for it."""

    def __init__(self, gradient: Tensor, calls: Tensor | None = None) -> None:
        self.gradient, self.calls = gradient, calls
        squared = gradient.square().sum()
        if calls is not None:  # the square of a mean exceeds that of what it estimates
            squared = (squared - calls.var(0).sum() / len(calls)).clamp_min(0)
        self.length = float(squared.sqrt()) or 1.0  # a gradient of 0 leaves figures absolute
        self.direction = gradient / gradient.norm().clamp_min(TINY)

    def enumerated(self, gradients: Tensor, p: Tensor) -> Moments:
        """Exact moments of all outcomes [n, B, k] of B independent draws, of probability [n, B]."""
        p = p[..., None]
        mean = (p * gradients).sum(0)
        spread = (p * (gradients - mean) ** 2).sum().sqrt()
        direction = self.direction.view_as(mean)
        along = ((gradients - mean) * direction).sum(-1, keepdim=True)
        across = (p * along**2).sum().sqrt()  # independent draws: variances add up
        bias = mean.flatten() - self.gradient
        return self._relative(bias.norm(), 0, spread, 0, (mean * direction).sum(), across)

    def drawn(self, gradients: Tensor) -> Moments:
        """Moments of calls [n, d], estimated; the bias without what the noise of its mean adds."""
        n, along = len(gradients), gradients @ self.direction
        squares = (gradients - gradients.mean(0)).square().sum(1)
        spread = (squares.sum() / (n - 1)).sqrt()
        spread_error = squares.std() / n**0.5 / (2 * spread.clamp_min(TINY))
        differences = gradients - (self.gradient if self.calls is None else self.calls)
        mean = differences.mean(0)
        bias = (mean.square().sum() - differences.var(0).sum() / n).clamp_min(0).sqrt()
        bias_error = (bias**2 + _error_of_square(differences, mean)).sqrt() - bias
        return self._relative(bias, bias_error, spread, spread_error, along.mean(), along.std())

    def _relative(self, *found: Tensor | float) -> Moments:
        bias, bias_error, spread, spread_error, *along = (float(x) / self.length for x in found)
        return Moments(bias, bias_error, spread, spread_error, (along[0], along[1]))


def _error_of_square(calls: Tensor, mean: Tensor) -> Tensor:
    """Standard error of |mean|^2 - tr(C) / n, where C is the covariance of the calls [n, d].

    Its variance is 4 <b, C b> / n + 2 tr(C^2) / n^2 with b the mean: the second term is what is
    left where there is no bias.
    """
    n, apart = len(calls), calls - mean
    along = (apart @ mean).square().sum() / (n - 1)
    products = apart @ apart.T if n <= calls.shape[1] else apart.T @ apart
    # Over all pairs, less each call with itself, which has no part in tr(C^2).
    pairs = products.square().sum() - apart.square().sum(1).square().sum()
    return (4 * along / n + 2 * pairs.clamp_min(0) / n**4).sqrt()
