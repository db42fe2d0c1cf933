"""Estimators of the gradient of E[f(z)] for a discrete z, all behind one call, `expect`."""

from pgest.estimators.base import Estimator, LocalEstimator, Traits
from pgest.estimators.baselines import Constant, MovingAverage, SelfCritical
from pgest.estimators.enumeration import Exact
from pgest.estimators.expectation import expect
from pgest.estimators.measure_valued import MeasureValued
from pgest.estimators.nvil import NVIL
from pgest.estimators.pathwise import GumbelSoftmax, Pathwise, StraightThrough
from pgest.estimators.perturbation import SPSA, EvolutionStrategies, FiniteDifferences, Perturbed
from pgest.estimators.registry import registry
from pgest.estimators.relaxed_control import Rebar, Relax, Relaxing
from pgest.estimators.rodeo import Rodeo
from pgest.estimators.score import RLOO, Reinforce, ScoreFunction
from pgest.estimators.slopes import Learned, SlopeControl
from pgest.estimators.sum_and_sample import SumAndSample
from pgest.estimators.taylor import DoubleCV, MuProp
from pgest.estimators.without_replacement import (
    Distinct,
    NormalisedWithoutReplacement,
    UnorderedSet,
    WithoutReplacement,
)

__all__ = [
    "NVIL",
    "RLOO",
    "SPSA",
    "Constant",
    "Distinct",
    "DoubleCV",
    "Estimator",
    "EvolutionStrategies",
    "Exact",
    "FiniteDifferences",
    "GumbelSoftmax",
    "Learned",
    "LocalEstimator",
    "MeasureValued",
    "MovingAverage",
    "MuProp",
    "NormalisedWithoutReplacement",
    "Pathwise",
    "Perturbed",
    "Rebar",
    "Reinforce",
    "Relax",
    "Relaxing",
    "Rodeo",
    "ScoreFunction",
    "SelfCritical",
    "SlopeControl",
    "StraightThrough",
    "SumAndSample",
    "Traits",
    "UnorderedSet",
    "WithoutReplacement",
    "expect",
    "registry",
]
