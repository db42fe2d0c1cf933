"""Bias and variance of every estimator without sampling error, and what a step of one costs.

`python -m benchmarks.estimators` writes `results/estimators.md` and `results/estimators.png`.

Estimates are enumerated: every outcome of the samples is a row of one batch, weighted by its
probability. Where noise is continuous a midpoint rule, or many draws, stand for its expectation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

import pgest
from benchmarks.harness import RESULTS, Candidate, environment, measure
from pgest.comparison import problems
from pgest.comparison.outcomes import outcomes
from pgest.estimators import Estimator, MovingAverage, registry

EVALUATIONS = 4
MIDPOINTS = 200_000
Cost = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """A cost of one draw, small enough to enumerate four samples of it."""

    title: str
    kind: Any
    logits: Tensor
    f: Cost

    def gradients(self, estimator: str | Estimator, noise: Tensor, samples: int) -> Tensor:
        """Gradient estimates [rows, ...] for noise [S, rows, ...]."""
        rows = self.logits.expand(noise.shape[1], *self.logits.shape).clone().requires_grad_()
        q = self.kind(rows, event_dims=1 if self.kind is pgest.Bernoulli else 0)
        value = pgest.expect(self.f, q, estimator, num_samples=samples, noise=noise)
        return torch.autograd.grad(value.sum(), rows)[0]


PROBLEMS = tuple(
    Problem(given.title, type(given.distribution), given.distribution.logits, given.f)
    for given in (problems[name] for name in ("one-bit", "three-bits", "one-of-three"))
)


def one_sample(problem: Problem, estimator: Estimator) -> tuple[Tensor, Tensor]:
    """One sample's noise [1, rows, ...], equally probable: a grid, or many draws."""
    q = problem.kind(problem.logits, event_dims=0)
    shape = estimator.noise_shape(q, 1)[1:]
    n = round(MIDPOINTS ** (1 / shape.numel()))
    if n > 10:
        axis = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        noise = torch.cartesian_prod(*[axis] * shape.numel()).view(1, -1, *shape)
    else:
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(1, MIDPOINTS, *shape, dtype=torch.float64, generator=generator)
    return noise, torch.full((noise.shape[1],), 1 / noise.shape[1], dtype=torch.float64)


@dataclass(frozen=True)
class Row:
    """Bias and spread relative to the true gradient's length, and along its direction."""

    bias: float
    spread: float
    along_mean: float
    along_spread: float


def row(problem: Problem, estimator: str | Estimator) -> Row:
    """The exact moments of an estimator with four evaluations of f; the support's for exact."""
    (truth,) = problem.gradients("exact", torch.zeros(1, 1), 1)
    chosen = registry[estimator] if isinstance(estimator, str) else estimator
    if not issubclass(problem.kind, chosen.traits.distributions):
        return Row(math.nan, math.nan, math.nan, math.nan)
    continuous = not (chosen.traits.enumerable or "support" in chosen.traits.evaluations)
    noise, p = (
        one_sample(problem, chosen)
        if continuous
        else outcomes(problem.kind, problem.logits, EVALUATIONS)
    )
    g = problem.gradients(estimator, noise, noise.shape[0]).expand(len(p), -1) / truth.norm()
    mean = p @ g
    calls = EVALUATIONS if continuous else 1  # whose mean is taken
    variance = p @ (g - mean) ** 2 / calls
    along = g @ truth / truth.norm()
    spread = p @ (along - p @ along) ** 2 / calls
    bias = (mean - truth / truth.norm()).norm()
    return Row(float(bias), float(variance.sum().sqrt()), float(p @ along), float(spread.sqrt()))


def settled(problem: Problem) -> MovingAverage:
    """A moving average that has seen the expected cost for long, and is frozen: its best case."""
    q = problem.kind(problem.logits, event_dims=1 if problem.kind is pgest.Bernoulli else 0)
    estimator = MovingAverage()
    estimator.weight(pgest.expect(problem.f, q, "exact"))
    return estimator.eval()


