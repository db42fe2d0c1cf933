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
from pgest.estimators.measure_valued import MeasureValued
from pgest.estimators.minimum_variance import MVE
from pgest.estimators.nvil import NVIL
from pgest.estimators.pathwise import HardPathwise, Pathwise
from pgest.estimators.perturbation import SPSA, EvolutionStrategies, FiniteDifferences, Perturbed
from pgest.estimators.registry import registry
from pgest.estimators.relaxed_control import Rebar, Relax, Relaxing
from pgest.estimators.rodeo import Rodeo
from pgest.estimators.score import RLOO, Reinforce, ScoreFunction
from pgest.estimators.slopes import Learned, SlopeControl
from pgest.estimators.sparse import Entmax15, SparseExpectation, Sparsemax
from pgest.estimators.spread import Antithetic, Stratified
from pgest.estimators.straight_through import GappedST, ReinMax, StraightThrough
from pgest.estimators.sum_and_sample import SumAndSample
from pgest.estimators.swaps import ARSM
from pgest.estimators.taylor import DoubleCV, MuProp
from pgest.estimators.without_replacement import (
    Distinct,
    NormalisedWithoutReplacement,
    UnorderedSet,
    WithoutReplacement,
)

__all__ = [
    "ARM",
    "ARMS",
    "ARSM",
    "MVE",
    "NVIL",
    "RLOO",
    "SPSA",
    "Antithetic",
    "Constant",
    "CoupledBits",
    "DecoupledSTGumbel",
    "DiCE",
    "DisARM",
    "Distinct",
    "DoubleCV",
    "Entmax15",
    "Estimator",
    "EvolutionStrategies",
    "Exact",
    "FiniteDifferences",
    "GappedST",
    "GumbelRao",
    "GumbelSoftmax",
    "HardConcrete",
    "HardPathwise",
    "Learned",
    "LocalEstimator",
    "MeasureValued",
    "MovingAverage",
    "MuProp",
    "NormalisedWithoutReplacement",
    "Pathwise",
    "Perturbed",
    "Rebar",
    "ReinMax",
    "Reinforce",
    "Relax",
    "Relaxing",
    "Rodeo",
    "STGumbel",
    "ScoreFunction",
    "SelfCritical",
    "SlopeControl",
    "SparseExpectation",
    "Sparsemax",
    "StraightThrough",
    "Stratified",
    "SumAndSample",
    "Traits",
    "UnorderedSet",
    "WithoutReplacement",
    "expect",
    "registry",
    "vimco",
]
