"""Scores of text against the field's tools: python -m benchmarks.rewards [--quick] [--out FOLDER].

A batch of hypotheses with one reference each, of 10, 25 and 50 tokens, about two thirds of them
right. Candidates take turns in one process on one thread; what is given to Python tools they get
one pair at a time, as they take it. Writes rewards-cpu.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import RESULTS, Candidate, environment, measure, table
from pgest import rewards

TOKENS = (10, 25, 50)
BATCH = 2048
FEW = 256  # pairs for tools that take long
THREADED = (64, 512, 2048, 8192)


class Batch:
    """Pairs as ids, as a padded tensor and as strings of words with 2 to 8 letters."""

    def __init__(self, tokens: int, size: int) -> None:
        rng = random.Random(tokens)
        letters = "etaoinshrdlu"
        words = ["".join(rng.choices(letters, k=rng.randrange(2, 9))) for _ in range(5000)]
        self.references = [rng.choices(range(5000), k=tokens) for _ in range(size)]
        self.hypotheses = [
            [t if rng.random() < 0.7 else rng.randrange(5000) for t in row]
            for row in self.references
        ]
        self.ids, self.reference_ids = torch.tensor(self.hypotheses), torch.tensor(self.references)
        self.texts = [" ".join(words[t] for t in row) for row in self.hypotheses]
        self.reference_texts = [" ".join(words[t] for t in row) for row in self.references]
        self.spelt = [" ".join(map(str, row)) for row in self.hypotheses]
        self.reference_spelt = [" ".join(map(str, row)) for row in self.references]


Call = Callable[[], Any]


def bleu_peers(b: Batch) -> dict[str, Call]:
    """Of ids, spelt as words; nltk takes lists."""
    import sacrebleu
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(effective_order=True, tokenize="none")
    method = SmoothingFunction().method3
    pairs = list(zip(b.spelt, b.reference_spelt, strict=True))[:FEW]
    lists = list(zip(b.hypotheses, b.references, strict=True))[:FEW]
    return {
        "sacrebleu object": lambda: [metric.sentence_score(h, [r]) for h, r in pairs],
        "sacrebleu function": lambda: [sacrebleu.sentence_bleu(h, [r]) for h, r in pairs],
        "nltk": lambda: [sentence_bleu([r], h, smoothing_function=method) for h, r in lists],
    }


def bleu_text_peers(b: Batch) -> dict[str, Call]:
    import sacrebleu
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(effective_order=True)
    pairs = list(zip(b.texts, b.reference_texts, strict=True))[:FEW]
    return {
        "sacrebleu object": lambda: [metric.sentence_score(h, [r]) for h, r in pairs],
        "sacrebleu function": lambda: [sacrebleu.sentence_bleu(h, [r]) for h, r in pairs],
    }


def chrf_peers(b: Batch, word_order: int = 0) -> dict[str, Call]:
    import sacrebleu
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF(word_order=word_order)
    pairs = list(zip(b.texts, b.reference_texts, strict=True))[:FEW]
    function = sacrebleu.sentence_chrf
    return {
        "sacrebleu object": lambda: [metric.sentence_score(h, [r]) for h, r in pairs],
        "sacrebleu function": lambda: [function(h, [r], word_order=word_order) for h, r in pairs],
    }


def edit_peers(b: Batch) -> dict[str, Call]:
    """rapidfuzz one by one, and its own batches of one thread."""
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cpdist

    distance, pairs = Levenshtein.distance, list(zip(b.hypotheses, b.references, strict=True))
    return {
        "rapidfuzz": lambda: [distance(h, r) for h, r in pairs],
        "rapidfuzz cpdist": lambda: cpdist(b.hypotheses, b.references, scorer=distance),
    }


def wer_peers(b: Batch) -> dict[str, Call]:
    import jiwer

    pairs = list(zip(b.texts, b.reference_texts, strict=True))[:FEW]
    few, its = b.texts[:FEW], b.reference_texts[:FEW]
    return {
        "jiwer": lambda: [jiwer.wer(r, h) for h, r in pairs],
        "jiwer batch (one score)": lambda: jiwer.wer(its, few),
    }


def rouge_peers(b: Batch, kind: str) -> dict[str, Call]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind])
    pairs = list(zip(b.texts, b.reference_texts, strict=True))[:FEW]
    return {"rouge-score": lambda: [scorer.score(r, h) for h, r in pairs]}


# What is scored: pgest's own calls (with the empty name), and the peers'.
Work = tuple[str, Callable[..., Any], str, dict[str, Any], Callable[[Batch], dict[str, Call]]]
WORKS: tuple[Work, ...] = (
    ("BLEU, id lists", rewards.bleu, "lists", {}, bleu_peers),
    ("BLEU, id tensor", rewards.bleu, "ids", {}, bleu_peers),
    ("BLEU, strings (13a)", rewards.bleu, "texts", {}, bleu_text_peers),
    ("chrF, strings", rewards.chrf, "texts", {}, chrf_peers),
    ("chrF++, strings", rewards.chrf, "texts", {"word_order": 2}, lambda b: chrf_peers(b, 2)),
    ("edit distance, id lists", rewards.edit_distance, "lists", {}, edit_peers),
    ("edit distance, id tensor", rewards.edit_distance, "ids", {}, edit_peers),
    ("WER, strings", rewards.wer, "texts", {}, wer_peers),
    ("ROUGE-2, strings", rewards.rouge_n, "texts", {"n": 2}, lambda b: rouge_peers(b, "rouge2")),
    ("ROUGE-L, strings", rewards.rouge_l, "texts", {}, lambda b: rouge_peers(b, "rougeL")),
)
HAS_PREFIXES = ("BLEU, id", "edit distance", "chrF, strings", "ROUGE-L")


def given(b: Batch, kind: str) -> tuple[Any, Any]:
    """A batch's hypotheses and references as lists, ids or texts."""
    forms = {
        "lists": (b.hypotheses, b.references),
        "ids": (b.ids, b.reference_ids),
        "texts": (b.texts, b.reference_texts),
    }
    return forms[kind]


