"""Policy-gradient training of sequence models."""

from __future__ import annotations

import torch
from torch import Tensor

from pgest.advantages import leave_one_out, self_critical
from pgest.objectives import logit_l2, reinforce_loss
from pgest.ops import token_logp
from pgest.runs.history import Clock, Evaluation, Figures
from pgest.runs.sequences import Batch, HeldOut, SequenceConfig, SequenceTask
from pgest.runs.supervised import cross_entropy
from pgest.seq2seq import Distinct, Seq2Seq, Sequences, State, distinct, greedy, sample


class PolicyGradient:
    """REINFORCE with a baseline on samples of the current policy: a `Learner`.

    For each of B prompts S sequences y are drawn from the policy p (at `temperature`). With the
    gain `g(y) = reward(y) - entropy_coef log p(y) - kl_coef (log p(y) - log q(y))`, q the policy
    before training, and `weight[s] = g(y_s) - baseline`, the loss
    `-1/(S B) sum of weight * log p(y)` has in expectation the gradient of
    `-E[reward] - entropy_coef H(p) + kl_coef KL(p || q)`, H and KL those of the whole sequence in
    nats. `xe_coef` adds the cross-entropy of references, `logit_l2_coef` the mean squared logit of
    the sampled tokens. Samples, gains and weights are detached. The encoder runs once; equal
    samples are scored once, and those of weight 0 not at all where nothing else needs them.

    Source: Williams 1992; Williams and Peng 1991 (entropy); Rennie et al. 2017 (arXiv 1612.00563,
    self-critical); Kool et al. 2019 and Ahmadian et al. 2024 (arXiv 2402.14740), leave-one-out and
    KL in the reward; Wu et al. 2016 (arXiv 1609.08144), mixing.

    Raises:
        ValueError: for a reward that is not finite or not `[S, B]`.
        TypeError: for one that is no floating-point tensor.
    """

    def __init__(self, task: SequenceTask, config: SequenceConfig) -> None:
        self.task, self.config, self.metric = task, config, task.metric
        self.held_out = HeldOut(task, config)

    @property
    def model(self) -> Seq2Seq:
        """The policy."""
        return self.task.model

    def loss(self, generator: torch.Generator, clock: Clock) -> tuple[Tensor, Figures]:
        """Return the loss of one update, and the reward, entropy and spread of its samples."""
        task, model, config = self.task, self.model, self.config
        with clock("prompts and encoder"):
            batch = task.batch(config.batch_size, generator)
            state = model.encode(batch.source, batch.lengths)
            opening = tuple(part.detach() for part in state)
        with clock("samples"):
            draw = self._draw(opening, generator)
        with clock("reward"):
            reward, figures = task.reward(draw, batch)
            _check_reward(reward, draw.tokens.shape[:2])
        with clock("samples"):
            merged = distinct(draw.tokens, draw.mask)
        gain, more = self._gain(reward, draw, merged, batch, clock)
        with clock("baseline"):
            weight = merged.total(self._advantage(gain, opening, batch))
        with clock("scores and loss"):
            loss = self._loss(weight, merged, state, reward.numel())
            if config.xe_coef:
                supervised = cross_entropy(task, batch, state, generator)
                loss = loss + config.xe_coef * supervised
                more["cross-entropy"] = supervised.item()
        return loss, {
            "reward": reward.mean().item(),
            # The mean of -log p over drawn tokens, in nats.
            "entropy": -(draw.logp.sum() / draw.mask.sum()).item(),
            "tied groups": (reward == reward[0]).all(0).float().mean().item(),
            **more,
            **figures,
        }

    def evaluate(self) -> Evaluation:
        """Return the task's figures on held-out data, and how far the policy has moved."""
        return self.held_out.evaluate()

    def _draw(self, opening: State, generator: torch.Generator) -> Sequences:
        return sample(
            self.model.stepper(),
            opening,
            self.config.num_samples,
            bos=self.model.bos,
            eos=self.task.eos,
            max_length=self.task.max_length,
            temperature=self.config.temperature,
            generator=generator,
        )

    def _gain(
        self, reward: Tensor, draw: Sequences, merged: Distinct, batch: Batch, clock: Clock
    ) -> tuple[Tensor, Figures]:
        """Return the reward with the bonus for entropy and the penalty for divergence."""
        # -log p is an unbiased estimate of the entropy, and its score-function gradient is exact:
        # the mean over samples of (-log p - 1) grad log p, of which the baseline takes the -1.
        logp = draw.logp.sum(-1)
        gain = reward - self.config.entropy_coef * logp
        if not self.config.kl_coef:
            return gain, {}
        reference = self.held_out.reference
        with clock("KL"), torch.no_grad():
            state = reference.encode(batch.source, batch.lengths)
            opening = tuple(part[merged.row] for part in state)
            logits = reference(merged.tokens, merged.mask, opening)
            scores = token_logp(
                logits, merged.tokens, temperature=self.config.temperature, mask=merged.mask
            )
        ratio = logp - scores.sum(-1)[merged.inverse]
        return gain - self.config.kl_coef * ratio, {"sampled KL": ratio.mean().item()}

    def _advantage(self, gain: Tensor, opening: State, batch: Batch) -> Tensor:
        """Return the gain minus the baseline, `[S, B]`."""
        if self.config.baseline == "leave_one_out":
            return leave_one_out(gain)
        if self.config.baseline == "none":
            return gain
        task, model = self.task, self.model
        best = greedy(
            model.stepper(), opening, bos=model.bos, eos=task.eos, max_length=task.max_length
        )
        return self_critical(gain, task.reward(best, batch)[0][0])

    def _loss(self, weight: Tensor, merged: Distinct, state: State, samples: int) -> Tensor:
        penalty = self.config.logit_l2_coef
        keep = slice(None) if penalty else weight.nonzero().squeeze(-1)
        row, tokens, mask = merged.row[keep], merged.tokens[keep], merged.mask[keep]
        logits = self.model(tokens, mask, tuple(part[row] for part in state))
        loss = reinforce_loss(
            logits,
            tokens,
            weight[keep].unsqueeze(-1),
            mask=mask,
            temperature=self.config.temperature,
            normalizer=samples,
        )
        if not penalty:
            return loss
        count = merged.total(torch.ones_like(merged.inverse, dtype=logits.dtype)).unsqueeze(-1)
        size = logit_l2(logits, weight=count, mask=mask, normalizer=(count * mask).sum())
        return loss + penalty * size


def _check_reward(reward: Tensor, shape: torch.Size) -> None:
    if not isinstance(reward, Tensor) or not reward.is_floating_point():
        came = reward.dtype if isinstance(reward, Tensor) else type(reward).__name__
        raise TypeError(f"reward must be a floating-point tensor, got {came}")
    if reward.shape != shape:
        raise ValueError(
            f"reward must have shape {tuple(shape)}, samples and prompts, got {tuple(reward.shape)}"
        )
    if not reward.isfinite().all():
        raise ValueError(f"reward must be finite, got {reward[~reward.isfinite()][0].item()}")
