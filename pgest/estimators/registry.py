"""Names for the estimators that keep no state."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pgest.estimators.base import Estimator, Traits
from pgest.estimators.enumeration import Exact
from pgest.estimators.gates import HardConcrete
from pgest.estimators.gumbel import DecoupledSTGumbel, GumbelRao, GumbelSoftmax, STGumbel
from pgest.estimators.score import RLOO, Reinforce
from pgest.estimators.sparse import Entmax15, Sparsemax
from pgest.estimators.straight_through import GappedST, ReinMax, StraightThrough

registry: Mapping[str, Estimator] = MappingProxyType(
    {
        "reinforce": Reinforce(),
        "rloo": RLOO(),
        "exact": Exact(),
        "straight_through": StraightThrough(),
        "reinmax": ReinMax(),
        "gapped_st": GappedST(),
        "gumbel_softmax": GumbelSoftmax(),
        "st_gumbel": STGumbel(),
        "decoupled_st_gumbel": DecoupledSTGumbel(),
        "gumbel_rao": GumbelRao(),
        "hard_concrete": HardConcrete(),
        "sparsemax": Sparsemax(),
        "entmax15": Entmax15(),
    }
)

# What others call them; one word for one thing, so that these are told the word.
ELSEWHERE = {
    "zgr": "reinmax",
    "gumbel_softmax_hard": "st_gumbel",
    "straight_through_gumbel_softmax": "st_gumbel",
    "st_gs": "st_gumbel",
    "gst": "gapped_st",
    "concrete": "gumbel_softmax",
    "st": "straight_through",
}


def resolve(estimator: Any) -> Estimator:
    """Return the estimator that a name of the registry, or an instance, means.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor an instance.
    """
    if isinstance(estimator, Estimator):
        _check_declared(estimator)
        return estimator
    if isinstance(estimator, str):
        if estimator in registry:
            return registry[estimator]
        if (word := ELSEWHERE.get(estimator.replace("-", "_").lower())) is not None:
            raise ValueError(f"estimator {estimator!r} is called {word!r} here")
        if estimator.replace("_", "").lower() == "movingaverage":
            raise ValueError(
                f"estimator must be an instance where it keeps state, got {estimator!r}: make one "
                "pgest.estimators.MovingAverage() and pass it to every call"
            )
        names = ", ".join(registry)
        raise ValueError(f"estimator must be one of {names}, or an instance, got {estimator!r}")
    came = f"the class {estimator.__name__}" if isinstance(estimator, type) else repr(estimator)
    raise TypeError(f"estimator must be a name or an instance of an estimator, got {came}")


def _check_declared(estimator: Estimator) -> None:
    for attribute, kind, example in (
        ("name", str, 'name = "mine"'),
        ("traits", Traits, "traits = Traits(unbiased=True)"),
    ):
        if not isinstance(getattr(estimator, attribute, None), kind):
            raise TypeError(f"{type(estimator).__name__} must declare {attribute}, as {example}")
