"""The score-function family: samples with weights. Unbiased for any f, which may be a black box."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pgest.advantages import leave_one_out
from pgest.distributions import Distribution
from pgest.estimators.base import LocalEstimator, Traits
from pgest.estimators.first_order import add_surrogate


class ScoreFunction(LocalEstimator):
    """Estimators that are a weight for each sample.

        gradient = 1/S sum_s weight_s grad log p(z_s),   where E[f grad log p] = grad E[f]

    A subclass implements `weight`. Samples, costs and weights are detached, so what a weight rule
    learns from them cannot reach the model, nor the model's loss what it learns.

    Memory: one log-probability, cost and weight a sample.
    """

    def draw(
        self,
        distribution: Distribution,
        sample_shape: Sequence[int],
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return independent samples, detached."""
        return distribution.sample(sample_shape, generator=generator, noise=noise)

    def attach(
        self, value: Tensor, distribution: Distribution, sample: Tensor, cost: Tensor
    ) -> Tensor:
        """Return `value` with the estimate added to its gradient, which is of first order only."""
        weight = self.weight(cost.detach()).detach()
        if weight.shape != cost.shape:
            raise ValueError(
                f"{self.name}.weight must return shape {tuple(cost.shape)}, one weight for each "
                f"cost, got {tuple(weight.shape)}"
            )
        score = distribution.score(sample)
        score = score.reshape(*score.shape, *[1] * (cost.dim() - score.dim()))
        surrogate = (weight * score).mean(0)
        return add_surrogate(value, surrogate, self.name)

    @abstractmethod
    def weight(self, cost: Tensor) -> Tensor:
        """Return the weight of each sample, [S, *batch_shape], from the costs of all, detached.

        Unbiased if what it subtracts from a cost does not depend on that sample.
        """


class Reinforce(ScoreFunction):
    """REINFORCE: the weight of a sample is its cost.

        gradient = 1/S sum_s f(z_s) grad log p(z_s)

    One evaluation of f is enough, but the variance grows with the size of f: adding a constant to
    f changes it.

    Source: Williams (1992), Simple statistical gradient-following algorithms.

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> value = pgest.expect(lambda z: z.sum(-1), bits, "reinforce")
        >>> value.sum().backward()
        >>> value.shape, logits.grad.shape
        (torch.Size([2]), torch.Size([2, 3]))
    """

    name: ClassVar[str] = "reinforce"
    traits: ClassVar[Traits] = Traits(unbiased=True, enumerable=True)

    def weight(self, cost: Tensor) -> Tensor:
        """Return the cost."""
        return cost


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


class RLOO(ScoreFunction):
    """REINFORCE, leave one out: the baseline of a sample is the mean cost of the others.

        weight_s = f(z_s) - 1/(S-1) sum_{r != s} f(z_r)

    Needs S >= 2 samples. Unbiased, and adding a constant to f changes nothing: the first one to
    try where f is a black box.

    Source: Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a baseline for free!

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> bits = pgest.Bernoulli(logits, event_dims=1)
        >>> value = pgest.expect(lambda z: (z.sum(-1) - 1) ** 2, bits, "rloo", num_samples=4)
        >>> value.sum().backward()
        >>> logits.grad.shape
        torch.Size([2, 3])
    """

    name: ClassVar[str] = "rloo"
    traits: ClassVar[Traits] = Traits(unbiased=True, min_samples=2, enumerable=True)

    def weight(self, cost: Tensor) -> Tensor:
        """Return the cost minus the mean cost of the other samples."""
        return leave_one_out(cost)
