"""The fused ops: what is imported from `pgest` and runs on a kernel, or on `pgest.reference`."""

from pgest.ops.library import backend, build_info
from pgest.ops.linear import linear_objective, linear_token_stats
from pgest.ops.stats import (
    TokenStats,
    selective_log_softmax,
    selective_log_softmax_and_entropy,
    token_logp,
    token_stats,
)
from pgest.ops.threshold import row_threshold

__all__ = [
    "TokenStats",
    "backend",
    "build_info",
    "linear_objective",
    "linear_token_stats",
    "row_threshold",
    "selective_log_softmax",
    "selective_log_softmax_and_entropy",
    "token_logp",
    "token_stats",
]
