"""What it takes to train a sequence model on a task: settings, and what the task provides."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from pgest.runs.config import Config, at_least, positive
from pgest.runs.history import Evaluation, Figures, Metric
from pgest.seq2seq import Seq2Seq, Sequences, sample


@dataclass(frozen=True)
class SequenceConfig(Config):
    """How a sequence model is trained; see `Config` for the loop's part.

    Raises:
        ValueError: for a number out of range, and for a setting that the objective does not use.
    """

    objective: Literal["reinforce", "xe"] = "reinforce"
    """Learn from the reward of the model's own samples, or from references (cross-entropy)."""

    batch_size: int = 96
    """Prompts in an update."""

    num_samples: int = 8
    """Samples drawn for each prompt."""

    baseline: Literal["leave_one_out", "self_critical", "none"] = "leave_one_out"
    """What is subtracted from a sample's reward: the mean of the prompt's other samples, the reward
    of the greedy decoding, or nothing."""

    temperature: float = 1.0
    """What the policy's logits are divided by when it draws, and when its samples are scored."""

    entropy_coef: float = 0.0
    """Bonus for the entropy of a sampled sequence, in units of reward per nat."""

    kl_coef: float = 0.0
    """Penalty for the divergence from the policy before training, in units of reward per nat."""

    xe_coef: float = 0.0
    """Weight of the references' cross-entropy (at temperature 1) in the loss, in units of reward
    per nat."""

    logit_l2_coef: float = 0.0
    """Weight of the mean squared logit of a sampled token, mixed into the loss."""

    held_out_prompts: int = 512
    """Held-out prompts on which divergence and entropy are measured at an evaluation; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "batch_size", "num_samples")
        at_least(self, 0, *_COEFFICIENTS, "held_out_prompts")
        positive(self, "temperature")
        if self.objective == "xe":
            for name in (*_COEFFICIENTS, "baseline", "temperature"):
                value, unused = getattr(self, name), getattr(SequenceConfig, name)
                if value != unused:
                    raise ValueError(
                        f"{name} must be left at {unused} with objective xe, which draws no "
                        f"samples, got {value}"
                    )
        elif self.baseline == "leave_one_out" and self.num_samples < 2:
            raise ValueError(
                "num_samples must be at least 2, since leave-one-out compares a sample with the "
                f"others, got {self.num_samples}"
            )


_COEFFICIENTS = ("entropy_coef", "kl_coef", "xe_coef", "logit_l2_coef")


class Batch(NamedTuple):
    """B prompts: what `encode` reads, and what the task needs to score their samples."""

    source: Tensor
    lengths: Tensor
    references: Any


class SequenceTask(Protocol):
    """What a task provides to be trained with `PolicyGradient` or `CrossEntropy`."""

    eos: int
    max_length: int
    metric: Metric

    @property
    def model(self) -> Seq2Seq:
        """The policy that is trained."""

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        """Draw the prompts of one update."""

    def reward(self, draw: Sequences, batch: Batch) -> tuple[Tensor, Figures]:
        """Return the reward of each sample, `[S, B]`, more is better, and figures to log."""

    def targets(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return one reference of each prompt, `[B, T]` with the closing token, and its mask."""

    def held_out(self, size: int) -> Batch:
        """Return the first held-out prompts."""

    def evaluate(self) -> Evaluation:
        """Return figures on held-out data, the metric among them."""


class HeldOut:
    """Evaluates a task, and how far its policy has moved from where it was when this was made."""

    def __init__(self, task: SequenceTask, config: SequenceConfig) -> None:
        self.task, self.config = task, config
        self.reference = copy.deepcopy(task.model).eval().requires_grad_(False)

    def evaluate(self) -> Evaluation:
        """Return the task's figures, and KL and entropy of the policy in nats per sequence.

        Both are means over one sample for each held-out prompt, exact at every token given those
        before it; every evaluation draws with the same random numbers.
        """
        found = self.task.evaluate()
        if not self.config.held_out_prompts:
            return found
        task, model = self.task, self.task.model
        batch = task.held_out(self.config.held_out_prompts)
        generator = torch.Generator(batch.source.device).manual_seed(self.config.seed)
        state = model.encode(batch.source, batch.lengths)
        limits = {"bos": model.bos, "eos": task.eos, "max_length": task.max_length}
        draw = sample(model.stepper(), state, generator=generator, **limits)
        tokens, mask = draw.tokens[0], draw.mask[0]
        logp = model(tokens, mask, state).log_softmax(-1)
        other = self.reference(tokens, mask, self.reference.encode(batch.source, batch.lengths))
        terms = logp.exp() * (logp - other.log_softmax(-1))
        entropy = -logp.exp() * logp
        figures = {
            name: torch.where(mask.unsqueeze(-1), value, 0.0).nansum().item() / len(tokens)
            for name, value in (("KL", terms), ("held-out entropy", entropy))
        }
        return Evaluation({**found.figures, **figures}, found.standard_errors, found.details)
