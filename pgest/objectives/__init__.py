"""Per-token losses in plain PyTorch, one copy of each formula for every path.

An objective is `objective(stats, *rows) -> per-token loss`: elementwise in the statistics of tokens
(`pgest.TokenStats`) and in rows that broadcast to the tokens. Objectives add up. `total` sums one
over the tokens that count. Losses are minimised. A normaliser is an argument: no loss hides a mean.
"""

from pgest.objectives.divergence import k1, k2, k3, kl_penalty
from pgest.objectives.losses import logit_l2, reinforce_loss, total
from pgest.objectives.policy import cispo, dapo, gspo, ppo, reinforce
from pgest.objectives.regularisers import entropy_loss, z_loss

__all__ = [
    "cispo",
    "dapo",
    "entropy_loss",
    "gspo",
    "k1",
    "k2",
    "k3",
    "kl_penalty",
    "logit_l2",
    "ppo",
    "reinforce",
    "reinforce_loss",
    "total",
    "z_loss",
]
