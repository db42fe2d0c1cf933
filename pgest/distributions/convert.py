"""torch.distributions objects, taken as they are."""

from __future__ import annotations

from typing import Any

import torch.distributions as td

from pgest.distributions.base import Distribution
from pgest.distributions.bernoulli import Bernoulli
from pgest.distributions.categorical import Categorical
from pgest.distributions.one_hot import OneHotCategorical

_COUNTERPARTS: dict[type, type[Bernoulli] | type[Categorical] | type[OneHotCategorical]] = {
    td.Bernoulli: Bernoulli,
    td.Categorical: Categorical,
    td.OneHotCategorical: OneHotCategorical,
}


def as_distribution(distribution: Any) -> Distribution:
    """Return pgest's distribution for one of torch.distributions; pgest's own pass unchanged.

    `Independent(d, n)` becomes `event_dims=n`. The result shares the logits, so that gradients
    reach what the user's distribution was built from, its `probs` included. Built from `probs`, it
    keeps torch's clamp: a probability of 0 becomes about 1e-7, and is drawn as rarely.

    Raises:
        TypeError: for anything else, by name.

    Example:
        >>> bits = torch.distributions.Bernoulli(logits=torch.zeros(3, 4))
        >>> as_distribution(torch.distributions.Independent(bits, 1))
        Bernoulli(logits (3, 4), event_dims=1)
    """
    if isinstance(distribution, Distribution):
        return distribution
    inner, event_dims = distribution, 0
    while isinstance(inner, td.Independent):
        event_dims += inner.reinterpreted_batch_ndims
        inner = inner.base_dist
    # The exact type: a subclass may sample or score differently.
    counterpart = _COUNTERPARTS.get(type(inner))
    if counterpart is None:
        names = ", ".join(c.__name__ for c in _COUNTERPARTS.values())
        raise TypeError(
            f"distribution must be one of {names}, of pgest or of torch.distributions, the latter "
            f"also inside Independent, got {type(inner).__name__}"
        )
    converted = counterpart(inner.logits, event_dims)
    converted.from_torch = True
    return converted
