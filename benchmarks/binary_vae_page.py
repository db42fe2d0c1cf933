"""The page and the picture of `benchmarks.binary_vae`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness import environment
from pgest.tasks.binary_vae.estimators import traits
from pgest.tasks.binary_vae.task import NAME

if TYPE_CHECKING:
    from benchmarks.binary_vae import Result

SETTING = """{images}: two hidden layers of {hidden} leaky ReLUs (0.3) on each side, {code} bits, a
fixed prior of 1/2, images binarised anew at each read, batches of {batch_size}, Adam at
{learning_rate:g}, {steps:,} updates, the sampled log q - log p in the cost for every estimator.
{models} models each, trained side by side. Nothing was tuned for any estimator."""
MEASURED = """Bounds are in nats per image, of hard codes: mean ± standard deviation of the models,
at the update that was best on held-out images; training and held-out ELBO of at most
{evaluation_images:,} images each, the test's of all. S: draws for each image. f: evaluations of the
decoder for each image. Time: of an update over one of `{first}`, timed in turns. Equal time: the
curve of the training ELBO when `{first}` has made all its updates."""
COLUMNS = ("training ELBO", "held-out ELBO", "test ELBO")


def page(results: Sequence[Result], seconds: Sequence[float], flags: str) -> str:
    """Return the page of results."""
    facts, config, first = environment(), results[0].config, results[0].choice.estimator
    commits = sorted({str(r.record["environment"]["commit"])[:7] for r in results})
    images = results[0].measured["images"]
    (bound,) = results[0].bounds.keys() - COLUMNS
    columns = " | ".join([*COLUMNS, bound])
    lines = [
        "# Binary autoencoders: what each estimator reaches",
        "",
        f"`python -m benchmarks.binary_vae` wrote this, of `pgest run {NAME} {flags}`,",
        f"trained by commit {', '.join(commits)}.",
        "",
        f"- device: {facts['device']}",
        f"- torch: {facts['torch']}",
        f"- pgest: {facts['pgest']}",
        f"- date: {facts['date']}",
        "",
        fill(SETTING.format(images=images, **vars(config))),
        "",
        fill(MEASURED.format(first=first, **vars(config))),
        "",
        f"| estimator | unbiased | S | f | {columns} | time | equal time |",
        "|---|---|---:|---:|" + "---:|" * (len(COLUMNS) + 3),
    ]
    lines += [row(results[i], seconds[i] / seconds[0], bound) for i in best_first(results)]
    return "\n".join(lines) + "\n"


def best_first(results: Sequence[Result]) -> list[int]:
    """Return their places, by the training ELBO."""
    return sorted(range(len(results)), key=lambda i: -mean(results[i], "training ELBO"))


def row(result: Result, time: float, bound: str) -> str:
    """Return a line of the table."""
    choice, declared = result.choice, traits(result.choice.estimator)
    evaluations = {"S": 1, "3 S": 3}[declared.evaluations] * choice.num_samples
    steps, elbo = result.curve
    there = "–" if time < 0.97 else f"{np.interp(steps[-1] / time, steps, elbo):.1f}"
    name = f"{choice.estimator} {choice.more.replace('--temperature', 'at')}".strip()
    cells = [name, "yes" if declared.unbiased else "no", str(choice.num_samples), str(evaluations)]
    cells += [spread(result.bounds[column]) for column in (*COLUMNS, bound)]
    return "| " + " | ".join([*cells, f"{time:.2f}", there]) + " |"


def mean(result: Result, name: str) -> float:
    """Return the mean over models."""
    return statistics.mean(result.bounds[name])


def spread(values: Sequence[float]) -> str:
    """Return mean ± standard deviation."""
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def picture(results: Sequence[Result], seconds: Sequence[float], path: Path) -> None:
    """Draw the training ELBO against updates, and against time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for place, i in enumerate(best_first(results)):
        steps, elbo = results[i].curve
        declared = traits(results[i].choice.estimator)
        style = {"color": f"C{place % 10}", "linestyle": "-" if declared.unbiased else "--"}
        panels[0].plot(steps, elbo, label=results[i].choice.estimator, **style)
        panels[1].plot(np.array(steps) * seconds[i] / seconds[0], elbo, **style)
    reference, images = results[0].choice.estimator, results[0].measured["images"]
    panels[0].set_xlabel("update")
    panels[1].set_xlabel(f"time, in updates of {reference}")
    panels[1].set_xlim(0, results[0].config.steps)
    top = max(mean(r, "training ELBO") for r in results)
    panels[0].set_ylim(top - 60, top + 3)
    panels[0].set_ylabel("training ELBO in nats per image")
    for axes in panels:
        axes.grid(alpha=0.3)
    panels[0].legend(title="best first; dashed: biased", fontsize="small", ncols=2)
    figure.suptitle(f"Binary autoencoders of {images}, mean of {results[0].config.models} models")
    figure.savefig(path, dpi=120)
