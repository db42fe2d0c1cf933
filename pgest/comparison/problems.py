"""Problems to compare estimators on, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from pgest.comparison.problem import Cost
from pgest.distributions import Bernoulli, Distribution, OneHotCategorical


@dataclass(frozen=True)
class Given:
    """A cost, a distribution and what to call them."""

    title: str
    f: Cost
    distribution: Distribution


def _row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _three_bits(z: Tensor) -> Tensor:
    return (z @ _row(1.0, -0.5, 0.7) + 2 * z[..., 0] * z[..., 1] - 0.6) ** 3 + z[..., 2]


problems: Mapping[str, Given] = MappingProxyType(
    {
        "one-bit": Given(
            "one bit, (z - 0.45)²",
            lambda z: ((z - 0.45) ** 2).sum(-1),
            Bernoulli(_row(0.75).logit(), event_dims=1),
        ),
        "three-bits": Given(
            "three bits, a cubic", _three_bits, Bernoulli(_row(0.3, -1.1, 0.8), event_dims=1)
        ),
        "one-of-three": Given(
            "one of three, a quartic",
            lambda z: (z @ _row(1.0, -1.2, 0.4)) ** 4,
            OneHotCategorical(_row(0.3, -0.8, 0.5)),
        ),
        # Tucker et al. (2017) and later papers; too many bits to list.
        "many-bits": Given(
            "200 bits, the mean of (z - 0.499)²",
            lambda z: ((z - 0.499) ** 2).mean(-1),
            Bernoulli(torch.zeros(200, dtype=torch.float64), event_dims=1),
        ),
    }
)
