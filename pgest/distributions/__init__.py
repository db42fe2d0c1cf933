"""What is sampled: torch's discrete distributions with raw logits and `event_dims`."""

from pgest.distributions.base import Distribution, Relaxable
from pgest.distributions.bernoulli import Bernoulli
from pgest.distributions.categorical import Categorical
from pgest.distributions.convert import as_distribution
from pgest.distributions.one_hot import OneHotCategorical

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distribution",
    "OneHotCategorical",
    "Relaxable",
    "as_distribution",
]
