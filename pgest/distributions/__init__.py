"""What is sampled: torch's discrete distributions with raw logits and `event_dims`."""

from pgest.distributions.base import Distribution, Relaxable
from pgest.distributions.bernoulli import Bernoulli
from pgest.distributions.categorical import Categorical, OneHotCategorical
from pgest.distributions.convert import as_distribution

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distribution",
    "OneHotCategorical",
    "Relaxable",
    "as_distribution",
]
