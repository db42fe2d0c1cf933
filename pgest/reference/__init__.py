"""The definition of every op, in plain PyTorch.

What the kernels compute is what these functions say; tests compare the two. Where no compiled
kernel exists (no compiler, another device) the ops run on this file.

A row of logits z with temperature T has u = z / T, p = softmax(u), lse = logsumexp(u) and
H = -sum p log p, in nats. A term with p_j = 0 contributes 0, so -inf logits are everyday input;
masked rows are not read: their statistics and gradients are 0.
"""

from pgest.reference.linear import linear_objective, linear_token_stats
from pgest.reference.rows import statistics_dtype
from pgest.reference.stats import (
    Stats,
    StatsGrads,
    StatsInput,
    token_stats,
    token_stats_backward,
)
from pgest.reference.threshold import row_threshold

__all__ = [
    "Stats",
    "StatsGrads",
    "StatsInput",
    "linear_objective",
    "linear_token_stats",
    "row_threshold",
    "statistics_dtype",
    "token_stats",
    "token_stats_backward",
]
