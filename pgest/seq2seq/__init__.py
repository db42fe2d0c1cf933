"""Encoder-decoder models: drawing sequences from them and scoring sequences under them."""

from pgest.seq2seq.decoding import Sequences, State, Step, greedy, sample
from pgest.seq2seq.distinct import Distinct, distinct
from pgest.seq2seq.gru import GRUSeq2Seq
from pgest.seq2seq.model import Seq2Seq

__all__ = [
    "Distinct",
    "GRUSeq2Seq",
    "Seq2Seq",
    "Sequences",
    "State",
    "Step",
    "distinct",
    "greedy",
    "sample",
]
