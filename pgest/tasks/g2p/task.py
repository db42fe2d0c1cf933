"""The task: the pre-trained model, the dictionary, the reward and the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pgest.rewards import closest_reference
from pgest.runs import Batch, CrossEntropy, Evaluation, Figures, Learner, Metric, PolicyGradient
from pgest.runs.files import write_text
from pgest.seq2seq import Sequences
from pgest.tasks.g2p.checkpoint import MAX_LENGTH, initial_model, save_model
from pgest.tasks.g2p.config import G2PConfig
from pgest.tasks.g2p.report import Tested, report
from pgest.tasks.g2p.words import (
    EOS_ID,
    Ids,
    Words,
    corrupted,
    count_errors,
    padded,
    pronounce,
)

LABELS = ("with stress", "without stress")


class Answers(NamedTuple):
    """For each prompt of a batch its pronunciations, and those that supervised training sees."""

    references: list[list[Ids]]
    targets: list[list[Ids]]


class G2P:
    """Tune g2p-en's model on the phoneme error of its own samples, or on references.

    The reward of a sampled pronunciation compares it, with stress, with the closest of the word's
    pronunciations. With it no reference is ever a target of the model.
    """

    name = "g2p"
    eos = EOS_ID
    max_length = MAX_LENGTH
    metric = Metric("WER", "min")
    shown = ("reward", "cross-entropy", "WER", "PER", "entropy", "KL", "length ratio")

    def __init__(self, config: G2PConfig, weights: str | None = None) -> None:
        """Load model and words; `weights` instead of `config.init` where a run goes on."""
        self.config = config
        self.device = torch.device(config.device)
        self.model = initial_model(weights or config.init, config.seed).to(self.device)
        self.prompts = Words.of("train")
        noise = config.reference_noise
        clean = self.prompts.references
        self.answers = Answers(clean, corrupted(clean, noise, config.seed) if noise else clean)
        self.validation = Words.of("validation", config.validation_words)
        self.test_set = Words.of("test", config.test_words)
        for words in (self.prompts, self.validation, self.test_set):
            words.prepare()  # now rather than in the time of the first update
        kind = PolicyGradient if config.objective == "reinforce" else CrossEntropy
        self.learner: Learner = kind(self, config)

    @property
    def panels(self) -> Mapping[str, Sequence[str]]:
        """The curves of the plot."""
        learned = {
            "reinforce": {"reward of samples, training words": ["reward"]},
            "xe": {"cross-entropy per word in nats": ["cross-entropy"]},
        }[self.config.objective]
        moved = {
            "entropy of held-out words in nats": ["held-out entropy"],
            "KL from the start in nats": ["KL"],
        }
        return {
            **learned,
            "WER in %, held-out words": ["WER"],
            "PER in %, held-out words": ["PER"],
            **(moved if self.config.held_out_prompts else {}),
            "length, of the references'": ["length ratio"],
        }

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        """Draw training words, with replacement."""
        count = len(self.prompts.words)
        index = torch.randint(count, (size,), generator=generator, device=self.device).cpu()
        return self._batch(self.prompts, index)

    def held_out(self, size: int) -> Batch:
        """Return the first validation words."""
        return self._batch(self.validation, torch.arange(min(size, len(self.validation.words))))

    def reward(self, draw: Sequences, batch: Batch) -> tuple[Tensor, Figures]:
        """Return the reward `[S, B]`; the error rate of 1 phoneme wrong of 5 earns -0.2."""
        spoken = draw.mask & (draw.tokens != self.eos)
        closest = closest_reference(draw.tokens, batch.references.references, mask=spoken)
        ratio = spoken.sum().item() / closest.length.sum().item()
        earned = {
            "error_rate": -closest.distance / closest.length,
            "exact_match": (closest.distance == 0).float(),
            "constant": torch.ones_like(closest.distance),
        }[self.config.reward]
        return earned.to(self.device), {"length ratio of samples": ratio}

    def targets(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return one of the pronunciations of each word, drawn at random."""
        u = torch.rand(len(batch.source), generator=generator, device=self.device).tolist()
        chosen = [
            group[int(x * len(group))] for x, group in zip(u, batch.references.targets, strict=True)
        ]
        tokens, lengths = padded([(*ids, EOS_ID) for ids in chosen], EOS_ID)
        mask = torch.arange(tokens.shape[1]) < lengths.unsqueeze(-1)
        return tokens.to(self.device), mask.to(self.device)

    def evaluate(self) -> Evaluation:
        """Return PER and WER with stress on held-out words, in per cent, and the length ratio."""
        errors = count_errors(self._pronounce(self.validation), self.validation.references)
        return Evaluation(
            {"PER": errors.rate, "WER": errors.word_rate, "length ratio": errors.length_ratio},
            {"PER": errors.rate_error, "WER": errors.word_rate_error},
        )

    def test(self) -> Evaluation:
        """Return PER and WER on the test words, with and without stress, in per cent."""
        words = self.test_set
        spoken = self._pronounce(words)
        stress = count_errors(spoken, words.references)
        plain = count_errors(spoken, words.references, stress=False)
        figures, uncertain = {}, {}
        for label, errors in zip(LABELS, (stress, plain), strict=True):
            figures[f"PER {label}"] = errors.rate
            figures[f"WER {label}"] = errors.word_rate
            uncertain[f"PER {label}"] = errors.rate_error
            uncertain[f"WER {label}"] = errors.word_rate_error
        figures["length ratio"] = stress.length_ratio
        return Evaluation(figures, uncertain, Tested(words, spoken, stress, plain))

    def report(self, before: Evaluation, after: Evaluation) -> str:
        """Say what changed on the test words, show ten of them, and what it was learned from."""
        return report(before.details, after.details, len(self.prompts.words), self.config)

    def save(self, folder: Path, before: Evaluation, after: Evaluation) -> None:
        """Write the tuned model in g2p-en's own format, and the errors of every test word."""
        save_model(self.model, folder / "checkpoint20.npz")
        tests: dict[str, Tested] = {"before": before.details, "after": after.details}
        rows = [["word", *(f"{when} {label}" for when in tests for label in LABELS)]]
        columns = [
            errors.distance.int().tolist()
            for tested in tests.values()
            for errors in (tested.with_stress, tested.without_stress)
        ]
        rows += [[w, *map(str, d)] for w, *d in zip(self.test_set.words, *columns, strict=True)]
        write_text(folder / "test_errors.csv", "\n".join(map(",".join, rows)) + "\n")

    def _batch(self, words: Words, index: Tensor) -> Batch:
        lengths = words.lengths[index]
        source = words.source[index, : int(lengths.max())]
        answers = self.answers if words is self.prompts else Answers(words.references, [])
        pick = index.tolist()
        chosen = Answers(*([group[i] for i in pick] if group else [] for group in answers))
        return Batch(source.to(self.device), lengths.to(self.device), chosen)

    def _pronounce(self, words: Words) -> list[Ids]:
        return pronounce(self.model, words.source, words.lengths)
