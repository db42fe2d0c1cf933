"""Gradients through discrete choices, for PyTorch."""

from pgest import objectives
from pgest.ops import (
    TokenStats,
    backend,
    build_info,
    selective_log_softmax,
    selective_log_softmax_and_entropy,
    token_logp,
    token_stats,
)

__version__ = "0.1.0"

__all__ = [
    "TokenStats",
    "__version__",
    "backend",
    "build_info",
    "objectives",
    "selective_log_softmax",
    "selective_log_softmax_and_entropy",
    "token_logp",
    "token_stats",
]
