"""A baseline that a network learns from the input."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from pgest.distributions import Distribution
from pgest.estimators.base import Estimator, Traits
from pgest.estimators.baselines import MovingAverage, beside
from pgest.estimators.score import ScoreFunction


class NVIL(ScoreFunction, nn.Module):
    """REINFORCE with a baseline that a network learns from the input (NVIL).

        weight_s = f(z_s) - net(x) - c,   c = decayed mean of f - net(x) over earlier calls
        fit_loss = mean over samples and batch of (f(z_s) - net(x) - c)^2

    Each call is given its input x: `pgest.expect(f, q, nvil.given(x))`, and at a draw of a trace
    likewise. Unbiased with one evaluation of f, since neither x nor what was learned before depends
    on the samples of the call. `fit_loss` is set on the module by each call, unless it is in
    evaluation mode, and is minimised beside the model's loss, as by an optimiser of its own: it
    touches the network alone, which the model's loss does not. One instance serves one draw site.

    Args:
        net: x -> baselines [*batch_shape], as a last layer with one output and squeeze(-1) give.
        decay: that of c, as in `MovingAverage`.
        normalise: divide the weight by max(1, d), d^2 = decayed mean of (f - net(x) - c)^2 over
            earlier calls. Part of the paper's method, and a bias: the estimate is on average the
            gradient over max(1, d), which matters beside gradients that are not divided, as those
            of f's own use of the distribution's parameters.

    Raises:
        ValueError: a call without `given`; baselines of another shape; else as `MovingAverage`.

    Memory: what autograd keeps of the network's pass over x.

    Source: Mnih and Gregor (2014), arXiv 1402.0030. They update c and d before their use, so that
    these include the present samples; here it is after.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(6, 1), torch.nn.Flatten(0))
        >>> nvil, encoder, x = pgest.estimators.NVIL(net), torch.nn.Linear(6, 3), torch.ones(5, 6)
        >>> bits = pgest.Bernoulli(encoder(x), event_dims=1)
        >>> value = pgest.expect(lambda z: (z.sum(-1) - x[:, 0]) ** 2, bits, nvil.given(x))
        >>> value.mean().backward()  # the encoder's gradient
        >>> nvil.fit_loss.backward()  # the baseline's
    """

    name: ClassVar[str] = "NVIL"
    traits: Traits = Traits(unbiased=True, stateful=True, enumerable=True)  # type: ignore[misc]

    def __init__(self, net: nn.Module, decay: float = 0.99, normalise: bool = False) -> None:
        super().__init__()
        self.net, self.normalise = net, normalise
        self.mean, self.square = MovingAverage(decay), MovingAverage(decay)
        if normalise:
            self.traits = Traits(unbiased=False, stateful=True, enumerable=True)

    def given(self, x: Any) -> ScoreFunction:
        """Return the estimator for one call, whose network sees x, an input of any kind."""
        return _Informed(self, x)

    @property
    def frozen(self) -> bool:
        """Whether it is in evaluation mode."""
        return not self.training

    def check(self, distribution: Distribution, num_samples: int) -> None:
        """Refuse a call without an input."""
        raise ValueError(f"{self.name} needs the input of its network: write nvil.given(x)")

    def weight(self, cost: Tensor) -> Tensor:
        """Never reached: `check` refuses."""
        raise AssertionError

    def weight_given(self, cost: Tensor, x: Any) -> Tensor:
        """Return the weights [S, *batch_shape], and set `fit_loss`."""
        baseline = self.net(_detached(x))
        if not isinstance(baseline, Tensor):
            raise TypeError(f"net must return a tensor, got {type(baseline).__name__}")
        residual = cost - beside(baseline, cost, f"what the net of {self.name} returns")
        scale = self.square.baseline.sqrt().clamp_min(1) if self.normalise else 1.0
        if self.training and torch.is_grad_enabled():
            self.fit_loss = (residual - self.mean.baseline).square().mean()
        centred = self.mean.weight(residual.detach())
        self.square.weight(centred.square())
        return centred / scale


class _Informed(ScoreFunction):
    """An NVIL with the input of one call."""

    def __init__(self, nvil: NVIL, x: Any) -> None:
        self.nvil, self.x = nvil, x
        self.name, self.traits = nvil.name, nvil.traits  # type: ignore[misc]

    @property
    def owner(self) -> Estimator:
        return self.nvil

    @property
    def frozen(self) -> bool:
        return self.nvil.frozen

    def weight(self, cost: Tensor) -> Tensor:
        return self.nvil.weight_given(cost, self.x)


def _detached(x: Any) -> Any:
    """Tensors without their graph, in whatever holds them."""
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, x)
