"""Statistics of chosen tokens under rows of logits, with their gradients."""

from pgest.ops.stats.api import TokenStats, token_logp, token_stats
from pgest.ops.stats.selective import selective_log_softmax, selective_log_softmax_and_entropy
from pgest.ops.stats.total import token_stats_sum

__all__ = [
    "TokenStats",
    "selective_log_softmax",
    "selective_log_softmax_and_entropy",
    "token_logp",
    "token_stats",
    "token_stats_sum",
]
