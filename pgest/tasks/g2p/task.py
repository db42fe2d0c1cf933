"""The task: the pre-trained model, the dictionary, the reward and the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pgest.rewards import closest_reference
from pgest.runs import Batch, Config, Evaluation, Figures, PolicyGradient
from pgest.seq2seq import Sequences
from pgest.tasks.g2p.checkpoint import MAX_LENGTH, load_model, save_model
from pgest.tasks.g2p.report import Tested, report
from pgest.tasks.g2p.words import EOS_ID, Ids, Words, count_errors, pronounce


@dataclass(frozen=True)
class G2PConfig(Config):
    """The configuration of `pgest run g2p`."""

    validation_words: int = 3000
    """Held-out words of the curves; the test words are others, and read only before and after."""

    test_words: int | None = None
    """Test words; None takes all 11,886."""


PRESETS: Mapping[str, G2PConfig] = {
    # Chosen on validation words alone.
    "demo": G2PConfig(
        steps=2000, batch_size=128, num_samples=8, learning_rate=7e-5, entropy_coef=0.03
    ),
    "smoke": G2PConfig(steps=4, batch_size=8, evaluate_every=2, validation_words=64, test_words=64),
}


class G2P:
    """Tune g2p-en's model on the phoneme error of its own samples.

    The reward of a sampled pronunciation is minus its phoneme error rate, with stress, against the
    closest of the word's pronunciations. No reference is ever a target of the model.
    """

    name = "g2p"
    eos = EOS_ID
    max_length = MAX_LENGTH
    panels: Mapping[str, Sequence[str]] = {
        "reward of samples, training words": ["reward"],
        "WER in %, held-out words": ["WER"],
        "PER in %, held-out words": ["PER"],
        "entropy per phoneme in nats": ["entropy"],
    }

    def __init__(self, config: G2PConfig) -> None:
        self.config = config
        self.device = torch.device(config.device)
        self.model = load_model().to(self.device)
        self.learner = PolicyGradient(self, config)
        self.prompts = Words.of("train")
        self.held_out = Words.of("validation", config.validation_words)
        self.test_set = Words.of("test", config.test_words)

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        """Draw training words, with replacement."""
        count = len(self.prompts.words)
        index = torch.randint(count, (size,), generator=generator, device=self.device).cpu()
        lengths = self.prompts.lengths[index]
        source = self.prompts.source[index, : int(lengths.max())]
        references = [self.prompts.references[i] for i in index.tolist()]
        return Batch(source.to(self.device), lengths.to(self.device), references)

    def reward(self, draw: Sequences, batch: Batch) -> tuple[Tensor, Figures]:
        """Return minus the phoneme error rate, `[S, B]`; 1 phoneme wrong of 5 is -0.2."""
        spoken = draw.mask & (draw.tokens != self.eos)
        closest = closest_reference(draw.tokens, batch.references, mask=spoken)
        ratio = spoken.sum().item() / closest.length.sum().item()
        return -(closest.distance / closest.length).to(self.device), {"length ratio": ratio}

    def evaluate(self) -> Figures:
        """Return PER and WER with stress on held-out words, in per cent."""
        errors = count_errors(self._pronounce(self.held_out), self.held_out.references)
        return {"PER": errors.rate, "WER": errors.word_rate}

    def test(self) -> Evaluation:
        """Return PER and WER on the test words, with and without stress, in per cent."""
        words = self.test_set
        spoken = self._pronounce(words)
        stress = count_errors(spoken, words.references)
        plain = count_errors(spoken, words.references, stress=False)
        figures, uncertain = {}, {}
        for label, errors in (("with stress", stress), ("without stress", plain)):
            figures[f"PER {label}"] = errors.rate
            figures[f"WER {label}"] = errors.word_rate
            uncertain[f"PER {label}"] = errors.rate_error
            uncertain[f"WER {label}"] = errors.word_rate_error
        return Evaluation(figures, uncertain, Tested(words, spoken, stress, plain))

    def report(self, before: Evaluation, after: Evaluation) -> str:
        """Say what changed on the test words, show ten of them, and what it was learned from."""
        return report(before.details, after.details, len(self.prompts.words), self.config)

    def save(self, folder: Path) -> None:
        """Write the tuned model in g2p-en's own format."""
        save_model(self.model, folder / "checkpoint20.npz")

    def _pronounce(self, words: Words) -> list[Ids]:
        return pronounce(self.model, words.source, words.lengths)
