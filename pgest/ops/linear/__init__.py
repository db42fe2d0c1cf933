"""Statistics and losses of tokens from hidden states and a head's weight, without their logits."""

from pgest.ops.linear.api import linear_token_stats
from pgest.ops.linear.objective import linear_objective

__all__ = ["linear_objective", "linear_token_stats"]
