"""Baselines without a second draw: a number, a running mean, the likeliest value."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pgest.advantages import self_critical
from pgest.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    OneHotCategorical,
    Relaxable,
)
from pgest.estimators.base import Cost, Estimator, Traits
from pgest.estimators.score import ScoreFunction, weigh


@dataclass(frozen=True, eq=False)  # tensors have no equality that is one truth value
class Constant(ScoreFunction):
    """REINFORCE with a baseline that the caller knows.

        weight_s = f(z_s) - baseline

    Unbiased whatever the baseline, as long as it does not come from the same samples; the best one
    is near E[f].

    Args:
        baseline: a number, or a tensor of one number, [*batch_shape] or [S, *batch_shape]. It is
            detached.

    Raises:
        TypeError, ValueError: a baseline that is no number or floating-point tensor, or of another
            shape.

    Source: Williams (1992), Simple statistical gradient-following algorithms.

    Example:
        >>> logits = torch.zeros(2, requires_grad=True)
        >>> known = pgest.estimators.Constant(7.0)
        >>> value = pgest.expect(lambda z: 7 + 0 * z, pgest.Bernoulli(logits), known)
        >>> value.sum().backward()
        >>> value.tolist(), logits.grad.abs().tolist()
        ([7.0, 7.0], [0.0, 0.0])
    """

    baseline: float | Tensor
    name: ClassVar[str] = "Constant"
    traits: ClassVar[Traits] = Traits(unbiased=True, enumerable=True)

    def __post_init__(self) -> None:
        if isinstance(self.baseline, Tensor) and self.baseline.is_floating_point():
            return
        if isinstance(self.baseline, bool) or not isinstance(self.baseline, Real):
            came = (
                self.baseline.dtype
                if isinstance(self.baseline, Tensor)
                else type(self.baseline).__name__
            )
            raise TypeError(f"baseline must be a number or a floating-point tensor, got {came}")

    def weight(self, cost: Tensor) -> Tensor:
        """Return the cost minus the baseline."""
        if not isinstance(self.baseline, Tensor):
            return cost - self.baseline
        return cost - beside(self.baseline.detach(), cost, "baseline")


class MovingAverage(ScoreFunction, nn.Module):
    """REINFORCE with a running mean of the costs as its baseline.

        weight_s = f(z_s) - baseline,   baseline = decayed mean of the costs of earlier calls

    The baseline is updated after its use, so that it never includes the present samples: unbiased
    with one evaluation of f. One instance serves one draw site: its mean is over the whole batch.

    Args:
        decay: the weight of the past, in [0, 1): the mean reaches about 1 / (1 - decay) calls back.

    The state is two numbers in buffers, saved with the module and moved with `.to`; `.eval()`
    freezes it, and so does `no_grad`: an evaluation does not move it. It is updated without a
    synchronisation, and not by a batch that is empty or whose mean is not finite. Until the first
    update the baseline is 0.

    Raises:
        ValueError: a decay outside [0, 1); use under torch.func's transforms unless frozen; a call
            within torch.utils.checkpoint, whose recomputation would see its own costs.

    Source: Williams (1992), reinforcement comparison.

    Example:
        >>> estimator = pgest.estimators.MovingAverage(decay=0.9)
        >>> bits = pgest.Bernoulli(torch.zeros(4, requires_grad=True))
        >>> _ = pgest.expect(lambda z: 5 + 0 * z, bits, estimator)
        >>> round(estimator.baseline.item(), 3)
        5.0
    """

    name: ClassVar[str] = "MovingAverage"
    traits: ClassVar[Traits] = Traits(unbiased=True, stateful=True, enumerable=True)
    decayed_sum: Tensor
    decayed_count: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        for name in ("decayed_sum", "decayed_count"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float32))

    def _apply(self, fn: Any, recurse: bool = True) -> MovingAverage:
        super()._apply(fn, recurse)
        # A model in a half type keeps its sums in float32: they would stop growing.
        self.decayed_sum, self.decayed_count = self.decayed_sum.float(), self.decayed_count.float()
        return self

    @property
    def baseline(self) -> Tensor:
        """The running mean, a 0-dimensional tensor; 0 before the first update."""
        return self.decayed_sum / self.decayed_count.clamp_min(1)

    def weight(self, cost: Tensor) -> Tensor:
        """Return the cost minus the baseline, and only then let the baseline see the cost."""
        weight = cost - self.baseline
        if self.training and torch.is_grad_enabled():
            self._check_no_backward()
            mean = cost.mean().float()
            counts = mean.isfinite()  # an infinite cost, or none at all, leaves the past as it was
            for past, new in ((self.decayed_sum, mean), (self.decayed_count, 1.0)):
                past.copy_(torch.where(counts, self.decay * past + new, past))
        return weight

    @property
    def frozen(self) -> bool:
        """Whether it is in evaluation mode."""
        return not self.training

    def _check_no_backward(self) -> None:
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            raise ValueError(
                f"{self.name} must not be recomputed in a backward pass, as torch.utils.checkpoint "
                "does: its baseline has seen these costs already; draw outside of the checkpoint"
            )

    def extra_repr(self) -> str:
        """Show the decay."""
        return f"decay={self.decay}"


class SelfCritical(Estimator):
    """REINFORCE with the cost of the likeliest value as its baseline (self-critical).

        weight_s = f(z_s) - f(z*),   z* = each variable's most probable value

    One more evaluation of f, in the same call: dimension 0 of z is S + 1, and z* comes last. It is
    no draw, so the estimate is unbiased; it has no gradient and is no part of the value. Good where
    the model is nearly certain, as late in the training of a policy.

    Memory: a copy of the samples, one log-probability, cost and weight a sample.

    Source: Rennie et al. (2017), arXiv 1612.00563.

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> tokens = pgest.Categorical(logits)
        >>> value = pgest.expect(lambda z: (z - 1.0) ** 2, tokens, "self_critical")
        >>> value.sum().backward()
        >>> logits.grad.shape
        torch.Size([2, 3])
    """

    name: ClassVar[str] = "self_critical"
    traits: ClassVar[Traits] = Traits(
        unbiased=True,
        evaluations="S + 1",
        enumerable=True,
        distributions=(Bernoulli, Categorical, OneHotCategorical),
    )

    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the mean cost of the samples, with the gradient attached."""
        sample = distribution.sample((num_samples,), generator=generator, noise=noise)
        cost = f(torch.cat([sample, _mode(distribution)[None]]))
        greedy, cost = cost[-1].detach(), cost[:-1]
        weight = self_critical(cost.detach(), greedy)
        return weigh(cost.mean(0), distribution, sample, weight, self.name)


def _mode(distribution: Distribution) -> Tensor:
    """The most probable value, [*batch_shape, *event_shape]."""
    if isinstance(distribution, Relaxable):
        return distribution.nearest(distribution.probs)
    return distribution.logits.argmax(-1)


def beside(baseline: Tensor, cost: Tensor, what: str) -> Tensor:
    """The baseline in the dtype of the costs; no shape is stretched, lest [B, 1] become [B, B]."""
    if baseline.shape not in ((), cost.shape[1:], cost.shape):
        expected = " or ".join(str(tuple(x)) for x in (cost.shape[1:], cost.shape))
        hint = "; drop its last dimension by squeeze(-1)" * (baseline.shape[-1:] == (1,))
        raise ValueError(
            f"{what} must have shape {expected}, one for each cost, got "
            f"{tuple(baseline.shape)}{hint}"
        )
    return baseline.to(cost.dtype)
