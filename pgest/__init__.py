"""Gradients through discrete choices, for PyTorch."""

from pgest import advantages, distributions, estimators, objectives
from pgest.distributions import Bernoulli, Categorical, OneHotCategorical
from pgest.estimators import expect
from pgest.ops import (
    Sample,
    TokenStats,
    backend,
    build_info,
    row_threshold,
    sample,
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
    "Sample",
    "TokenStats",
    "Trace",
    "__version__",
    "advantages",
    "backend",
    "build_info",
    "distributions",
    "estimators",
    "expect",
    "objectives",
    "row_threshold",
    "sample",
    "selective_log_softmax",
    "selective_log_softmax_and_entropy",
    "token_logp",
    "token_stats",
]