def figures() -> list[tuple[str, list[Row]]]:
    """One row of every problem for each estimator."""
    names = dict.fromkeys(["exact", "rloo", "MovingAverage", *registry])
    return [
        (n, [row(q, settled(q) if n == "MovingAverage" else n) for q in PROBLEMS]) for n in names
    ]


def plot(found: list[tuple[str, list[Row]]], path: Path) -> None:
    """Draw where each estimate lies: dot = mean, bar = one standard deviation to both sides."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, len(PROBLEMS), sharey=True)
    for i, (problem, axes) in enumerate(zip(PROBLEMS, panels, strict=True)):
        axes.axvline(1, color="black", linewidth=1, linestyle="--")
        for y, (_, rows) in enumerate(found):
            r = rows[i]
            color = "tab:blue" if r.bias < 1e-9 else "tab:orange"
            ends = [r.along_mean - r.along_spread, r.along_mean + r.along_spread]
            axes.plot(ends, [y, y], color=color, linewidth=6, alpha=0.35, solid_capstyle="butt")
            axes.plot([r.along_mean], [y], "o", color=color)
        axes.set_title(problem.title)
        axes.set_xlabel("estimated gradient / true gradient")
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(found)), [name for name, _ in found])
    panels[0].invert_yaxis()
    figure.suptitle(
        f"Where an estimate lies: dot = its mean, bar = ± one standard deviation "
        f"({EVALUATIONS} evaluations).\nBlue is unbiased. MovingAverage has settled: its best case."
    )
    figure.savefig(path, dpi=120)


class Autoencoder(nn.Module):
    """784-200-200 to 200 bits and back, leaky ReLU: the usual binary autoencoder of digits."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = self.stack(784, 200), self.stack(200, 784)

    @staticmethod
    def stack(inputs: int, outputs: int) -> nn.Sequential:
        sizes = [inputs, 200, 200, outputs]
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        return nn.Sequential(layers[0], nn.LeakyReLU(0.3), layers[1], nn.LeakyReLU(0.3), layers[2])

    def nll(self, z: Tensor, x: Tensor) -> Tensor:
        logits = self.decoder(z)
        return binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(
            -1
        )


def with_pgest(net: Autoencoder, x: Tensor, samples: int) -> Tensor:
    bits = pgest.Bernoulli(net.encoder(x), event_dims=1)
    return pgest.expect(lambda z: net.nll(z, x), bits, "rloo", num_samples=samples)


def by_hand(net: Autoencoder, x: Tensor, samples: int) -> Tensor:
    """What people write: torch's Bernoulli log-probability of all samples at once."""
    logits = net.encoder(x)
    wide = logits.expand(samples, *logits.shape)
    z = torch.bernoulli(wide.detach().sigmoid())
    cost = net.nll(z, x)
    weight = (cost.detach() - cost.detach().mean(0)) * samples / (samples - 1)
    logp = -binary_cross_entropy_with_logits(wide, z, reduction="none").sum(-1)
    return (cost + weight * (logp - logp.detach())).mean(0)


def by_hand_tuned(net: Autoencoder, x: Tensor, samples: int) -> Tensor:
    """The same with the softplus taken once a row, and cheaper uniforms."""
    logits = net.encoder(x)
    z = (torch.rand(samples, *logits.shape) < logits.detach().sigmoid()).float()
    cost = net.nll(z, x)
    weight = (cost.detach() - cost.detach().mean(0)) * samples / (samples - 1)
    logp = (z * logits).sum(-1) - softplus(logits).sum(-1)
    return (cost + weight * (logp - logp.detach())).mean(0)


def step_times(budget_s: float, batch: int = 100, samples: int = 4) -> dict[str, float]:
    """Median seconds of forward and backward, candidates in turns."""
    torch.manual_seed(0)
    net, x = Autoencoder(), torch.bernoulli(torch.full((batch, 784), 0.13))

    def candidate(step: Callable[[Autoencoder, Tensor, int], Tensor]) -> Candidate:
        def run() -> None:
            net.zero_grad()
            step(net, x, samples).mean().backward()

        return Candidate(run)

    steps = {f.__name__: candidate(f) for f in (with_pgest, by_hand, by_hand_tuned)}
    return {name: m.seconds for name, m in measure(steps, budget_s).items()}


