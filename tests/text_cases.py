"""Random batches of sequences that meet what n-gram metrics find hard."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

# Around the 64 positions of a machine word; short ones, which are most of what is hard, most often.
LENGTHS = (0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 9, 13, 20, 40, 62, 63, 64, 65, 127, 128, 129)
# Words and white space of all kinds; NBSP, a line separator, beyond the BMP, a combining accent.
PIECES = (
    *(
        "a",
        "b",
        "ab",
        "the",
        "cat",
        "Cat",
        "x",
        "'",
        ".",
        ",",
        "(hi)",
        "(",
        "word.",
        "!",
        "1",
        "2.5",
        "e-mail",
    ),
    *(
        " ",
        " ",
        " ",
        "  ",
        "\t",
        "\n",
        "\u00a0",
        "\u2028",
        "é",
        "e\u0301",
        "ß",
        "İ",
        "日本",
        "語",
        "😀",
        "-",
    ),
)


def tokens(rng: random.Random, symbols: int, longest: int = 129) -> list[int]:
    """Ids below `symbols`, of a length that is hard."""
    return [rng.randrange(symbols) for _ in range(rng.choice([n for n in LENGTHS if n <= longest]))]


def spoilt(rng: random.Random, sequence: Sequence[Any], symbols: Sequence[Any]) -> list[Any]:
    """A copy with a few tokens replaced, dropped, doubled or swapped."""
    out = list(sequence)
    for _ in range(rng.randrange(4)):
        if not out:
            break
        i = rng.randrange(len(out))
        out[i : i + 1] = rng.choice([[rng.choice(symbols)], [], [out[i], out[i]], [out[i], out[0]]])
    return out


def pairs(seed: int, count: int, longest: int = 129) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Hypotheses and one to three references, half of which the hypothesis resembles."""
    rng = random.Random(seed)
    for _ in range(count):
        symbols = rng.choice([1, 2, 4, 30, 1000])
        hypothesis = tokens(rng, symbols, longest)
        references = [
            spoilt(rng, hypothesis, range(symbols))
            if rng.random() < 0.5
            else tokens(rng, symbols, longest)
            for _ in range(rng.choice([1, 1, 1, 2, 3]))
        ]
        yield hypothesis, references


def sentences(seed: int, count: int) -> Iterator[tuple[str, list[str]]]:
    """The same of strings."""
    rng = random.Random(seed)
    for _ in range(count):
        hypothesis = [rng.choice(PIECES) for _ in range(rng.randrange(14))]
        references = [
            spoilt(rng, hypothesis, PIECES)
            if rng.random() < 0.6
            else [rng.choice(PIECES) for _ in range(rng.randrange(14))]
            for _ in range(rng.choice([1, 1, 1, 2, 3]))
        ]
        yield "".join(hypothesis), ["".join(x) for x in references]


def spell(sequence: Sequence[int]) -> str:
    """Ids as words."""
    return " ".join(map(str, sequence))
