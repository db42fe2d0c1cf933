"""Binary autoencoders of MNIST, trained with one estimator each: which one to choose.

    python -m benchmarks.binary_vae --data FOLDER

Every run is a command line `pgest run binary-vae ...` with one thread, in a folder of its own; two
run at a time. What is done is not run again and what was stopped goes on. Then steps are timed, in
turns. The table and the picture go to `benchmarks/results/binary-vae.{md,png}`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.binary_vae_page import page, picture
from benchmarks.harness import RESULTS, Candidate, measure
from benchmarks.task_runs import finished_run
from pgest.runs import Clock, load_config
from pgest.runs.files import load_tensors, write_text
from pgest.tasks.binary_vae.config import BinaryVAEConfig
from pgest.tasks.binary_vae.task import NAME, BinaryVAE

DRAWS = 100  # of the test bound, for which the runs themselves take one: they test twice
FLAGS = "--preset mnist --bound-samples 1"


@dataclass(frozen=True)
class Choice:
    """An estimator with its draws for each image, two evaluations of the decoder as a rule."""

    estimator: str
    num_samples: int = 2
    more: str = ""

    @property
    def flags(self) -> str:
        """Those of the command."""
        words = f"--estimator {self.estimator} --num-samples {self.num_samples} {self.more}"
        return words.strip()


# Temperatures are the literature's; nothing was tuned, for any of them.
CHOICES = (
    Choice("rloo"),
    Choice("disarm"),
    Choice("nvil"),
    Choice("double_cv"),
    Choice("rodeo"),
    Choice("rebar", 1),
    Choice("reinmax"),
    Choice("straight_through"),
    Choice("st_gumbel", more="--temperature 0.5"),
    Choice("gumbel_softmax", more="--temperature 0.5"),
)


@dataclass(frozen=True)
class Result:
    """A finished run."""

    choice: Choice
    folder: Path

    @cached_property
    def config(self) -> BinaryVAEConfig:
        """Its settings."""
        return load_config(BinaryVAEConfig, NAME, self.folder / "config.json")

    @cached_property
    def record(self) -> dict[str, Any]:
        """What it wrote about itself."""
        found: dict[str, Any] = json.loads((self.folder / "record.json").read_text("utf-8"))
        return found

    @cached_property
    def measured(self) -> dict[str, Any]:
        """The `images`, and each model's `bounds` by name; taken once, of the best weights."""
        kept = self.folder / "bounds.json"
        if not kept.exists():
            torch.set_num_threads(1)
            task = BinaryVAE(replace(self.config, bound_samples=DRAWS))
            task.model.load_state_dict(load_tensors(self.folder / "best.safetensors")[0])
            bounds = {**task.evaluate().details, **task.test().details}
            write_text(kept, json.dumps({"images": task.images, "bounds": bounds}))
        found: dict[str, Any] = json.loads(kept.read_text("utf-8"))
        return found

    @property
    def bounds(self) -> dict[str, list[float]]:
        """Bounds of each model: of training, held-out and test images."""
        found: dict[str, list[float]] = self.measured["bounds"]
        return found

    @property
    def curve(self) -> tuple[list[float], list[float]]:
        """Updates, and the ELBO of training images there."""
        rows = self.record["history"]["evaluations"]
        return [row["step"] for row in rows], [row["training ELBO"] for row in rows]


def main(argv: list[str] | None = None) -> int:
    """Run what is missing, time steps, and write the page and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", default="mnist", help="as in `pgest run binary-vae`")
    parser.add_argument("--runs", type=Path, default=Path("runs/binary-vae-table"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--flags", default=FLAGS, help="those of every run")
    parser.add_argument("--only", default="", help="some of the estimators, with commas")
    parser.add_argument("--timing", type=float, default=60.0, help="seconds for timing steps")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of page and picture")
    args = parser.parse_args(argv)
    chosen = [c for c in CHOICES if not args.only or c.estimator in args.only.split(",")]

    def run(choice: Choice) -> Result:
        flags = f"{args.flags} {choice.flags}"
        place = args.runs / choice.estimator
        done = Result(choice, finished_run(NAME, place, flags, ["--data", args.data]))
        print(f"{choice.estimator}: {done.bounds}", flush=True)
        return done

    with ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(run, chosen))
    torch.set_num_threads(1)
    seconds = step_seconds(results, args.timing)
    args.results.mkdir(parents=True, exist_ok=True)
    text = page(results, seconds, args.flags)
    (args.results / "binary-vae.md").write_text(text, encoding="utf-8")
    picture(results, seconds, args.results / "binary-vae.png")
    print(text)
    return 0


def step_seconds(results: list[Result], budget_s: float) -> list[float]:
    """Seconds of an update with each estimator, in turns."""
    steps = {r.choice.estimator: Candidate(update(r.config)) for r in results}
    return [measured.seconds for measured in measure(steps, budget_s).values()]


def update(config: BinaryVAEConfig) -> Callable[[], None]:
    """Return an update of new models, as a run makes it."""
    task = BinaryVAE(config)
    generator, clock = torch.Generator().manual_seed(0), Clock()
    optimizer = torch.optim.AdamW(
        task.model.parameters(), lr=config.learning_rate, weight_decay=0.0, fused=True
    )

    def run() -> None:
        loss, _ = task.loss(generator, clock)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    sys.exit(main())
