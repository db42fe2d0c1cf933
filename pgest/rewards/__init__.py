"""Scores of whole sequences: rewards are maximised, costs and errors are minimised.

All take `(hypotheses, references, **counting)`: B strings, B lists of tokens, or ids [..., B, T],
and for each of B items one reference or a list of them. `Counting` names the keywords that say
which tokens count.
"""

from pgest.rewards.backend import backend
from pgest.rewards.bleu import bleu, bleu_statistics, corpus_bleu
from pgest.rewards.chrf import chrf
from pgest.rewards.edit import Closest, cer, closest_reference, edit_distance, error_rate, wer
from pgest.rewards.overlap import exact_match, squad, token_f1
from pgest.rewards.rouge import rouge_l, rouge_n
from pgest.rewards.sequences import Counting
from pgest.rewards.shaped import shaped

__all__ = [
    "Closest",
    "Counting",
    "backend",
    "bleu",
    "bleu_statistics",
    "cer",
    "chrf",
    "closest_reference",
    "corpus_bleu",
    "edit_distance",
    "error_rate",
    "exact_match",
    "rouge_l",
    "rouge_n",
    "shaped",
    "squad",
    "token_f1",
    "wer",
]
