"""`pgest compare`: the command."""

from __future__ import annotations

import argparse
import json
import runpy
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pgest.comparison.compare import compare, named, together
from pgest.comparison.figures import Comparison
from pgest.comparison.plot import plot
from pgest.comparison.problems import problems
from pgest.errors import InputError
from pgest.estimators import Estimator


def parser() -> argparse.ArgumentParser:
    """The command line after `pgest compare`."""
    names = ", ".join(problems)
    top = argparse.ArgumentParser(
        "pgest compare",
        description="Bias, variance and cost of every gradient estimator on a problem, ranked.",
    )
    top.add_argument(
        "problem",
        help="a Python file that defines f and distribution, and estimators (a dict of instances, "
        f"or a list) if there are others to compare; or one of {names}",
    )
    top.add_argument("--num-samples", type=int, default=4, help="S of each call (4)")
    top.add_argument("--precision", type=float, default=0.1, help="wanted relative error (0.1)")
    top.add_argument("--repeats", type=int, default=1000, help="calls where it estimates (1000)")
    top.add_argument("--seed", type=int, default=0, help="of the first of these calls (0)")
    top.add_argument(
        "--estimators", help="names, with commas between them, '' for the file's alone (all)"
    )
    top.add_argument("--out", type=Path, help="folder for compare.json and compare.png (none)")
    return top


def load(problem: str) -> tuple[str, Any, Any, Any]:
    """The title, f, the distribution and further estimators of a file or a built-in problem.

    Raises:
        InputError: neither a file nor a name; a file that does not define what it must.
    """
    if problem in problems:
        given = problems[problem]
        return given.title, given.f, given.distribution, {}
    path = Path(problem)
    if not path.is_file():
        names = ", ".join(problems)
        raise InputError(f"problem must be a Python file or one of {names}, got {problem!r}")
    defined = runpy.run_path(problem)
    for name in ("f", "distribution"):
        if name not in defined:
            raise InputError(f"{problem} must define {name}, as pgest.expect takes it")
    return path.name, defined["f"], defined["distribution"], defined.get("estimators", {})


def chosen(names: str | None, more: Any) -> Mapping[str, Estimator]:
    """Those of the command line, all by default, and those of the file."""
    listed = None if names is None else [name.strip() for name in names.split(",") if name.strip()]
    groups = [named(x) for x in (listed, more) if x is None or not hasattr(x, "__len__") or len(x)]
    return together(groups)


@contextmanager
def _running(problem: str) -> Iterator[None]:
    """The file's own folder can be imported from; what goes wrong in it is said with its line."""
    folder = str(Path(problem).resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    except SyntaxError as error:
        raise InputError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == problem]
        if not lines:
            raise
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{problem}, line {lines[-1]}: {what}") from error
    finally:
        sys.path.remove(folder)


def main(args: Sequence[str]) -> int:
    """Compare, print, and write what was asked for; 0 on success, 2 on misuse."""
    asked = parser().parse_args(args)
    try:
        if asked.out is not None:
            _check_out(asked.out)
        with _running(asked.problem):
            title, f, distribution, more = load(asked.problem)
            found = compare(
                f,
                distribution,
                chosen(asked.estimators, more),
                num_samples=asked.num_samples,
                precision=asked.precision,
                repeats=asked.repeats,
                seed=asked.seed,
            )
        print(f"{title}\n\n{found}")
        for name, why in found.refused.items():
            print(f"\n{name} does not apply: {why}")
        if asked.out is not None:
            _write(found, asked.out, title)
    except (TypeError, ValueError) as error:
        print(f"pgest compare: {error}", file=sys.stderr)
        return 2
    return 0


def _check_out(out: Path) -> None:
    """What writing will need is there, before anything is computed."""
    import matplotlib.figure  # noqa: F401

    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise InputError(f"--out must be a folder to write to, got {out}: {error}") from error


def _write(found: Comparison, out: Path, title: str) -> None:
    record = {"problem": title, "torch": torch.__version__, **found.record()}
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    try:
        (out / "compare.json").write_text(text, encoding="utf-8")
        plot(found, out / "compare.png", title)
    except OSError as error:
        raise InputError(f"--out must be a folder to write to, got {out}: {error}") from error
    print(f"\nwrote {out / 'compare.json'} and {out / 'compare.png'}")
