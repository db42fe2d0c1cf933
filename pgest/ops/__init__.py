"""The fused ops: what is imported from `pgest` and runs on a kernel, or on `pgest.reference`."""

from pgest.ops.library import backend, build_info
from pgest.ops.sampling import Sample, sample
from pgest.ops.stats import (
    TokenStats,
    selective_log_softmax,
    selective_log_softmax_and_entropy,
    token_logp,
    token_stats,
)
from pgest.ops.threshold import row_threshold

__all__ = [
    "Sample",
    "TokenStats",
    "backend",
    "build_info",
    "row_threshold",
    "sample",
    "selective_log_softmax",
    "selective_log_softmax_and_entropy",
    "token_logp",
    "token_stats",
]
