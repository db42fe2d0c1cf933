"""Rewards to weights: what to subtract from a reward so that its gradient varies less.

`groups`: samples of one prompt against each other. `steps`: rewards along time.
"""

from pgest.advantages.groups import group_normalised, leave_one_out, self_critical
from pgest.advantages.steps import gae, returns

__all__ = ["gae", "group_normalised", "leave_one_out", "returns", "self_critical"]
