"""Samples through which a gradient passes: relaxed ones, and hard ones with a Jacobian."""

from pgest.ops.relaxed.api import gumbel_softmax, straight_through

__all__ = ["gumbel_softmax", "straight_through"]
