"""What `pgest._text` does, by the Python libraries it is equal to: for machines without a compiler.

The same names and arguments.
"""

from pgest.rewards.libraries.encoding import (
    Sequences,
    Unit,
    cut,
    encode,
    encode_groups,
    padded,
    piece_ends,
)
from pgest.rewards.libraries.metrics import (
    MOST_ORDERS,
    Bleu,
    bleu,
    bleu_scores,
    bleu_statistics,
    chrf,
    closest_reference,
    exact_match,
    rouge_l,
    rouge_n,
)

__all__ = [
    "MOST_ORDERS",
    "Bleu",
    "Sequences",
    "Unit",
    "bleu",
    "bleu_scores",
    "bleu_statistics",
    "chrf",
    "closest_reference",
    "cut",
    "encode",
    "encode_groups",
    "exact_match",
    "padded",
    "piece_ends",
    "rouge_l",
    "rouge_n",
]
