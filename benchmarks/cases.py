"""What benchmarks of several ops share: candidates in processes of their own, a table of ratios."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, Candidate, environment, table, take_turns
from benchmarks.processes import Elsewhere, serve

Case = dict[str, Any]
Row = dict[str, Any]
ALLOCATORS: dict[str, dict[str, str]] = {"default": {}, "thp": {"THP_MEM_ALLOC_ENABLE": "1"}}


def sweep(
    module: str, peers: Sequence[str], cases: list[Case], budget_s: float, error: Callable[..., str]
) -> list[Row]:
    """Every case by pgest and every peer, the latter under both of torch's allocators."""
    who = [("pgest", "default"), *((p, a) for a in ALLOCATORS for p in peers)]
    seats = {(w, a): Elsewhere(module, w, ALLOCATORS[a]) for w, a in who}
    rows: list[Row] = []
    for case in cases:
        print(f"  {case}", file=sys.stderr, flush=True)
        playing = {f"{w}|{a}": seat.at(case) for (w, a), seat in seats.items()}
        for name, m in take_turns(playing, budget_s).items():
            w, a = name.split("|")
            row = {**case, "who": w, "allocator": a, "seconds": m.seconds, "peak": m.peak_bytes}
            rows.append({**row, "error": error(w, case) if a == "default" else ""})
    return rows


def report(rows: list[Row], keys: Sequence[str]) -> str:
    """A line a case: pgest's time, then how many times longer others take; memory; errors."""
    others = list(dict.fromkeys((r["who"], r["allocator"]) for r in rows if r["who"] != "pgest"))
    names = list(dict.fromkeys(r["who"] for r in rows))
    header = [*keys, "pgest ms", *(f"x {w}{' THP' if a == 'thp' else ''}" for w, a in others)]
    header += [f"MB {w}" for w in names] + [f"error {w}" for w in names]
    found = {(*(r[k] for k in keys), r["who"], r["allocator"]): r for r in rows}
    lines = []
    for ours in (r for r in rows if r["who"] == "pgest"):
        case = tuple(ours[k] for k in keys)
        each = [found[(*case, w, "default")] for w in names]
        ratios = (found[(*case, w, a)]["seconds"] / ours["seconds"] for w, a in others)
        line = [*map(str, case), f"{ours['seconds'] * 1e3:.3g}", *(f"{x:.2f}" for x in ratios)]
        line += ["-" if r["peak"] is None else f"{r['peak'] / 2**20:.0f}" for r in each]
        lines.append(line + [r["error"] for r in each])
    return table(header, lines)


def write(name: str, title: str, text: str, rows: list[Row], keys: Sequence[str], to: Path) -> str:
    """The table as Markdown, every number as CSV."""
    facts = "\n".join(f"- {key}: {value}" for key, value in environment().items())
    page = "\n\n".join([f"# {title}", text, facts, report(rows, keys)])
    to.mkdir(parents=True, exist_ok=True)
    (to / f"{name}-cpu.md").write_text(page + "\n")
    with (to / f"{name}-cpu.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return page


def run(
    candidate: Callable[[str, Case], Candidate],
    measure: Callable[[bool, Path], str],
    description: str | None,
) -> None:
    """The command line of a benchmark: the sweep, or one candidate that answers its parent."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(lambda case: candidate(options.serve, case))
        return
    print(measure(options.quick, options.out))
