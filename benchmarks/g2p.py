"""What the reward of `pgest run g2p` teaches, beside its controls.

    python -m benchmarks.g2p controls    # the table of docs/tuning.md: 3 seeds, all test words
    python -m benchmarks.g2p stories     # a cold start, and noisy references first
    python -m benchmarks.g2p search      # how the settings were chosen, on validation words

Every run is a command line `pgest run g2p ...` with one thread, in a folder of its own; two run at
a time. What is done is not run again and what was stopped goes on, so the command can be repeated.
The table goes to `benchmarks/results/g2p-GROUP.md`.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from benchmarks.g2p_arms import GROUPS, Arm
from benchmarks.g2p_tables import TABLES, Run
from benchmarks.task_runs import finished_run

RESULTS = Path(__file__).parent / "results"


def main(argv: list[str] | None = None) -> int:
    """Run a group of arms and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("group", choices=list(GROUPS))
    parser.add_argument("--runs", type=Path, default=Path("runs/g2p-table"), help="their folders")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--flags", default="", help="more flags of every run, for a quick try")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the table")
    args = parser.parse_args(argv)
    runs = run_all(GROUPS[args.group], args.runs, args.jobs, args.flags)
    table = TABLES[args.group](runs, args.flags)
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / f"g2p-{args.group}.md").write_text(table, encoding="utf-8")
    print(table)
    return 0


def run_all(arms: tuple[Arm, ...], place: Path, jobs: int, flags: str) -> list[Run]:
    """Run every arm with every seed, each after the one that it starts from."""
    futures: dict[tuple[str, int], Future[Run]] = {}
    # Arms come in an order in which a start comes before what starts from it, and a pool begins
    # in that order: waiting for a start inside a job cannot block the start itself.
    with ThreadPoolExecutor(jobs) as pool:
        for seed in range(max(arm.seeds for arm in arms)):
            for arm in (arm for arm in arms if seed < arm.seeds):
                start = futures[arm.start, seed] if arm.start else None
                futures[arm.name, seed] = pool.submit(execute, arm, seed, place, start, flags)
        return [future.result() for future in futures.values()]


def execute(arm: Arm, seed: int, place: Path, start: Future[Run] | None, flags: str) -> Run:
    """Run an arm, or go on with it, or find that it is done.

    Raises:
        ValueError: where the arm's folder holds a run with other flags.
    """
    origin = start.result() if start else None
    more = ["--seed", str(seed), *(["--init", str(origin.folder)] if origin else [])]
    folder = finished_run("g2p", place / f"{arm.name}-{seed}", f"{arm.flags} {flags}".strip(), more)
    return Run(arm, seed, folder, origin)


if __name__ == "__main__":
    sys.exit(main())
