"""Estimators of the gradient of E[f(z)] for a discrete z, all behind one call, `expect`."""

from pgest.estimators.base import Estimator, LocalEstimator, Traits
from pgest.estimators.baselines import Constant, MovingAverage, SelfCritical
from pgest.estimators.enumeration import Exact
from pgest.estimators.expectation import expect
from pgest.estimators.nvil import NVIL
from pgest.estimators.pathwise import GumbelSoftmax, Pathwise, StraightThrough
from pgest.estimators.registry import registry
from pgest.estimators.score import RLOO, Reinforce, ScoreFunction

__all__ = [
    "NVIL",
    "RLOO",
    "Constant",
    "Estimator",
    "Exact",
    "GumbelSoftmax",
    "LocalEstimator",
    "MovingAverage",
    "Pathwise",
    "Reinforce",
    "ScoreFunction",
    "SelfCritical",
    "StraightThrough",
    "Traits",
    "expect",
    "registry",
]
