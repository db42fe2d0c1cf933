"""`pgest compare`: the command."""

from __future__ import annotations

import argparse
import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pgest.comparison.compare import compare
from pgest.comparison.plot import plot
from pgest.comparison.problems import problems
from pgest.estimators import registry


def parser() -> argparse.ArgumentParser:
    """The command line after `pgest compare`."""
    names = ", ".join(problems)
    top = argparse.ArgumentParser(
        "pgest compare",
        description="Bias, variance and cost of every gradient estimator on a problem, ranked.",
    )
    top.add_argument(
        "problem",
        help="a Python file that defines f and distribution, and estimators (a dict of instances) "
        f"if there are others to compare; or one of {names}",
    )
    top.add_argument("--num-samples", type=int, default=4, help="S of each call (4)")
    top.add_argument("--precision", type=float, default=0.1, help="wanted relative error (0.1)")
    top.add_argument("--repeats", type=int, default=1000, help="calls where it estimates (1000)")
    top.add_argument("--seed", type=int, default=0, help="of the first of these calls (0)")
    top.add_argument("--estimators", help="names, with commas between them (all)")
    top.add_argument("--out", type=Path, help="folder for compare.json and compare.png (none)")
    return top


def load(problem: str) -> tuple[str, Any, Any, dict[str, Any]]:
    """The title, f, the distribution and further estimators of a file or a built-in problem.

    Raises:
        ValueError: neither a file nor a name; a file that does not define what it must.
    """
    if problem in problems:
        given = problems[problem]
        return given.title, given.f, given.distribution, {}
    path = Path(problem)
    if not path.is_file():
        names = ", ".join(problems)
        raise ValueError(f"problem must be a Python file or one of {names}, got {problem!r}")
    defined = runpy.run_path(problem)
    for name in ("f", "distribution"):
        if name not in defined:
            raise ValueError(f"{problem} must define {name}, as pgest.expect takes it")
    return path.name, defined["f"], defined["distribution"], defined.get("estimators", {})


def main(args: Sequence[str]) -> int:
    """Compare, print, and write what was asked for; 0 on success, 2 on misuse."""
    asked = parser().parse_args(args)
    try:
        title, f, distribution, more = load(asked.problem)
        names = asked.estimators.split(",") if asked.estimators else list(registry)
        found = compare(
            f,
            distribution,
            {**{name: name for name in names}, **more},
            num_samples=asked.num_samples,
            precision=asked.precision,
            repeats=asked.repeats,
            seed=asked.seed,
        )
    except (TypeError, ValueError) as error:
        print(f"pgest compare: {error}", file=sys.stderr)
        return 2
    print(f"{title}\n\n{found}")
    for name, why in found.refused.items():
        print(f"\n{name} does not apply: {why}")
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        record = {"problem": title, "torch": torch.__version__, **found.record()}
        (asked.out / "compare.json").write_text(json.dumps(record, indent=2) + "\n")
        plot(found, asked.out / "compare.png", title)
        print(f"\nwrote {asked.out / 'compare.json'} and {asked.out / 'compare.png'}")
    return 0
