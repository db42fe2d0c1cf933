"""Scores of whole sequences: rewards are maximised, costs and errors are minimised.

All take `(hypotheses, references, **counting)`: B strings, B lists of tokens, or ids [..., B, T],
and for each of B items one reference or a list of them. `Counting` names the keywords that say
which tokens count.
"""

from pgest.rewards.audit import Audit, audit
from pgest.rewards.backend import backend
from pgest.rewards.bleu import bleu, bleu_statistics, corpus_bleu
from pgest.rewards.cache import Cached, cached
from pgest.rewards.chrf import chrf
from pgest.rewards.compose import (
    WeightedSum,
    clipped,
    gated,
    length_penalty,
    overlong_penalty,
    scaled,
    weighted_sum,
)
from pgest.rewards.edit import Closest, cer, closest_reference, edit_distance, error_rate, wer
from pgest.rewards.failures import FailedSamples
from pgest.rewards.overlap import exact_match, squad, token_f1
from pgest.rewards.per_sample import PerSample, per_sample
from pgest.rewards.protocol import Reward
from pgest.rewards.rouge import rouge_l, rouge_n
from pgest.rewards.sequences import Counting
from pgest.rewards.shaped import shaped

__all__ = [
    "Audit",
    "Cached",
    "Closest",
    "Counting",
    "FailedSamples",
    "PerSample",
    "Reward",
    "WeightedSum",
    "audit",
    "backend",
    "bleu",
    "bleu_statistics",
    "cached",
    "cer",
    "chrf",
    "clipped",
    "closest_reference",
    "corpus_bleu",
    "edit_distance",
    "error_rate",
    "exact_match",
    "gated",
    "length_penalty",
    "overlong_penalty",
    "per_sample",
    "rouge_l",
    "rouge_n",
    "scaled",
    "shaped",
    "squad",
    "token_f1",
    "weighted_sum",
    "wer",
]
