"""The ops on a GPU: python -m benchmarks.cuda [--quick] [--device cpu] [--out FOLDER].

Times are medians of calls between CUDA events, in rounds in which all take turns; beside each time
stand the fraction of the copy bandwidth measured in the same run and the largest error against
float64. Writes cuda.md (to read) and cuda.csv.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import cuda_cases
from benchmarks.cuda_cases import Case
from benchmarks.harness import RESULTS, environment, table

ROUNDS = 20


@dataclass
class Clock:
    """Milliseconds of a call: CUDA events where there is a GPU."""

    device: str

    def ms(self, call: Callable[[], Any]) -> float:
        if self.device == "cpu":
            start = time.perf_counter()
            call()
            return (time.perf_counter() - start) * 1e3
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def peak_mb(self, call: Callable[[], Any]) -> str:
        if self.device == "cpu":
            return "-"
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return f"{(torch.cuda.max_memory_allocated() - before) / 2**20:.0f}"


def copy_bandwidth(clock: Clock, num_bytes: int) -> float:
    """GB/s of reading and writing, as torch's own copy reaches it."""
    source = torch.empty(num_bytes, dtype=torch.uint8, device=clock.device)
    target = torch.empty_like(source)
    times = [clock.ms(lambda: target.copy_(source)) for _ in range(10)]
    return 2 * num_bytes / statistics.median(times[2:]) / 1e6


def measure(case: Case, clock: Clock, rounds: int) -> list[dict[str, Any]]:
    """A row a candidate; one that fails is a row with the reason."""
    found: dict[str, dict[str, Any]] = {}
    playing = {}
    for name, candidate in case.candidates.items():
        row = {"work": case.work, "shape": case.shape, "dtype": case.dtype, "who": name}
        found[name] = {**row, "ms": "", "of copy": "", "MB": "", "error": "", "note": ""}
        try:
            call = candidate()
            call()
            found[name]["MB"] = clock.peak_mb(call)
            found[name]["error"] = case.error(call()) if case.error else ""
            playing[name] = call
        except Exception as error:
            found[name]["note"] = f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"
    times: dict[str, list[float]] = {name: [] for name in playing}
    for _ in range(rounds):
        for name, call in playing.items():
            times[name].append(clock.ms(call))
    for name, each in times.items():
        found[name]["ms"] = statistics.median(each)
    return list(found.values())


def report(rows: list[dict[str, Any]]) -> str:
    """Ours first; the others as multiples of its time."""
    lines = []
    ours: dict[tuple[str, ...], float] = {}
    for r in rows:
        key = (r["work"], r["shape"], r["dtype"])
        if r["who"] == "pgest" and r["ms"] != "":
            ours[key] = r["ms"]
        ms = "-" if r["ms"] == "" else f"{r['ms']:.3f}"
        ratio = "-" if r["ms"] == "" or key not in ours else f"{r['ms'] / ours[key]:.2f}"
        share = "" if r["of copy"] == "" else f"{100 * r['of copy']:.0f} %"
        lines.append([*key, r["who"], ms, ratio, share, str(r["MB"]), str(r["error"]), r["note"]])
    header = ["work", "shape", "dtype", "who", "ms", "x pgest", "of copy", "MB", "error", "note"]
    return table(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument("--device", default="cuda", help="cpu only tries the script itself")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    options = parser.parse_args()
    clock = Clock(options.device)
    bandwidth = copy_bandwidth(clock, 2**24 if options.quick else 2**30)
    rows: list[dict[str, Any]] = []
    for case in cuda_cases.cases(options.device, options.quick):
        print(f"  {case.work} {case.shape} {case.dtype}", file=sys.stderr, flush=True)
        for row in measure(case, clock, 3 if options.quick else ROUNDS):
            if row["ms"] != "" and case.bytes:
                row["of copy"] = case.bytes / row["ms"] / 1e6 / bandwidth
            rows.append(row)
        write(rows, options.device, bandwidth, options.out)  # what is there survives what follows
    print(write(rows, options.device, bandwidth, options.out))


def write(rows: list[dict[str, Any]], device: str, bandwidth: float, to: Path) -> str:
    facts = environment()
    if device != "cpu":
        facts["device"] = torch.cuda.get_device_name()
        facts["kernels"] = f"CUDA {torch.version.cuda}"
    facts["copy bandwidth"] = f"{bandwidth:.0f} GB/s, read and write"
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    page = "\n\n".join(["# The ops on a GPU", EXPLANATION, lines, report(rows)])
    to.mkdir(parents=True, exist_ok=True)
    (to / "cuda.md").write_text(page + "\n")
    with (to / "cuda.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return page


EXPLANATION = """\
`python -m benchmarks.cuda` wrote this. Medians of calls between CUDA events, in rounds in which all
take turns. "x pgest" is a candidate's time divided by pgest's. "of copy" is the bandwidth that the
work needs at least (each input read once, each output written once) as a part of what torch's own
copy reaches in the same run. MB is what a call allocates at its peak; errors are the largest of the
returned values against float64 on a part of the rows."""


if __name__ == "__main__":
    main()