def compare(work: Work, tokens: int, size: int, budget_s: float) -> dict[str, str]:
    """Microseconds of a pair, and how many times as long peers and all prefixes take."""
    name, function, kind, options, peers = work
    b = Batch(tokens, size)
    args = given(b, kind)
    calls: dict[str, Call] = {"pgest": lambda: function(*args, **options), **peers(b)}
    if name.startswith(HAS_PREFIXES):
        calls["all prefixes"] = lambda: function(*args, per_prefix=True, **options)
    few = min(FEW, size)
    pairs = {n: size if n in ("pgest", "all prefixes") or "rapidfuzz" in n else few for n in calls}
    found = measure({n: Candidate(call) for n, call in calls.items()}, budget_s)
    each = {n: m.seconds / pairs[n] for n, m in found.items()}
    ratio = {f"x {n}": f"{t / each['pgest']:.3g}" for n, t in each.items() if n != "pgest"}
    return {"work": name, "tokens": str(tokens), "pgest us": f"{1e6 * each['pgest']:.3g}", **ratio}


def threads(size: int, budget_s: float) -> list[str]:
    """How many times as fast two threads are, for BLEU, chrF and edit distance at 25 tokens."""
    b = Batch(25, size)
    cells = [str(size)]
    for function, kind in (
        (rewards.bleu, "ids"),
        (rewards.chrf, "texts"),
        (rewards.edit_distance, "ids"),
    ):
        args = given(b, kind)

        calls = {
            str(n): Candidate(partial(function, *args), partial(torch.set_num_threads, n))
            for n in (1, 2)
        }
        found = measure(calls, budget_s)
        cells.append(f"{found['1'].seconds / found['2'].seconds:.2f}")
    torch.set_num_threads(1)
    return cells


EXPLANATION = """\
`python -m benchmarks.rewards` wrote this. Pairs of a hypothesis and a reference of as many tokens
(ids below 5,000, or words of 2 to 8 letters), 70 % of the hypothesis' tokens right; a batch of
{size}, one thread; medians over rounds in which all take turns. Each "x" says how many times as
long a pair takes there as in pgest: more than 1 means that pgest is faster. "x all prefixes" is
pgest itself with `per_prefix=True`, a score after each token (chrF: each character). jiwer's batch
makes one score of all pairs, rapidfuzz's `cpdist` one of each on one thread. What pgest takes
includes reading Python's lists and strings."""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    options = parser.parse_args(argv)
    size, budget_s = (64, 0.2) if options.quick else (BATCH, 3.0)
    torch.set_num_threads(1)
    found = []
    for work in WORKS:
        for tokens in TOKENS:
            found.append(compare(work, tokens, size, budget_s))
            print(f"  {found[-1]}", flush=True)
    header = list(dict.fromkeys(key for row in found for key in row))
    rows = [[row.get(key, "-") for key in header] for row in found]
    sizes = THREADED[:2] if options.quick else THREADED
    shared = [threads(size, budget_s) for size in sizes]
    names = ("sacrebleu", "rapidfuzz", "jiwer", "rouge-score", "nltk")
    versions = {name: importlib.metadata.version(name) for name in names}
    where = "\n".join(f"- {key}: {value}" for key, value in {**environment(), **versions}.items())
    columns = ["pairs", "BLEU, id tensor", "chrF, strings", "edit distance, id tensor"]
    text = "\n\n".join(
        [
            "# Rewards of text on the CPU",
            EXPLANATION.format(size=size),
            where,
            table(header, rows),
            "## Two threads against one: how many times as fast, at 25 tokens",
            table(columns, shared),
        ]
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rewards-cpu.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
