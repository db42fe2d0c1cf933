"""The fused ops: what is imported from `pgest` and runs on a kernel, or on `pgest.reference`."""

from pgest.ops.bits import BitStats, bit_stats, sample_bits
from pgest.ops.library import backend, build_info
from pgest.ops.linear import linear_objective, linear_token_stats
from pgest.ops.relaxed import gumbel_softmax, straight_through
from pgest.ops.sampling import Sample, sample
from pgest.ops.stats import (
    TokenStats,
    selective_log_softmax,
    selective_log_softmax_and_entropy,
    token_logp,
    token_stats,
    token_stats_sum,
)
from pgest.ops.threshold import row_threshold

__all__ = [
    "BitStats",
    "Sample",
    "TokenStats",
    "backend",
    "bit_stats",
    "build_info",
    "gumbel_softmax",
    "linear_objective",
    "linear_token_stats",
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
