"""Gradients through discrete choices, for PyTorch."""

from pgest import advantages, comparison, distributions, estimators, objectives
from pgest.comparison import compare
from pgest.distributions import Bernoulli, Categorical, OneHotCategorical
from pgest.estimators import expect
from pgest.ops import (
    BitStats,
    Sample,
    TokenStats,
    backend,
    bit_stats,
    build_info,
    gumbel_softmax,
    linear_objective,
    linear_token_stats,
    row_threshold,
    sample,
    sample_bits,
    selective_log_softmax,
    selective_log_softmax_and_entropy,
    straight_through,
    token_logp,
    token_stats,
    token_stats_sum,
)
from pgest.trace import Trace

__version__ = "0.1.0"

__all__ = [
    "Bernoulli",
    "BitStats",
    "Categorical",
    "OneHotCategorical",
    "Sample",
    "TokenStats",
    "Trace",
    "__version__",
    "advantages",
    "backend",
    "bit_stats",
    "build_info",
    "compare",
    "comparison",
    "distributions",
    "estimators",
    "expect",
    "gumbel_softmax",
    "linear_objective",
    "linear_token_stats",
    "objectives",
    "row_threshold",
    "sample",
    "sample_bits",
    "selective_log_softmax",
    "selective_log_softmax_and_entropy",
    "straight_through",
    "token_logp",
    "token_stats",
    "token_stats_sum",
]
