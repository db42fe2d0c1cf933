"""Policy-gradient training of sequence models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pgest.advantages import leave_one_out
from pgest.objectives import reinforce_loss
from pgest.runs.config import Config
from pgest.runs.loop import Figures
from pgest.seq2seq import Seq2Seq, Sequences, distinct, sample


class Batch(NamedTuple):
    """B prompts: what `encode` reads, and what the task needs to score their samples."""

    source: Tensor
    lengths: Tensor
    references: Any


class SequenceTask(Protocol):
    """What a task provides to be trained with `PolicyGradient`."""

    eos: int
    max_length: int

    @property
    def model(self) -> Seq2Seq:
        """The policy that is trained."""

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        """Draw the prompts of one update."""

    def reward(self, draw: Sequences, batch: Batch) -> tuple[Tensor, Figures]:
        """Return the reward of each sample, `[S, B]`, more is better, and figures to log."""

    def evaluate(self) -> Figures:
        """Return figures on held-out data."""


@dataclass(frozen=True)
class PolicyGradient:
    """REINFORCE with a leave-one-out baseline on samples of the current policy: a `Learner`.

    For each of B prompts S sequences y are drawn from the policy p. With the gain
    `g(y) = reward(y) - entropy_coef log p(y)` and `weight[s] = g(y_s) - mean of the other g`, the
    loss `-1/(S B) sum of weight * log p(y)` has in expectation the gradient of
    `-E[reward] - entropy_coef H(p)`, H the entropy of the whole sequence in nats. Samples, gains
    and weights are detached. The encoder runs once; equal samples are scored once, and those of
    weight 0 not at all.

    Source: Williams 1992; Williams and Peng 1991 (entropy); Kool et al. 2019; Ahmadian et al. 2024
    (arXiv 2402.14740).

    Raises:
        ValueError: for fewer than two samples of a prompt.
    """

    task: SequenceTask
    config: Config

    def __post_init__(self) -> None:
        if self.config.num_samples < 2:
            raise ValueError(
                "num_samples must be at least 2, since leave-one-out compares a sample with the "
                f"others, got {self.config.num_samples}"
            )

    @property
    def model(self) -> Seq2Seq:
        """The policy."""
        return self.task.model

    def loss(self, generator: torch.Generator) -> tuple[Tensor, Figures]:
        """Return the loss of one update, and the reward, entropy and spread of its samples."""
        task, model = self.task, self.task.model
        batch = task.batch(self.config.batch_size, generator)
        state = model.encode(batch.source, batch.lengths)
        draw = sample(
            model.stepper(),
            tuple(part.detach() for part in state),
            self.config.num_samples,
            bos=model.bos,
            eos=task.eos,
            max_length=task.max_length,
            generator=generator,
        )
        reward, figures = task.reward(draw, batch)
        if not reward.isfinite().all():
            raise ValueError(f"reward must be finite, got {reward[~reward.isfinite()][0].item()}")
        # -log p is an unbiased estimate of the entropy, and its score-function gradient is exact:
        # the mean over samples of (-log p - 1) grad log p, of which the baseline takes the -1.
        gain = reward - self.config.entropy_coef * draw.logp.sum(-1)
        merged = distinct(draw.tokens, draw.mask, leave_one_out(gain))
        logits = model(merged.tokens, merged.mask, tuple(part[merged.row] for part in state))
        loss = reinforce_loss(
            logits,
            merged.tokens,
            merged.weight.unsqueeze(-1),
            mask=merged.mask,
            normalizer=reward.numel(),
        )
        return loss, {
            "reward": reward.mean().item(),
            # The mean of -log p over drawn tokens: an unbiased estimate, per token, in nats.
            "entropy": -(draw.logp.sum() / draw.mask.sum()).item(),
            "tied groups": (reward == reward[0]).all(0).float().mean().item(),
            **figures,
        }

    def evaluate(self) -> Figures:
        """Return the task's figures on held-out data."""
        return self.task.evaluate()
