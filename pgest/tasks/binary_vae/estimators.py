"""The estimators that can train the encoder, one for each model where they keep state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pgest.distributions import Bernoulli
from pgest.estimators import (
    NVIL,
    DoubleCV,
    Estimator,
    MovingAverage,
    Rebar,
    Relax,
    Rodeo,
    expect,
    registry,
)
from pgest.estimators.base import Cost, Traits

UNITS = 200
# Without those that list the values of a code or its neighbours: it has too many.
STATELESS = (
    *("reinforce", "rloo", "self_critical", "arm", "disarm", "arms", "antithetic", "stratified"),
    *("muprop", "straight_through", "reinmax", "gapped_st"),
    *("gumbel_softmax", "st_gumbel", "decoupled_st_gumbel", "gumbel_rao", "hard_concrete"),
    *("spsa", "evolution_strategies"),
)


def _perceptron(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, UNITS), nn.Tanh(), nn.Linear(UNITS, 1))


class Baseline(nn.Module):
    """A number for each image, [..., pixels] -> [...]: NVIL's."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.net = _perceptron(pixels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the baselines."""
        return self.net(x).squeeze(-1)


class Surrogate(nn.Module):
    """RELAX's control variate: the cost of the relaxed code and what a network adds to it.

    `cost` is set before each call: the model's own, with frozen weights.
    """

    cost: Cost

    def __init__(self, code: int) -> None:
        super().__init__()
        self.net = _perceptron(code)
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]

    def forward(self, relaxed: Tensor) -> Tensor:
        """Return c(r), [n, *code] -> [n, ...]."""
        return self.cost(relaxed) + self.net(2 * relaxed - 1).squeeze(-1)


LEARNED: Mapping[str, Callable[[int, int], Estimator]] = {
    "moving_average": lambda pixels, code: MovingAverage(),
    "nvil": lambda pixels, code: NVIL(Baseline(pixels)),
    "double_cv": lambda pixels, code: DoubleCV(),
    "rodeo": lambda pixels, code: Rodeo(),
    "rebar": lambda pixels, code: Rebar(),
    "relax": lambda pixels, code: Relax(Surrogate(code)),
}
NAMES = (*STATELESS, *LEARNED)
TEMPERED = tuple(name for name in STATELESS if hasattr(registry[name], "temperature"))


def make(name: str, temperature: float | None, pixels: int, code: int) -> Estimator:
    """Return the estimator of a name; each call makes another one of those that keep state."""
    if name in LEARNED:
        return LEARNED[name](pixels, code)
    if temperature is None:
        return registry[name]
    kind: Any = type(registry[name])
    return kind(temperature=temperature)


def traits(name: str) -> Traits:
    """Return what the estimator of a name declares."""
    return make(name, None, 1, 1).traits


def estimate(
    estimator: Estimator,
    cost: Cost,
    q: Bernoulli,
    x: Tensor,
    num_samples: int,
    generator: torch.Generator,
    frozen_cost: Cost,
) -> Tensor:
    """Return E[cost] under q, [*batch_shape], after telling the estimator what else it looks at.

    `frozen_cost` is the cost without a gradient for its weights.
    """
    chosen: Estimator = estimator
    if isinstance(estimator, NVIL):
        chosen = estimator.given(x)
    elif isinstance(estimator, Relax):
        assert isinstance(estimator.surrogate, Surrogate)
        estimator.surrogate.cost = frozen_cost
    return expect(cost, q, chosen, num_samples=num_samples, generator=generator)
