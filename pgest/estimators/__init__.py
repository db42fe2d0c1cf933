"""Estimators of the gradient of E[f(z)] for a discrete z, all behind one call, `expect`."""

from pgest.estimators.base import Estimator, LocalEstimator, Traits
from pgest.estimators.enumeration import Exact
from pgest.estimators.expectation import expect
from pgest.estimators.gates import HardConcrete
from pgest.estimators.gumbel import DecoupledSTGumbel, GumbelRao, GumbelSoftmax, STGumbel
from pgest.estimators.pathwise import HardPathwise, Pathwise
from pgest.estimators.registry import registry
from pgest.estimators.score import RLOO, MovingAverage, Reinforce, ScoreFunction
from pgest.estimators.sparse import Entmax15, SparseExpectation, Sparsemax
from pgest.estimators.straight_through import GappedST, ReinMax, StraightThrough

__all__ = [
    "RLOO",
    "DecoupledSTGumbel",
    "Entmax15",
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
    "SparseExpectation",
    "Sparsemax",
    "StraightThrough",
    "Traits",
    "expect",
    "registry",
]
