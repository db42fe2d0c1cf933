"""The training loop."""

from __future__ import annotations

import math
from pathlib import Path
from time import perf_counter
from typing import Protocol

import torch
from torch import Tensor, nn

from pgest.runs.checkpoint import load_checkpoint, save_checkpoint
from pgest.runs.config import Config
from pgest.runs.files import load_tensors, locked, save_tensors
from pgest.runs.health import symptoms
from pgest.runs.history import Clock, Evaluation, Figures, History, Metric
from pgest.runs.interrupts import Interrupted, Request, stop_request
from pgest.runs.logs import Logs
from pgest.runs.modes import evaluating

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"


class Learner(Protocol):
    """What the loop trains.

    One with a state beside its model, such as a moving average, offers `state_dict()`, named
    tensors, and `load_state_dict(state)`: then checkpoints hold it.
    """

    metric: Metric
    """The held-out figure by which the best model is chosen."""

    @property
    def model(self) -> nn.Module:
        """The module whose parameters are trained."""

    def loss(self, generator: torch.Generator, clock: Clock) -> tuple[Tensor, Figures]:
        """Return the loss of one update, a scalar to minimise, and figures to log."""

    def evaluate(self) -> Evaluation:
        """Return figures on held-out data; the same for the same weights."""


def train(
    learner: Learner, config: Config, folder: Path, *, shown: tuple[str, ...] = (), bar: bool = True
) -> History:
    """Minimise the learner's loss with AdamW, leave its best model in `folder` and in the learner.

    Gradients are clipped by their norm. Held-out figures are taken before the first update, every
    `evaluate_every` updates and after the last; each time `folder` gets a checkpoint, and
    `best.safetensors` when the metric is the best so far. A folder with a checkpoint is gone on
    with: all randomness comes from one generator and, for modules such as dropout, torch's own,
    which the checkpoint holds, so that the end has the same numbers as that of a run which was
    never stopped (on the same machine and threads). The caller's random state is left alone.

    Ctrl-C or SIGTERM ends the run after the update at hand, with a checkpoint. `shown` are the
    figures of the progress bar.

    Raises:
        ImportError: where a package of the extra `tasks` is missing.
        Interrupted: after Ctrl-C or SIGTERM.
        InputError: for a checkpoint that is damaged, or of another model or configuration, and for
            a folder in which another process is at work.
        ValueError: for an evaluation without the learner's metric.
        FloatingPointError: if the gradient's norm is not finite; the model keeps its last weights.
    """
    device = torch.device(config.device)
    with locked(folder), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        state = _Training(learner, config, folder)
        with stop_request() as stop, Logs(config, folder, state.history, shown, bar) as logs:
            _train(state, stop, logs)
    state.take_best()
    return state.history


def _train(state: _Training, stop: Request, logs: Logs) -> None:
    """Update and evaluate until the run is finished or asked to stop."""
    path = state.folder / CHECKPOINT
    state.model.train()
    while True:
        if state.due:
            state.evaluate(logs)
            save_checkpoint(path, state)
        if state.finished:
            return
        if stop.made:
            save_checkpoint(path, state)
            raise Interrupted(f"stopped before update {state.step} of {state.config.steps}")
        state.update(logs)


class _Training:
    """Everything that changes while the loop runs."""

    def __init__(self, learner: Learner, config: Config, folder: Path) -> None:
        self.learner, self.config, self.folder = learner, config, folder
        self.history, self.clock = History(), Clock()
        self.history.seconds = self.clock.seconds
        self.generator = torch.Generator(config.device).manual_seed(config.seed)
        self.parameters = [p for p in learner.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        if (folder / CHECKPOINT).exists():
            load_checkpoint(folder / CHECKPOINT, self)

    @property
    def model(self) -> nn.Module:
        return self.learner.model

    @property
    def step(self) -> int:
        """The number of updates that are done."""
        return len(self.history.updates)

    @property
    def due(self) -> bool:
        """Whether this step's evaluation is missing."""
        done = self.history.evaluations
        if done and done[-1]["step"] == self.step:
            return False
        return self.step % self.config.evaluate_every == 0 or self.step >= self.config.steps

    @property
    def finished(self) -> bool:
        """Whether the last update is done, or the held-out metric has not improved for long."""
        rows, patience = self.history.evaluations, self.config.patience
        waited = len(rows) - 1 - self.history.best(self.learner.metric) if rows else 0
        return self.step >= self.config.steps or 0 < patience <= waited

    def update(self, logs: Logs) -> None:
        """Take one step of the optimizer."""
        started, counted = perf_counter(), sum(self.clock.seconds.values())
        loss, figures = self.learner.loss(self.generator, self.clock)
        with self.clock("backward"):
            self.optimizer.zero_grad()
            loss.backward()
        with self.clock("optimizer"):
            norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm).item()
            if not math.isfinite(norm):
                raise FloatingPointError(
                    f"update {self.step}: the gradient's norm is {norm}; the last checkpoint is in "
                    f"{self.folder}"
                )
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * rate(self.step, self.config)
            self.optimizer.step()
        self.history.updates.append({"step": self.step, **figures, "gradient norm": norm})
        logs.update(self.history)
        elapsed = perf_counter() - started
        self.clock.add("other", elapsed - (sum(self.clock.seconds.values()) - counted))

    def evaluate(self, logs: Logs) -> None:
        """Take held-out figures, keep the model if it is the best so far, and warn."""
        metric, history = self.learner.metric, self.history
        with evaluating(self.model), self.clock("held-out evaluation"):
            result = self.learner.evaluate()
        if metric.name not in result.figures:
            raise ValueError(
                f"evaluate must return the metric {metric.name!r}, got {list(result.figures)}"
            )
        history.evaluations.append({"step": self.step, **result.figures})
        if history.best(metric) == len(history.evaluations) - 1:
            save_tensors(self.folder / BEST, self.model.state_dict())
        error = result.standard_errors.get(metric.name, math.nan)
        known = {warning["about"] for warning in history.warnings}
        for about, sentence in symptoms(history, metric, error).items():
            if about not in known:  # once is enough
                history.warnings.append({"about": about, "sentence": sentence})
                logs.warn(sentence)
        logs.evaluation(history)

    def take_best(self) -> None:
        """Give the learner the weights of the best evaluation, ready to be used."""
        tensors, _ = load_tensors(self.folder / BEST)
        self.model.load_state_dict(tensors)
        self.model.eval()


def rate(step: int, config: Config) -> float:
    """Return the fraction of the learning rate that update `step` uses."""
    rising = min(1.0, (step + 1) / (config.warmup + 1))
    left = min(1.0, (config.steps - step) / (config.steps - config.warmup))
    falling = {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}
    return min(rising, falling[config.schedule])
