"""Estimators of the gradient of E[f(z)] for a discrete z, all behind one call, `expect`."""

from pgest.estimators.base import Estimator, LocalEstimator, Traits
from pgest.estimators.enumeration import Exact
from pgest.estimators.expectation import expect
from pgest.estimators.pathwise import GumbelSoftmax, Pathwise, StraightThrough
from pgest.estimators.registry import registry
from pgest.estimators.score import RLOO, MovingAverage, Reinforce, ScoreFunction

__all__ = [
    "RLOO",
    "Estimator",
    "Exact",
    "GumbelSoftmax",
    "LocalEstimator",
    "MovingAverage",
    "Pathwise",
    "Reinforce",
    "ScoreFunction",
    "StraightThrough",
    "Traits",
    "expect",
    "registry",
]
