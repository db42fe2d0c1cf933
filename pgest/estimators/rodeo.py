"""Control variates from discrete Stein operators, by rank-1 algebra."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from pgest.advantages import leave_one_out
from pgest.distributions import Bernoulli, Relaxable
from pgest.distributions.base import finite
from pgest.estimators.base import Traits
from pgest.estimators.slopes import SlopeControl, event_sum
from pgest.estimators.taylor import mean_of, of_others


class Rodeo(SlopeControl):
    """RODEO: leave-one-out with control variates that a Stein operator makes out of slopes.

        (A h)(z) = sum_i P(z_i changes) (h(z with bit i flipped) - h(z)),   E[A h] = 0 for every h
        gradient = 1/S sum_s (v_s grad log p(z_s) + beta (A h_s grad log p)(z_s))
        v_s = f(z_s) - mean over r != s of (f(z_r) + alpha (A h_r)(z_r))

    where P(z_i changes) is that of drawing bit i anew, and h_s(z) = <g_s, z - m> is the tangent at
    the mean m with the slope g_s, the mean of f' at the other samples; or what `control` makes of
    it. Unbiased for any alpha, beta and control: 0 is `rloo`. For linear f, alpha = 1 leaves no
    variance in the baselines, and beta = 1/2 no products of different bits, so that the variance of
    a bit's gradient does not grow with the number of bits.

    No neighbour is ever made: flipping bit i changes <g, z> by (1 - 2 z_i) g_i, and the sum over i
    of h_i (z with i flipped - m) is (z - m) sum h + h (1 - 2 z).

    Args:
        control: a module, numbers [..., 2] -> [..., 2]: from the tangent at a point and the mean
            cost of the other samples to the two functions h that alpha and beta multiply. It sees S
            B (D + 1) points. Its parameters are learned with the others.
        alpha, beta: to begin with. The paper's operator is a mean over i, this one a sum: its alpha
            is D times this one.
        learn: whether they are parameters, with a `fit_loss` in eager code; the registry's name has
            constants.

    Cost: S evaluations of f in one call, and a backward pass of it; O(S B D) beside it. Memory:
    some numbers for each bit of a sample.

    Source: Shi, Zhou, Hwang, Titsias and Mackey (2022), Gradient estimation with discrete Stein
    operators, arXiv 2202.09497; the operator is its Barker one.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        >>> estimator = pgest.estimators.Rodeo(net)
        >>> bits = pgest.Bernoulli(torch.zeros(5, 3, requires_grad=True), event_dims=1)
        >>> cost = lambda z: (z.sum(-1) - 1) ** 2
        >>> pgest.expect(cost, bits, estimator, num_samples=4).mean().backward()
        >>> estimator.fit_loss.backward()
        >>> net[0].weight.grad.shape
        torch.Size([8, 2])
    """

    name: ClassVar[str] = "rodeo"
    traits: ClassVar[Traits] = Traits(
        unbiased=True,
        needs_path=True,
        distributions=(Bernoulli,),
        min_samples=2,
        enumerable=True,
    )
    alpha: Tensor
    beta: Tensor

    def __init__(
        self,
        control: nn.Module | None = None,
        alpha: float = 1.0,
        beta: float = 0.5,
        *,
        learn: bool = True,
    ) -> None:
        super().__init__()
        self.control = control
        self.hold(learn, alpha=alpha, beta=beta)

    def coefficients(
        self, cost: Tensor, z: Tensor, slope: Tensor, distribution: Relaxable
    ) -> tuple[Tensor, Tensor]:
        """Return the weights of the scores, and what is left of the operator beside them."""
        mean = mean_of(distribution).detach()
        others, known = of_others(slope), of_others(cost)
        at = event_sum(distribution, others * (z - mean))
        turn = 1 - 2 * z  # what flipping adds to a bit
        changes = torch.where(z > 0, (-distribution.logits.detach()), distribution.logits.detach())
        changes = changes.to(z.dtype).sigmoid()

        def wide(x: Tensor) -> Tensor:
            return x.reshape(*x.shape, *[1] * len(distribution.event_shape))

        h, h_score = self._functions(at, known)
        flipped, flipped_score = self._functions(wide(at) + turn * others, wide(known))
        steined = event_sum(distribution, changes * (flipped - wide(h)))
        base = leave_one_out(cost + self.alpha * steined) - self.alpha * steined
        along = event_sum(distribution, changes * (flipped_score - wide(h_score)))
        beside = (changes * flipped_score * turn).mean(0)
        return base + self.beta * along, self.beta * beside

    def carrier(self, distribution: Relaxable) -> Tensor:
        """The logits, which are the score's own parameters."""
        return finite(distribution.logits)

    def _functions(self, tangent: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        if self.control is None:
            return tangent, tangent
        h: Tensor = self.control(torch.stack([tangent, known.expand(tangent.shape)], -1))
        first, second = h.unbind(-1)
        return first, second