def small_step_times(budget_s: float, samples: int = 100) -> dict[str, float]:
    """The same of four bits with a quadratic cost, where the time is that of the calls."""
    logits, target = torch.zeros(4, requires_grad=True), torch.tensor([0.6, 0.51, 0.48, 0.45])

    def cost(z: Tensor) -> Tensor:
        return ((z - target) ** 2).sum(-1)

    def small_with_pgest() -> None:
        bits = pgest.Bernoulli(logits, event_dims=1)
        pgest.expect(cost, bits, "rloo", num_samples=samples).backward()

    def small_by_hand() -> None:
        z = (torch.rand(samples, 4) < logits.detach().sigmoid()).float()
        c = cost(z)
        weight = (c - c.mean()) * samples / (samples - 1)
        (weight * ((z * logits).sum(-1) - softplus(logits).sum())).mean().backward()

    steps = {f.__name__: Candidate(f) for f in (small_with_pgest, small_by_hand)}
    return {name: m.seconds for name, m in measure(steps, budget_s).items()}


def cells(r: Row) -> str:
    """Bias and spread in percent, or dashes where the estimator does not take the distribution."""
    if math.isnan(r.bias):
        return "– | –"
    return f"{0 if r.bias < 1e-9 else 100 * r.bias:.1f} | {100 * r.spread:.1f}"


def report(
    found: list[tuple[str, list[Row]]], times: dict[str, float], small: dict[str, float]
) -> str:
    """The page of results."""
    facts = environment()
    lines = [
        "# Estimators: bias, spread and the time of a step",
        "",
        f"Made by `python -m benchmarks.estimators` on {facts['device']}, torch {facts['torch']}, "
        f"pgest {facts['pgest']}, {facts['date']}.",
        "",
        "Bias and standard deviation (sd) in percent of the true gradient's length, with",
        f"{EVALUATIONS} evaluations of f (`exact`: the support), enumerated. Where the noise is",
        f"continuous (the Gumbel family, hard concrete) a midpoint rule with {MIDPOINTS} points",
        "is good to about 2 percent; `gumbel_rao` is that many draws. A dash is a distribution",
        "that is not taken. `MovingAverage` is shown at its best: its baseline has settled on the",
        "expected cost, and that of a model which still learns keeps moving.",
        "",
        "| estimator | " + " | ".join(f"{p.title}: bias | sd" for p in PROBLEMS) + " |",
        "|---|" + "---:|" * (2 * len(PROBLEMS)),
    ]
    for name, rows in found:
        lines.append(f"| {name} | " + " | ".join(cells(r) for r in rows) + " |")
    lines += [
        "",
        "## Time of a step",
        "",
        "`rloo` with f = the decoder of a 784-200-200-200 binary autoencoder, B = 100, S = 4:",
        "encoder, samples, decoder, backward, without the optimiser. Medians of rounds in turns.",
        "The small step, which shows a call's overhead: four bits, a quadratic cost, S = 100.",
        "",
        "| step | milliseconds | pgest / this |",
        "|---|---:|---:|",
    ]
    for group in (times, small):
        first = next(iter(group.values()))
        for name, seconds in group.items():
            lines.append(f"| {name} | {1000 * seconds:.2f} | {first / seconds:.3f} |")
    return "\n".join(lines) + "\n"


def main(budget_s: float = 30.0) -> None:
    """Measure, print, and write the page and the picture."""
    torch.set_num_threads(1)
    found = figures()
    page = report(found, step_times(budget_s), small_step_times(budget_s / 3))
    print(page)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "estimators.md").write_text(page, encoding="utf-8")
    plot(found, RESULTS / "estimators.png")


if __name__ == "__main__":
    main()
