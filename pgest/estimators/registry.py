"""Names for the estimators that keep no state."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pgest.estimators.base import Estimator, Traits
from pgest.estimators.baselines import SelfCritical
from pgest.estimators.coupled import ARM, ARMS, DisARM
from pgest.estimators.dice import DiCE
from pgest.estimators.enumeration import Exact
from pgest.estimators.gates import HardConcrete
from pgest.estimators.gumbel import DecoupledSTGumbel, GumbelRao, GumbelSoftmax, STGumbel
from pgest.estimators.measure_valued import MeasureValued
from pgest.estimators.minimum_variance import MVE
from pgest.estimators.perturbation import SPSA, EvolutionStrategies, FiniteDifferences
from pgest.estimators.rodeo import Rodeo
from pgest.estimators.score import RLOO, Reinforce
from pgest.estimators.sparse import Entmax15, Sparsemax
from pgest.estimators.spread import Antithetic, Stratified
from pgest.estimators.straight_through import GappedST, ReinMax, StraightThrough
from pgest.estimators.sum_and_sample import SumAndSample
from pgest.estimators.swaps import ARSM
from pgest.estimators.taylor import DoubleCV, MuProp
from pgest.estimators.without_replacement import (
    NormalisedWithoutReplacement,
    UnorderedSet,
    WithoutReplacement,
)

registry: Mapping[str, Estimator] = MappingProxyType(
    {
        # Score function
        "reinforce": Reinforce(),
        "rloo": RLOO(),
        "self_critical": SelfCritical(),
        "dice": DiCE(),
        # Coupled samples
        "arm": ARM(),
        "disarm": DisARM(),
        "arms": ARMS(),
        "arsm": ARSM(),
        "antithetic": Antithetic(),
        "stratified": Stratified(),
        # Control variates
        "muprop": MuProp(),
        "double_cv": DoubleCV(learn=False),
        "rodeo": Rodeo(learn=False),
        # Less sampling
        "exact": Exact(),
        "sum_and_sample": SumAndSample(),
        "without_replacement": WithoutReplacement(),
        "normalised_without_replacement": NormalisedWithoutReplacement(),
        "unordered_set": UnorderedSet(),
        "measure_valued": MeasureValued(),
        "sparsemax": Sparsemax(),
        "entmax15": Entmax15(),
        # Relaxed and straight-through
        "straight_through": StraightThrough(),
        "reinmax": ReinMax(),
        "mve": MVE(),
        "gapped_st": GappedST(),
        "gumbel_softmax": GumbelSoftmax(),
        "st_gumbel": STGumbel(),
        "decoupled_st_gumbel": DecoupledSTGumbel(),
        "gumbel_rao": GumbelRao(),
        "hard_concrete": HardConcrete(),
        # Yardsticks
        "finite_differences": FiniteDifferences(),
        "spsa": SPSA(),
        "evolution_strategies": EvolutionStrategies(),
    }
)

# What others call them, in lower case and without separators; one word for one thing, so that
# these are told the word.
ELSEWHERE = {
    "loorf": "rloo",
    "u2g": "disarm",
    "zgr": "reinmax",
    "gumbelsoftmaxhard": "st_gumbel",
    "straightthroughgumbelsoftmax": "st_gumbel",
    "stgs": "st_gumbel",
    "gst": "gapped_st",
    "concrete": "gumbel_softmax",
    "st": "straight_through",
}
# What is no name, spelled likewise, and what to write instead.
_INSTANCES = {
    "constant": "give it the number, pgest.estimators.Constant(1.5)",
    "movingaverage": "it keeps state: make one pgest.estimators.MovingAverage() and pass it to "
    "every call",
    "nvil": "make one pgest.estimators.NVIL(net) and pass nvil.given(x) to every call",
    "rebar": "it learns: make one pgest.estimators.Rebar() and pass it to every call",
    "relax": "give it what it learns, pgest.estimators.Relax(net), and pass it to every call",
}


# What is left out, and what comes closest.
_ABSENT = {
    "carms": "'arms' couples samples of tokens, along a tree of bits",
    "reinmaxrao": "'gumbel_rao' takes the noise out of 'st_gumbel', and 'reinmax' has none",
    "reinmaxcv": "'double_cv' corrects with slopes, without bias",
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
        spelled = estimator.replace("-", "").replace("_", "").lower()
        if spelled in ELSEWHERE:
            raise ValueError(f"estimator {estimator!r} is called {ELSEWHERE[spelled]!r} here")
        if spelled in _INSTANCES:
            raise ValueError(
                f"estimator must be an instance, got {estimator!r}: {_INSTANCES[spelled]}"
            )
        if spelled in _ABSENT:
            raise ValueError(f"estimator {estimator!r} is not here: {_ABSENT[spelled]}")
        if spelled == "vimco":
            raise ValueError(
                "estimator 'vimco' bounds a logarithm, which is no E[f]: call "
                "pgest.estimators.vimco(log_weight, logp)"
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
