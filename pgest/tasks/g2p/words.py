"""Words and pronunciations as the model's ids, and the errors that are counted on them."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pgest.data import cmudict, part_of
from pgest.rewards import closest_reference
from pgest.seq2seq import GRUSeq2Seq, greedy
from pgest.tasks.g2p.checkpoint import BOS, EOS, GRAPHEMES, MAX_LENGTH, PAD, PHONEMES

BOS_ID, EOS_ID = PHONEMES.index(BOS), PHONEMES.index(EOS)
_GRAPHEME_ID = {grapheme: i for i, grapheme in enumerate(GRAPHEMES)}
_PHONEME_ID = {phoneme: i for i, phoneme in enumerate(PHONEMES)}
# The id of the first phoneme that is the same but for its stress.
_WITHOUT_STRESS = [
    next(i for i, other in enumerate(PHONEMES) if other.rstrip("012") == phoneme.rstrip("012"))
    for phoneme in PHONEMES
]

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Words:
    """A list of dictionary words and their pronunciations as ids."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, part: str, limit: int | None = None) -> Words:
        """Return the words of a part of the split, the first `limit` in an order without meaning.

        Example:
            >>> len(Words.of("validation", limit=5).words)
            5
        """
        words = [word for word in cmudict() if part_of(word) == part]
        order = torch.randperm(len(words), generator=torch.Generator().manual_seed(0)).tolist()
        return cls(tuple(words[i] for i in order[:limit]))

    def prepare(self) -> None:
        """Make the ids that are otherwise made when they are first used."""
        _ = self.references, self.source, self.lengths

    @cached_property
    def references(self) -> list[list[Ids]]:
        """All pronunciations of each word, without the closing token."""
        return [[tuple(_PHONEME_ID[p] for p in ps) for ps in cmudict()[w]] for w in self.words]

    @property
    def source(self) -> Tensor:
        """The spellings, padded: `[N, L]`."""
        return self._spelt[0]

    @property
    def lengths(self) -> Tensor:
        """The spellings' lengths with the closing letter, `[N]`."""
        return self._spelt[1]

    @cached_property
    def _spelt(self) -> tuple[Tensor, Tensor]:
        return spell(list(self.words))


@dataclass(frozen=True)
class Errors:
    """Edit distances `[N]` of greedy pronunciations to their closest references, and the lengths.

    `length` is that of the closest reference, `spoken` that of the pronunciation.

    `rate` is the phoneme error rate PER, `100 sum(distance) / sum(length)`; `word_rate` the word
    error rate WER, the percentage of words whose distance is not 0. Standard errors treat words as
    independent; that of PER is the ratio estimator's (Cochran 1977, section 2.11).
    """

    distance: Tensor
    length: Tensor
    spoken: Tensor

    @property
    def length_ratio(self) -> float:
        """The length of all pronunciations, in that of their closest references."""
        return (self.spoken.sum() / self.length.sum()).item()

    @property
    def rate(self) -> float:
        """PER in per cent."""
        return 100 * (self.distance.sum() / self.length.sum()).item()

    @property
    def rate_error(self) -> float:
        """The standard error of PER."""
        residual = self.distance - self.rate / 100 * self.length
        return 100 * residual.std().item() / math.sqrt(len(residual)) / self.length.mean().item()

    @property
    def word_rate(self) -> float:
        """WER in per cent."""
        return 100 * (self.distance > 0).double().mean().item()

    @property
    def word_rate_error(self) -> float:
        """The standard error of WER."""
        return 100 * (self.distance > 0).double().std().item() / math.sqrt(len(self.distance))


def spell(words: list[str]) -> tuple[Tensor, Tensor]:
    """Return the ids of the words' letters and the closing letter, `[N, L]`, and their lengths.

    Raises:
        ValueError: for a word with anything but the letters a to z.

    Example:
        >>> spell(["ab"])
        (tensor([[3, 4, 2]]), tensor([3]))
    """
    rows = []
    for word in words:
        if not word or any(letter not in _GRAPHEME_ID for letter in word):
            raise ValueError(f"words must consist of the letters a to z, got {word!r}")
        rows.append((*(_GRAPHEME_ID[letter] for letter in word), _GRAPHEME_ID[EOS]))
    return padded(rows, _GRAPHEME_ID[PAD])


def padded(rows: list[Ids], pad: int) -> tuple[Tensor, Tensor]:
    """Return rows of ids as one tensor `[N, L]`, filled up with `pad`, and their lengths.

    Example:
        >>> padded([(5, 6), (7,)], 0)
        (tensor([[5, 6],
                [7, 0]]), tensor([2, 1]))
    """
    longest = max(map(len, rows), default=0)
    filled = [row + (pad,) * (longest - len(row)) for row in rows]
    return torch.tensor(filled), torch.tensor([len(row) for row in rows])


def corrupted(references: list[list[Ids]], noise: float, seed: int) -> list[list[Ids]]:
    """Return references in which each phoneme is spoilt with probability `noise`.

    A spoilt phoneme is replaced by a random one, dropped, or followed by a random one, with equal
    chances. The same seed spoils the same phonemes: it is the data that is noisy.

    Example:
        >>> corrupted([[(20, 21, 22)]], 0.0, seed=0)
        [[(20, 21, 22)]]
    """
    draw = random.Random(seed)
    first = EOS_ID + 1  # the ids below are no phonemes

    def spoil(phoneme: int) -> Ids:
        if draw.random() >= noise:
            return (phoneme,)
        other = draw.randrange(first, len(PHONEMES))
        return draw.choice([(other,), (), (phoneme, other)])

    return [[tuple(x for p in ids for x in spoil(p)) for ids in group] for group in references]


def phonemes(ids: Ids) -> str:
    """Return a pronunciation in ARPAbet, separated by spaces.

    Example:
        >>> phonemes((19, 4))
        'AY0 AA0'
    """
    return " ".join(PHONEMES[i] for i in ids)


@torch.no_grad()
def pronounce(model: GRUSeq2Seq, source: Tensor, lengths: Tensor, chunk: int = 1024) -> list[Ids]:
    """Return the greedy pronunciation of each spelling, without the closing token."""
    device = model.output.weight.device
    result: list[Ids] = []
    for letters, counts in zip(source.split(chunk), lengths.split(chunk), strict=True):
        state = model.encode(letters.to(device), counts.to(device))
        draw = greedy(model.stepper(), state, bos=BOS_ID, eos=EOS_ID, max_length=MAX_LENGTH)
        rows = zip(draw.tokens[0].tolist(), draw.mask[0].sum(-1).tolist(), strict=True)
        result += [tuple(i for i in row[:count] if i != EOS_ID) for row, count in rows]
    return result


def count_errors(
    hypotheses: list[Ids], references: list[list[Ids]], *, stress: bool = True
) -> Errors:
    """Compare pronunciations with their references, with or without the vowels' stress digits."""
    if not stress:
        hypotheses = [_unstressed(ids) for ids in hypotheses]
        references = [[_unstressed(ids) for ids in group] for group in references]
    closest = closest_reference(hypotheses, references)
    spoken = torch.tensor([len(ids) for ids in hypotheses], dtype=torch.float64)
    return Errors(closest.distance.double(), closest.length.double(), spoken)


def _unstressed(ids: Ids) -> Ids:
    return tuple(_WITHOUT_STRESS[i] for i in ids)
