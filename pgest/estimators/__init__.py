"""Estimators of the gradient of E[f(z)] for a discrete z, all behind one call, `expect`."""

from pgest.estimators.base import Estimator, LocalEstimator, Traits
from pgest.estimators.baselines import Constant, MovingAverage, SelfCritical
from pgest.estimators.bounds import vimco
from pgest.estimators.coupled import ARM, ARMS, CoupledBits, DisARM
from pgest.estimators.dice import DiCE
from pgest.estimators.enumeration import Exact
from pgest.estimators.expectation import expect
from pgest.estimators.gates import HardConcrete
from pgest.estimators.gumbel import DecoupledSTGumbel, GumbelRao, GumbelSoftmax, STGumbel
from pgest.estimators.nvil import NVIL
from pgest.estimators.pathwise import HardPathwise, Pathwise
from pgest.estimators.registry import registry
from pgest.estimators.score import RLOO, Reinforce, ScoreFunction
from pgest.estimators.sparse import Entmax15, SparseExpectation, Sparsemax
from pgest.estimators.spread import Antithetic, Stratified
from pgest.estimators.straight_through import GappedST, ReinMax, StraightThrough
from pgest.estimators.swaps import ARSM

__all__ = [
    "ARM",
    "ARMS",
    "ARSM",
    "NVIL",
    "RLOO",
    "Antithetic",
    "Constant",
    "CoupledBits",
    "DecoupledSTGumbel",
    "DiCE",
    "DisARM",
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
    "SelfCritical",
    "SparseExpectation",
    "Sparsemax",
    "StraightThrough",
    "Stratified",
    "Traits",
    "expect",
    "registry",
    "vimco",
]
