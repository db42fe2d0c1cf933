"""Names for the estimators that keep no state."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pgest.estimators.base import Estimator, Traits
from pgest.estimators.baselines import SelfCritical
from pgest.estimators.enumeration import Exact
from pgest.estimators.measure_valued import MeasureValued
from pgest.estimators.pathwise import GumbelSoftmax, StraightThrough
from pgest.estimators.perturbation import SPSA, EvolutionStrategies, FiniteDifferences
from pgest.estimators.rodeo import Rodeo
from pgest.estimators.score import RLOO, Reinforce
from pgest.estimators.sum_and_sample import SumAndSample
from pgest.estimators.taylor import DoubleCV, MuProp
from pgest.estimators.without_replacement import (
    NormalisedWithoutReplacement,
    UnorderedSet,
    WithoutReplacement,
)

registry: Mapping[str, Estimator] = MappingProxyType(
    {
        "reinforce": Reinforce(),
        "rloo": RLOO(),
        "self_critical": SelfCritical(),
        "exact": Exact(),
        "sum_and_sample": SumAndSample(),
        "without_replacement": WithoutReplacement(),
        "normalised_without_replacement": NormalisedWithoutReplacement(),
        "unordered_set": UnorderedSet(),
        "measure_valued": MeasureValued(),
        "muprop": MuProp(),
        "double_cv": DoubleCV(learn=False),
        "rodeo": Rodeo(learn=False),
        "finite_differences": FiniteDifferences(),
        "spsa": SPSA(),
        "evolution_strategies": EvolutionStrategies(),
        "straight_through": StraightThrough(),
        "gumbel_softmax": GumbelSoftmax(),
        "gumbel_softmax_hard": GumbelSoftmax(hard=True),
    }
)

# What is no name, as it is spelled without case and underscores, and what to write instead.
_INSTANCES = {
    "constant": "give it the number, pgest.estimators.Constant(1.5)",
    "movingaverage": "it keeps state: make one pgest.estimators.MovingAverage() and pass it to "
    "every call",
    "rebar": "it learns: make one pgest.estimators.Rebar() and pass it to every call",
    "relax": "give it what it learns, pgest.estimators.Relax(net), and pass it to every call",
    "nvil": "make one pgest.estimators.NVIL(net) and pass nvil.given(x) to every call",
}
_SYNONYMS = {"loorf": "rloo"}


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
        spelled = estimator.replace("_", "").lower()
        if spelled in _INSTANCES:
            raise ValueError(
                f"estimator must be an instance, got {estimator!r}: {_INSTANCES[spelled]}"
            )
        if spelled in _SYNONYMS:
            raise ValueError(
                f"estimator {estimator!r} goes by the name of {_SYNONYMS[spelled]!r} here"
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
