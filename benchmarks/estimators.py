"""Bias and variance of every estimator without sampling error, and what a step of one costs.

`python -m benchmarks.estimators` writes `results/estimators.md` and `results/estimators.png`.

Estimates are enumerated: every outcome of the samples is a row of one batch, weighted by its
probability. The noise of Gumbel-softmax is continuous; a midpoint rule stands for its expectation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

import pgest
from benchmarks.harness import RESULTS, Candidate, environment, measure
from benchmarks.joint_outcomes import noise_outcomes
from pgest.estimators import Estimator, GumbelSoftmax, MovingAverage, registry

EVALUATIONS = 4
# Samples of what evaluates f more often than it draws; moving logits one by one takes seven.
SAMPLES = {"S + 1": 3, "3 S": 1, "S (2 n + 1)": 1, "S (1 + n (V - 1))": 1}
MIDPOINTS = 200_000
Cost = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """A cost of one draw, small enough to enumerate four samples of it."""

    title: str
    kind: type[pgest.Bernoulli] | type[pgest.OneHotCategorical]
    logits: Tensor
    f: Cost

    @property
    def event_dims(self) -> int:
        """All variables are one draw."""
        return 1 if self.kind is pgest.Bernoulli else 0

    def gradients(
        self, estimator: str | Estimator, noise: Tensor, samples: int, count: int
    ) -> Tensor:
        """Gradient estimates [rows, ...] for noise of as many rows."""
        rows = self.logits.expand(count, *self.logits.shape).clone().requires_grad_()
        q = self.kind(rows, event_dims=self.event_dims)
        value = pgest.expect(self.f, q, estimator, num_samples=samples, noise=noise)
        return torch.autograd.grad(value.sum(), rows)[0]


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def three_bits(z: Tensor) -> Tensor:
    return (z @ tensor(1.0, -0.5, 0.7) + 2 * z[..., 0] * z[..., 1] - 0.6) ** 3 + z[..., 2]


PROBLEMS = (
    Problem("one bit, (z - 0.45)²", pgest.Bernoulli, tensor(0.75).logit(),
            lambda z: ((z - 0.45) ** 2).sum(-1)),
    Problem("three bits, a cubic", pgest.Bernoulli, tensor(0.3, -1.1, 0.8), three_bits),
    Problem("one of three, a quartic", pgest.OneHotCategorical, tensor(0.3, -0.8, 0.5),
            lambda z: (z @ tensor(1.0, -1.2, 0.4)) ** 4),
)  # fmt: skip


def midpoints(problem: Problem) -> tuple[Tensor, Tensor]:
    """One sample's noise on a grid [1, rows, ...], equally probable."""
    n = round(MIDPOINTS ** (1 / problem.logits.numel()))
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    grid = torch.cartesian_prod(*[axis] * problem.logits.numel()).view(
        1, -1, problem.logits.numel()
    )
    return grid, torch.full((grid.shape[1],), 1 / grid.shape[1], dtype=torch.float64)


@dataclass(frozen=True)
class Row:
    """Bias and spread relative to the true gradient's length, and along its direction."""

    bias: float
    spread: float
    along_mean: float
    along_spread: float

    def cells(self) -> str:
        """Bias and spread in percent."""
        return f"{0 if self.bias < 1e-9 else 100 * self.bias:.1f} | {100 * self.spread:.1f}"


def row(problem: Problem, estimator: str | Estimator) -> Row | None:
    """The exact moments of an estimator with four evaluations of f; None where it does not fit."""
    (truth,) = problem.gradients("exact", torch.zeros(1, 1), 1, 1)
    chosen = registry[estimator] if isinstance(estimator, str) else estimator
    if not issubclass(problem.kind, chosen.traits.distributions):
        return None
    gumbel = isinstance(chosen, GumbelSoftmax)
    samples = 1 if gumbel else SAMPLES.get(chosen.traits.evaluations, EVALUATIONS)
    noise, p = (
        midpoints(problem)
        if gumbel
        else noise_outcomes(estimator, problem.kind, problem.logits, samples, problem.event_dims)
    )
    g = problem.gradients(estimator, noise, samples, len(p)).expand(len(p), -1) / truth.norm()
    mean = p @ g
    variance = p @ (g - mean) ** 2 / (EVALUATIONS if gumbel else 1)  # the mean of independent ones
    along = g @ truth / truth.norm()
    spread = p @ (along - p @ along) ** 2 / (EVALUATIONS if gumbel else 1)
    bias = (mean - truth / truth.norm()).norm()
    return Row(float(bias), float(variance.sum().sqrt()), float(p @ along), float(spread.sqrt()))


def settled(problem: Problem) -> MovingAverage:
    """A moving average that has seen the expected cost for long, and is frozen: its best case."""
    q = problem.kind(problem.logits, event_dims=problem.event_dims)
    estimator = MovingAverage()
    estimator.weight(pgest.expect(problem.f, q, "exact"))
    return estimator.eval()


def figures() -> list[tuple[str, list[Row | None]]]:
    """One row of every problem for each estimator."""
    names = dict.fromkeys(["exact", "rloo", "MovingAverage", *registry])
    return [
        (n, [row(q, settled(q) if n == "MovingAverage" else n) for q in PROBLEMS]) for n in names
    ]


def plot(found: list[tuple[str, list[Row | None]]], path: Path) -> None:
    """Draw where each estimate lies: dot = mean, bar = one standard deviation to both sides."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1 + 0.3 * len(found)), layout="constrained")
    panels = figure.subplots(1, len(PROBLEMS), sharey=True)
    for i, (problem, axes) in enumerate(zip(PROBLEMS, panels, strict=True)):
        axes.axvline(1, color="black", linewidth=1, linestyle="--")
        for y, (_, rows) in enumerate(found):
            r = rows[i]
            if r is None:
                continue
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


def report(
    found: list[tuple[str, list[Row | None]]], times: dict[str, float], small: dict[str, float]
) -> str:
    """The page of results."""
    facts = environment()
    lines = [
        "# Estimators: bias, spread and the time of a step",
        "",
        f"Made by `python -m benchmarks.estimators` on {facts['device']}, torch {facts['torch']}, "
        f"pgest {facts['pgest']}, {facts['date']}.",
        "",
        "Bias and standard deviation (sd) in percent of the true gradient's length, with at most",
        f"{EVALUATIONS} evaluations of f (`exact`: the support; `finite_differences`: one sample,",
        "which takes 3 or 7), enumerated. `gumbel_softmax` has temperature 1 and a midpoint rule",
        f"with {MIDPOINTS} points, good to about 2 percent;",
        "`MovingAverage` is shown at its best: its baseline has settled on the expected cost, and",
        "that of a model which still learns keeps moving.",
        "",
        "| estimator | " + " | ".join(f"{p.title}: bias | sd" for p in PROBLEMS) + " |",
        "|---|" + "---:|" * (2 * len(PROBLEMS)),
    ]
    for name, rows in found:
        cells = ("- | -" if r is None else r.cells() for r in rows)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
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
