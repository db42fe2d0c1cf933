"""The fused ops: what is imported from `pgest` and runs on a kernel, or on `pgest.reference`."""

from pgest.ops.bits import BitStats, bit_stats, sample_bits
from pgest.ops.library import backend, build_info
from pgest.ops.relaxed import gumbel_softmax, straight_through
from pgest.ops.stats import (
    TokenStats,
    selective_log_softmax,
    selective_log_softmax_and_entropy,
    token_logp,
    token_stats,
)

__all__ = [
    "BitStats",
    "TokenStats",
    "backend",
    "bit_stats",
    "build_info",
    "gumbel_softmax",
    "sample_bits",
    "selective_log_softmax",
    "selective_log_softmax_and_entropy",
    "straight_through",
    "token_logp",
    "token_stats",
]
