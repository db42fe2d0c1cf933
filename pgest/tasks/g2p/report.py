"""Words for what a run of g2p has learned."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from textwrap import fill

from pgest.tasks.g2p.config import G2PConfig
from pgest.tasks.g2p.words import Errors, Ids, Words, phonemes

SHOWN = 10
WIDTH = 96


@dataclass(frozen=True)
class Tested:
    """Greedy pronunciations of the test words and their errors, with and without stress."""

    words: Words
    spoken: list[Ids]
    with_stress: Errors
    without_stress: Errors


def report(before: Tested, after: Tested, prompts: int, config: G2PConfig) -> str:
    """Return what changed on the test words, a sample of it, and what it was learned from."""
    shown = _sample(before, after, config.seed)
    # A path must not be broken.
    lesson = fill(_lesson(prompts, config), WIDTH, break_on_hyphens=False, break_long_words=False)
    ask = "Ask the tuned model yourself: pgest predict g2p WORD..."
    return "\n\n".join([_change(before, after), shown, lesson, ask])


def _change(before: Tested, after: Tested) -> str:
    """Return the change of the word error rate with the standard error of the paired words."""
    old, new = before.with_stress, after.with_stress
    change = 100 * ((new.distance > 0).double() - (old.distance > 0).double())
    error = change.std().item() / math.sqrt(len(change))
    fixed, broken = int((change < 0).sum()), int((change > 0).sum())
    return fill(
        f"Of {len(change):,} test words {fixed} became right and {broken} became wrong: WER with "
        f"stress changed by {change.mean().item():+.2f} points (standard error of this "
        f"difference, word by word: {error:.2f}).",
        WIDTH,
    )


def _sample(before: Tested, after: Tested, seed: int) -> str:
    """Return a table of test words drawn at random from those whose pronunciation changed."""
    pairs = zip(before.spoken, after.spoken, strict=True)
    changed = [i for i, (old, new) in enumerate(pairs) if old != new]
    shown = sorted(random.Random(seed).sample(changed, min(SHOWN, len(changed))))
    total = len(before.spoken)
    lines = [
        f"{len(changed)} of {total:,} pronunciations changed; {len(shown)} of them at random, "
        "with the first reference:"
    ]
    if not shown:
        return f"None of {total:,} pronunciations changed."
    rows = [("word", "reference", "before", "after", "errors")]
    for i in shown:
        old = int(before.with_stress.distance[i])
        new = int(after.with_stress.distance[i])
        verdict = "better" if new < old else "worse" if new > old else "equal"
        reference = phonemes(before.words.references[i][0])
        spoken = phonemes(before.spoken[i]), phonemes(after.spoken[i])
        rows.append((before.words.words[i], reference, *spoken, f"{old} -> {new} {verdict}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def _lesson(prompts: int, config: G2PConfig) -> str:
    return " ".join(
        [
            f"What was learned, and from what: {_source(prompts, config)}",
            "No test word was drawn or looked at in training.",
            *([_ORIGIN] if config.init == "shipped" else []),
            *([_earlier(config.init)] if config.init not in ("shipped", "random") else []),
            *([_MORAL] if config.objective == "reinforce" else []),
        ]
    )


_ORIGIN = (
    "g2p-en itself was trained, by supervision, on an earlier edition of this dictionary, which "
    "probably held the test words: the figures compare a model with itself, not with others."
)


def _earlier(init: str) -> str:
    return f"It started from {init}: what that had learned from, the report of its run says."


_MORAL = (
    "Where references exist, supervised training on them is faster and goes further "
    "(--objective xe); learning from a reward is for where there is only a score."
)


def _source(prompts: int, config: G2PConfig) -> str:
    """Return what the training was told."""
    if config.objective == "xe":
        spoilt = f", each phoneme spoilt with a chance of {config.reference_noise:g}"
        return (
            f"the pronunciations of {prompts:,} training words in the dictionary were targets"
            f"{spoilt if config.reference_noise else ''}; no reward was used."
        )
    told = {
        "error_rate": "one number for each, minus its phoneme error rate",
        "exact_match": "one bit for each, whether all of it was right",
        "constant": "1 for each, whatever it was: a control",
    }[config.reward]
    bonus = " and a small bonus for keeping its choice open (entropy)"
    mixed = (
        "The references' cross-entropy was mixed in."
        if config.xe_coef
        else "No reference was a target."
    )
    return (
        f"for spellings drawn from {prompts:,} training words the model wrote pronunciations of "
        f"its own and was told {told}{bonus if config.entropy_coef else ''}. {mixed}"
    )
