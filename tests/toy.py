"""A sequence task whose answer is known, for tests of the training loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pgest.runs import (
    Batch,
    CrossEntropy,
    Evaluation,
    Figures,
    Learner,
    Metric,
    PolicyGradient,
    SequenceConfig,
)
from pgest.seq2seq import GRUSeq2Seq, Sequences


@dataclass
class Copy:
    """Say the source's only letter and stop: 1 where the sample does, else 0."""

    config: SequenceConfig = field(default_factory=SequenceConfig)
    model: GRUSeq2Seq = field(default_factory=lambda: GRUSeq2Seq(6, 6, 16, bos=0))
    eos: int = 1
    max_length: int = 4
    name: str = "copy"
    metric: Metric = field(default_factory=lambda: Metric("exact", "max"))
    shown: tuple[str, ...] = ("reward", "exact")
    panels: dict[str, list[str]] = field(default_factory=lambda: {"held-out": ["exact"]})

    def __post_init__(self) -> None:
        kind = CrossEntropy if self.config.objective == "xe" else PolicyGradient
        self.learner: Learner = kind(self, self.config)

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        source = torch.randint(2, 6, (size, 1), generator=generator)
        return Batch(source, torch.ones(size, dtype=torch.int64), source[:, 0])

    def held_out(self, size: int) -> Batch:
        return self.batch(size, torch.Generator().manual_seed(5))

    def reward(self, draw: Sequences, batch: Batch) -> tuple[Tensor, Figures]:
        right = (draw.tokens[..., 0] == batch.references) & (draw.mask.sum(-1) == 2)
        right = right & (draw.tokens[..., -1] == self.eos)
        return right.float(), {"right": right.float().mean().item()}

    def targets(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        tokens = torch.stack([batch.references, torch.full_like(batch.references, self.eos)], -1)
        return tokens, torch.ones_like(tokens, dtype=torch.bool)

    def evaluate(self) -> Evaluation:
        batch = self.held_out(32)
        tokens, mask = self.targets(batch, torch.Generator())
        logits = self.model(tokens, mask, self.model.encode(batch.source, batch.lengths))
        right = logits[:, 0].softmax(-1).gather(-1, tokens[:, :1])
        error = right.std().item() / len(right) ** 0.5
        return Evaluation({"exact": right.mean().item()}, {"exact": error})

    def test(self) -> Evaluation:
        with torch.no_grad():
            return self.evaluate()

    def report(self, before: Evaluation, after: Evaluation) -> str:
        return "learned to copy"

    def save(self, folder: Path, before: Evaluation, after: Evaluation) -> None:
        (folder / "note.txt").write_text("saved")


def copy_task(**changes: object) -> Copy:
    """A fresh task, the same each time."""
    torch.manual_seed(0)
    settings = {
        "steps": 150,
        "batch_size": 32,
        "learning_rate": 1e-2,
        "warmup": 1,
        "evaluate_every": 50,
        "tensorboard": False,
        **changes,
    }
    return Copy(SequenceConfig(**settings))  # type: ignore[arg-type]
