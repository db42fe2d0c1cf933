"""Scores of whole sequences: rewards are maximised, costs and errors are minimised."""

from pgest.rewards.audit import Audit, audit
from pgest.rewards.cache import Cached, cached
from pgest.rewards.compose import (
    WeightedSum,
    clipped,
    gated,
    length_penalty,
    overlong_penalty,
    scaled,
    weighted_sum,
)
from pgest.rewards.edit import Closest, closest_reference, edit_distance, error_rate
from pgest.rewards.failures import FailedSamples
from pgest.rewards.per_sample import PerSample, per_sample
from pgest.rewards.protocol import Reward

__all__ = [
    "Audit",
    "Cached",
    "Closest",
    "FailedSamples",
    "PerSample",
    "Reward",
    "WeightedSum",
    "audit",
    "cached",
    "clipped",
    "closest_reference",
    "edit_distance",
    "error_rate",
    "gated",
    "length_penalty",
    "overlong_penalty",
    "per_sample",
    "scaled",
    "weighted_sum",
]
