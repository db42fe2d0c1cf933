"""Gradients through discrete choices, for PyTorch."""

from pgest import distributions, estimators, objectives
from pgest.distributions import Bernoulli, Categorical, OneHotCategorical
from pgest.estimators import expect
from pgest.ops import (
    TokenStats,
    backend,
    build_info,
    linear_objective,
    linear_token_stats,
    row_threshold,
    selective_log_softmax,
    selective_log_softmax_and_entropy,
    token_logp,
    token_stats,
)
from pgest.trace import Trace

__version__ = "0.1.0"

__all__ = [
    "Bernoulli",
    "Categorical",
    "OneHotCategorical",
    "TokenStats",
    "Trace",
    "__version__",
    "backend",
    "build_info",
    "distributions",
    "estimators",
    "expect",
    "linear_objective",
    "linear_token_stats",
    "objectives",
    "row_threshold",
    "selective_log_softmax",
    "selective_log_softmax_and_entropy",
    "token_logp",
    "token_stats",
]
