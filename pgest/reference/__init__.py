"""The definition of every op, in plain PyTorch.

What the kernels compute is what these functions say; tests compare the two. Where no compiled
kernel exists (no compiler, another device) the ops run on this file.

A row of logits z with temperature T has u = z / T, p = softmax(u), lse = logsumexp(u) and
H = -sum p log p, in nats. A term with p_j = 0 contributes 0, so -inf logits are everyday input;
masked rows are not read: their statistics and gradients are 0.
"""

from pgest.reference.bits import bit_stats, bit_stats_backward, sample_bits
from pgest.reference.draw import METHODS, sample
from pgest.reference.linear import linear_objective, linear_token_stats
from pgest.reference.noise import gumbel_noise, gumbel_of
from pgest.reference.relaxed import (
    gumbel_softmax,
    one_hot,
    softmax_backward,
    straight_through_backward,
)
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
    "METHODS",
    "Stats",
    "StatsGrads",
    "StatsInput",
    "bit_stats",
    "bit_stats_backward",
    "gumbel_noise",
    "gumbel_of",
    "gumbel_softmax",
    "linear_objective",
    "linear_token_stats",
    "one_hot",
    "row_threshold",
    "sample",
    "sample_bits",
    "softmax_backward",
    "statistics_dtype",
    "straight_through_backward",
    "token_stats",
    "token_stats_backward",
]
