"""Estimators of the gradient of E[f(z)] for a discrete z, all behind one call, `expect`."""

from pgest.estimators.base import Estimator, LocalEstimator, Traits
from pgest.estimators.enumeration import Exact
from pgest.estimators.expectation import expect
from pgest.estimators.gates import HardConcrete
from pgest.estimators.gumbel import DecoupledSTGumbel, GumbelRao, GumbelSoftmax, STGumbel
from pgest.estimators.pathwise import HardPathwise, Pathwise
from pgest.estimators.registry import registry
from pgest.estimators.score import RLOO, MovingAverage, Reinforce, ScoreFunction
from pgest.estimators.straight_through import GappedST, ReinMax, StraightThrough

__all__ = [
    "RLOO",
    "DecoupledSTGumbel",
    "Estimator",
    "Exact",
    "GappedST",
    "GumbelRao",
    "GumbelSoftmax",
    "HardConcrete",
    "HardPathwise",
    "LocalEstimator",
    "MovingAverage",
    "Pathwise",
    "ReinMax",
    "Reinforce",
    "STGumbel",
    "ScoreFunction",
    "StraightThrough",
    "Traits",
    "expect",
    "registry",
]
