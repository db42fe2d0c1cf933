"""The training loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from pgest.runs.config import Config

if TYPE_CHECKING:
    from tqdm import tqdm

Figures = dict[str, float]
"""Named measurements of one update or one evaluation."""


class Learner(Protocol):
    """What the loop trains."""

    @property
    def model(self) -> nn.Module:
        """The module whose parameters are trained."""

    def loss(self, generator: torch.Generator) -> tuple[Tensor, Figures]:
        """Return the loss of one update, a scalar to minimise, and figures to log."""

    def evaluate(self) -> Figures:
        """Return figures on held-out data."""


@dataclass
class History:
    """The figures of every update and every evaluation; each holds its `step`."""

    updates: list[Figures] = field(default_factory=list)
    evaluations: list[Figures] = field(default_factory=list)


def train(learner: Learner, config: Config, *, progress: bool = True) -> History:
    """Minimise the learner's loss for `config.steps` updates of Adam and return what was measured.

    The rate rises linearly over the warm-up and falls linearly to 0; gradients are clipped by their
    norm. Held-out figures are taken before the first update, every `evaluate_every` updates and
    after the last. All randomness comes from one generator, seeded with `config.seed`.

    Raises:
        ImportError: where a progress bar is asked for and tqdm is missing.
        FloatingPointError: if the gradient's norm is not finite; the model keeps its last weights.
    """
    generator = torch.Generator(config.device).manual_seed(config.seed)
    parameters = [p for p in learner.model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config))
    history = History()
    with _bar(config.steps, progress) as bar:
        for step in range(config.steps + 1):
            if step % config.evaluate_every == 0 or step == config.steps:
                history.evaluations.append({"step": step, **_evaluate(learner)})
            if step == config.steps:
                break
            loss, figures = learner.loss(generator)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm).item()
            if norm - norm != 0:
                raise FloatingPointError(f"update {step}: the gradient's norm is {norm}")
            optimizer.step()
            schedule.step()
            history.updates.append({"step": step, **figures, "gradient norm": norm})
            bar.update()
            if step % 10 == 0:
                bar.set_postfix_str(_summary(history))
    return history


def _rate(step: int, config: Config) -> float:
    """Return the fraction of the learning rate that update `step` uses."""
    rising = (step + 1) / (config.warmup + 1)
    falling = (config.steps - step) / max(1, config.steps - config.warmup)
    return min(1.0, rising, falling)


def _evaluate(learner: Learner) -> Figures:
    learner.model.eval()
    with torch.no_grad():
        figures = learner.evaluate()
    learner.model.train()
    return figures


def _summary(history: History, window: int = 50) -> str:
    """Return the mean of recent updates and the last held-out figures on one line."""
    recent = history.updates[-window:]
    means = {key: sum(row[key] for row in recent) / len(recent) for key in recent[0]}
    shown = {**means, **history.evaluations[-1]}
    return " ".join(f"{key} {value:.3g}" for key, value in shown.items() if key != "step")


def _bar(total: int, progress: bool) -> tqdm[Any]:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError('the progress bar needs tqdm: pip install "pgest[tasks]"') from error
    return tqdm(total=total, disable=not progress, dynamic_ncols=True, smoothing=0.05)
