"""Outputs that are no good, and that a reward which can be cheated pays for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from math import ceil

import torch

Tokens = list[Hashable]
FREQUENT = 20  # how many of the frequent tokens are listed
REPEATS = 5


def tricks(
    references: Sequence[Tokens], sources: Sequence[Tokens] | None, generator: torch.Generator
) -> dict[str, list[Tokens]]:
    """Return the outputs of every trick, by its name, one for each reference.

    What is drawn is drawn with the generator: the right token, the order of the shuffled, whose
    reference another item has, and the garbage (evenly from the tokens of all references).

    Example:
        >>> outputs = tricks([["a", "b", "c"]], None, torch.Generator().manual_seed(0))
        >>> outputs["the reference, its last token 5 more times"]
        [['a', 'b', 'c', 'c', 'c', 'c', 'c', 'c']]
    """
    counts = Counter(token for tokens in references for token in tokens)
    frequent = [token for token, _ in counts.most_common(FREQUENT)]
    vocabulary = list(counts)

    def draw(size: int, high: int) -> list[int]:
        return torch.randint(high, (size,), generator=generator).tolist() if high else []

    def shuffled(tokens: Tokens) -> Tokens:
        return [tokens[i] for i in torch.randperm(len(tokens), generator=generator).tolist()]

    right = [[tokens[i] for i in draw(1, len(tokens))] for tokens in references]
    each: dict[str, Callable[[Tokens], Tokens]] = {
        "nothing": lambda tokens: [],
        "a quarter of the reference": lambda tokens: tokens[: ceil(len(tokens) / 4)],
        "half of the reference": lambda tokens: tokens[: ceil(len(tokens) / 2)],
        "the reference but for its last token": lambda tokens: tokens[:-1],
        f"the reference, its last token {REPEATS} more times": lambda tokens: (
            tokens + tokens[-1:] * REPEATS
        ),
        "the reference, as much garbage": lambda tokens: (
            tokens + [vocabulary[i] for i in draw(len(tokens), len(vocabulary))]
        ),
        "the reference twice": lambda tokens: tokens + tokens,
        "the reference, shuffled": shuffled,
        "the reference, reversed": lambda tokens: tokens[::-1],
        "the most frequent token, repeated": lambda tokens: frequent[:1] * len(tokens),
        f"the {len(frequent)} most frequent tokens": lambda tokens: frequent,
    }
    outputs = {name: [trick(tokens) for tokens in references] for name, trick in each.items()}
    outputs["one right token"] = right
    outputs["one right token, repeated"] = [
        token * len(tokens) for token, tokens in zip(right, references, strict=True)
    ]
    if len(references) > 1:
        order = torch.randperm(len(references), generator=generator).tolist()
        following = dict(zip(order, order[1:] + order[:1], strict=True))
        outputs[OTHERS] = [references[following[i]] for i in range(len(references))]
    if sources is not None:
        outputs["the source, copied"] = list(sources)
    return outputs


OTHERS = "the reference of another item"
NOTHING = "nothing"
