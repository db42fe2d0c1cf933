"""Bias and spread of estimates, relative to the true gradient: exact, or with standard errors."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, isfinite

from torch import Tensor

TINY = 1e-300  # keeps a division by 0 away
ROUNDING = 1e-9  # a relative bias below it is that of sums in float64
RESOLVED = 3  # standard errors of its own that the square of the true gradient must exceed


@dataclass(frozen=True)
class Moments:
    """As the attributes of `Figures`."""

    bias: float
    bias_error: float
    spread: float
    spread_error: float
    along: tuple[float, float]
    reference: bool = False


class Truth:
    """The true gradient [d], or calls [n, d] of an unbiased estimator whose mean stands for it.

    Attributes:
        length: of the gradient; 0 where it is no longer than `resolution`, None where it is lost in
            the noise of the calls. Moments are relative to it, and absolute in these two cases.
        length_error: its relative standard error.
        rounding: what is smaller is taken for 0, in the moments' unit.
    """

    def __init__(
        self, gradient: Tensor, calls: Tensor | None = None, resolution: float = 0.0
    ) -> None:
        self.gradient, self.calls = gradient, calls
        self.direction = gradient / gradient.norm().clamp_min(TINY)
        self.length: float | None = float(gradient.norm())
        self.length_error = 0.0
        if calls is not None:
            square, error = (float(x) for x in _square_of_mean(calls))
            resolved = square > RESOLVED * error
            self.length = square**0.5 if resolved else None
            self.length_error = error / (2 * square) if resolved else 0.0
        elif self.length <= resolution:
            self.length = 0.0
        self._unit = self.length or 1.0
        self.rounding = resolution / self._unit
        if self.length:
            self.rounding = max(ROUNDING, self.rounding)

    def enumerated(self, gradients: Tensor, p: Tensor) -> Moments:
        """Exact moments of all outcomes [n, B, k] of B independent draws, of probability [n, B]."""
        p = p[..., None]
        mean = (p * gradients).sum(0)
        spread = (p * (gradients - mean) ** 2).sum().sqrt()
        direction = self.direction.view_as(mean)
        along = ((gradients - mean) * direction).sum(-1, keepdim=True)
        across = (p * along**2).sum().sqrt()  # independent draws: variances add up
        bias = mean.flatten() - self.gradient
        return self._relative(bias.norm(), 0.0, spread, 0.0, (mean * direction).sum(), across)

    def drawn(self, gradients: Tensor) -> Moments:
        """Moments of calls [n, d], estimated; the bias without what the noise of its mean adds."""
        n, along = len(gradients), gradients @ self.direction
        squares = (gradients - gradients.mean(0)).square().sum(1)
        spread = (squares.sum() / (n - 1)).sqrt()
        spread_error = squares.std() / n**0.5 / (2 * spread.clamp_min(TINY))
        differences = gradients - (self.gradient if self.calls is None else self.calls)
        square, error = _square_of_mean(differences)
        bias = square.clamp_min(0).sqrt()
        bias_error = (bias**2 + error).sqrt() - bias
        # The estimates are the reference's own, call by call: nothing is known of their bias.
        itself = self.calls is not None and bool(differences.norm() <= ROUNDING * gradients.norm())
        if itself:
            bias, bias_error = bias.new_zeros(2)
        means = along.mean(), along.std()
        return self._relative(bias, bias_error, spread, spread_error, *means, reference=itself)

    def same(self, gradients: Tensor) -> bool:
        """Whether calls [n, d] differ by no more than rounding."""
        apart = (gradients - gradients[0]).norm(dim=1).max()
        return float(apart) <= self.rounding * self._unit

    def _relative(self, *found: Tensor | float, reference: bool = False) -> Moments:
        bias, bias_error, spread, spread_error, mean, across = (
            float(x) / self._unit for x in found
        )
        if not (isfinite(bias) and isfinite(spread)):
            raise ValueError(f"estimates must be finite, got bias {bias} and deviation {spread}")
        bias, spread = (0.0 if x <= self.rounding else x for x in (bias, spread))
        bias_error = hypot(bias_error, bias * self.length_error)
        spread_error = hypot(spread_error, spread * self.length_error) if spread else 0.0
        return Moments(bias, bias_error, spread, spread_error, (mean, across), reference)


def _square_of_mean(calls: Tensor) -> tuple[Tensor, Tensor]:
    """|b|^2 of the mean b that calls [n, d] estimate, and its standard error.

    The square of their mean m is too large by tr(C) / n, C the covariance of a call. The variance
    of what is left is 4 <b, C b> / n + 2 tr(C^2) / n^2, and <m, C m> is too large by tr(C^2) / n.
    """
    n, mean = len(calls), calls.mean(0)
    apart = calls - mean
    squares = apart.square().sum(1)
    products = apart @ apart.T if n <= calls.shape[1] else apart.T @ apart
    # tr(C^2) over all pairs of calls, without each one's with itself; since what is left of them
    # adds up to 0, the pairs' products have a mean, whose square is no part of it either.
    pairs = products.square().sum() - squares.square().sum() - squares.sum() ** 2 / (n * (n - 1))
    trace = pairs.clamp_min(0) / (n * (n - 1))
    along = (apart @ mean).square().sum() / (n - 1)
    variance = 4 * (along - trace / n).clamp_min(0) / n + 2 * trace / n**2
    return mean.square().sum() - squares.sum() / (n * (n - 1)), variance.sqrt()
