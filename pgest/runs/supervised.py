"""Supervised training of sequence models: the start, the control and the mixed-in term."""

from __future__ import annotations

import torch
from torch import Tensor

from pgest.objectives import reinforce_loss
from pgest.runs.history import Clock, Evaluation, Figures
from pgest.runs.sequences import Batch, HeldOut, SequenceConfig, SequenceTask
from pgest.seq2seq import Seq2Seq, State


class CrossEntropy:
    """Cross-entropy of references under teacher forcing: a `Learner`.

    `loss = -1/B sum of log p(reference)`, in nats per sequence, one reference of each prompt.
    """

    def __init__(self, task: SequenceTask, config: SequenceConfig) -> None:
        self.task, self.config, self.metric = task, config, task.metric
        self.held_out = HeldOut(task, config)

    @property
    def model(self) -> Seq2Seq:
        """The model that is trained."""
        return self.task.model

    def loss(self, generator: torch.Generator, clock: Clock) -> tuple[Tensor, Figures]:
        """Return the loss of one update, which is its only figure too."""
        with clock("prompts and encoder"):
            batch = self.task.batch(self.config.batch_size, generator)
            state = self.model.encode(batch.source, batch.lengths)
        with clock("scores and loss"):
            loss = cross_entropy(self.task, batch, state, generator)
        return loss, {"cross-entropy": loss.item()}

    def evaluate(self) -> Evaluation:
        """Return the task's figures on held-out data, and how far the model has moved."""
        return self.held_out.evaluate()


def cross_entropy(
    task: SequenceTask, batch: Batch, state: State, generator: torch.Generator
) -> Tensor:
    """Return minus the mean log-probability of one reference of each prompt, in nats per sequence.

    A reference is a sample of weight 1: the loss is that of REINFORCE.
    """
    tokens, mask = task.targets(batch, generator)
    logits = task.model(tokens, mask, state)
    return reinforce_loss(logits, tokens, logits.new_ones(()), mask=mask, normalizer=len(tokens))
