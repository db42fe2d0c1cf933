"""`token_stats` against what people write today: python -m benchmarks.ops [--quick] [--out FOLDER].

Two processes measure, because the allocator is chosen when one starts: torch's default, and
THP_MEM_ALLOC_ENABLE=1 (huge pages). pgest is taken from the default one. Writes ops-cpu.md (ratios,
to read) and ops-cpu.csv (every number).
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import pgest
from benchmarks.harness import RESULTS, Candidate, ceilings, environment, measure, table

SIZES = ((1, 10), (64, 10), (128, 1000), (1024, 8192), (2048, 32000), (256, 151936))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WORKS = ("forward logp", "forward logp+entropy", "f+b logp", "f+b logp+entropy")
ALLOCATORS = {"default": "0", "thp": "1"}

Stats = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


def eager_logp(logits: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
    return (logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0],)


def eager_both(logits: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
    log_p = logits.log_softmax(-1)
    return log_p.gather(-1, tokens[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


def ours_logp(logits: Tensor, tokens: Tensor, **options: Any) -> tuple[Tensor, ...]:
    return (pgest.token_logp(logits, tokens, **options),)


def ours_both(logits: Tensor, tokens: Tensor, **options: Any) -> tuple[Tensor, ...]:
    stats = pgest.token_stats(logits, tokens, outputs=("logp", "entropy"), **options)
    return tuple(s for s in stats if s is not None)


def cross_entropy(logits: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
    return (-F.cross_entropy(logits, tokens, reduction="none"),)


def peers(entropy: bool) -> dict[str, Stats]:
    """Everyone who computes the same numbers; TRL where it is installed."""
    eager = eager_both if entropy else eager_logp
    found: dict[str, Stats] = {
        "pgest": ours_both if entropy else ours_logp,
        "eager": eager,
        "compiled": torch.compile(eager, dynamic=False),
    }
    if not entropy:
        found["cross_entropy"] = cross_entropy
    try:
        from trl.trainer import utils as trl
    except ImportError:
        return found
    found["trl"] = (
        trl.selective_log_softmax_and_entropy
        if entropy
        else lambda z, t: (trl.selective_log_softmax(z, t),)
    )
    return found


def forward(stats: Stats, logits: Tensor, tokens: Tensor) -> Candidate:
    def run() -> None:
        with torch.no_grad():
            stats(logits, tokens)

    return Candidate(run)


def forward_backward(stats: Stats, logits: Tensor, tokens: Tensor) -> Candidate:
    leaf = logits.detach().requires_grad_()

    def run() -> None:
        outputs = stats(leaf, tokens)
        torch.autograd.grad([o.sum() for o in outputs], leaf)

    return Candidate(run)


def in_place(entropy: bool, logits: Tensor, tokens: Tensor) -> Candidate:
    """The gradient over the logits, which are made anew, untimed, before every call."""
    stats = ours_both if entropy else ours_logp
    made: dict[str, Tensor] = {"logits": torch.empty_like(logits)}
    zero = torch.zeros((), dtype=logits.dtype, requires_grad=True)

    def prepare() -> None:
        made["logits"] = made["logits"].detach().copy_(logits).add_(zero)

    def run() -> None:
        outputs = stats(made["logits"], tokens, grad_inplace=True)
        torch.autograd.grad([o.sum() for o in outputs], made["logits"])

    return Candidate(run, prepare)


def worker(sizes: list[list[int]], dtypes: list[str], budget_s: float) -> None:
    """Measure everything under this process's allocator; the results go to stdout as JSON."""
    results: list[dict[str, Any]] = []
    for n, v in sizes:
        for dtype in dtypes:
            generator = torch.Generator().manual_seed(0)
            logits = torch.randn(n, v, generator=generator).to(DTYPES[dtype])
            tokens = torch.randint(v, (n,), generator=generator)
            for work in WORKS:
                torch._dynamo.reset()
                entropy, backward = "entropy" in work, work.startswith("f+b")
                wrap = forward_backward if backward else forward
                candidates = {k: wrap(f, logits, tokens) for k, f in peers(entropy).items()}
                if backward:
                    candidates["pgest in place"] = in_place(entropy, logits, tokens)
                for name, m in measure(candidates, budget_s).items():
                    row = {"n": n, "v": v, "dtype": dtype, "work": work, "who": name}
                    results.append({**row, "seconds": m.seconds, "peak": m.peak_bytes})
                print(f"  [{n}, {v}] {dtype} {work}", file=sys.stderr, flush=True)
    limits = ceilings(256 << 20)
    print(json.dumps({"rows": results, "ceilings": limits}))


def run_worker(allocator: str, arguments: list[str]) -> dict[str, Any]:
    print(f"allocator {allocator}:", file=sys.stderr)
    command = [sys.executable, "-m", "benchmarks.ops", "--worker", *arguments]
    env = {**os.environ, "THP_MEM_ALLOC_ENABLE": ALLOCATORS[allocator]}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def traffic(row: dict[str, Any]) -> int:
    """Bytes that the work must move: read forward; read again and write the gradient backward."""
    size = row["n"] * row["v"] * DTYPES[row["dtype"]].itemsize
    return size * (3 if row["work"].startswith("f+b") else 1)


def report(found: dict[str, dict[str, Any]]) -> str:
    """One line per size, dtype and work: pgest's time, then how many times longer others take."""
    index = {
        alloc: {(r["n"], r["v"], r["dtype"], r["work"], r["who"]): r for r in result["rows"]}
        for alloc, result in found.items()
    }
    others = [
        *[(w, "default") for w in ("eager", "compiled", "cross_entropy", "trl")],
        *[(w, "thp") for w in ("eager", "compiled", "cross_entropy", "trl")],
    ]
    header = ["size", "dtype", "work", "gradient", "pgest ms", "GB/s", "Gelem/s", "peak MB"]
    header += [f"x {w}{' THP' if a == 'thp' else ''}" for w, a in others]
    lines = []
    for key, ours in index["default"].items():
        if not key[4].startswith("pgest"):
            continue
        ms = ours["seconds"] * 1e3
        passes = 2 if key[3].startswith("f+b") else 1
        gradient = "-" if passes == 1 else "reused" if "in place" in key[4] else "fresh"
        line = [f"[{key[0]}, {key[1]}]", key[2], key[3], gradient, f"{ms:.4g}"]
        line += [f"{traffic(ours) / ours['seconds'] / 1e9:.3g}"]
        line += [f"{passes * key[0] * key[1] / ours['seconds'] / 1e9:.3g}"]
        line += ["-" if ours["peak"] is None else f"{ours['peak'] / 2**20:.0f}"]
        for who, alloc in others:
            other = index[alloc].get((*key[:4], who))
            line.append("-" if other is None else f"{other['seconds'] / ours['seconds']:.2f}")
        lines.append(line)
    return table(header, lines)


def memory(found: dict[str, dict[str, Any]]) -> str:
    """Peak memory of each candidate on top of its inputs, in multiples of the logits."""
    rows = [
        r for r in found["default"]["rows"] if r["n"] * r["v"] > 1 << 22 and r["peak"] is not None
    ]
    names = list(dict.fromkeys(r["who"] for r in rows))
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for r in rows:
        size = r["n"] * r["v"] * DTYPES[r["dtype"]].itemsize
        key = (f"[{r['n']}, {r['v']}]", r["dtype"], r["work"])
        cells.setdefault(key, {})[r["who"]] = f"{r['peak'] / size:.2f}"
    lines = [[*key, *(cell.get(name, "-") for name in names)] for key, cell in cells.items()]
    return table(["size", "dtype", "work", *names], lines)


def preamble(found: dict[str, dict[str, Any]]) -> str:
    facts = environment()
    try:
        facts["trl"] = importlib.metadata.version("trl")
    except importlib.metadata.PackageNotFoundError:
        facts["trl"] = "not installed, not compared"
    for alloc, result in found.items():
        rates = (f"{name} {rate:.1f}" for name, rate in result["ceilings"].items())
        facts[f"ceilings, GB/s ({alloc} allocator)"] = ", ".join(rates)
    return "\n".join(f"- {key}: {value}" for key, value in facts.items())


EXPLANATION = """\
`python -m benchmarks.ops` wrote this. Medians of interleaved rounds; "x eager" is the time of eager
PyTorch divided by pgest's, so more than 1 means that pgest is faster. THP: the other side runs
with THP_MEM_ALLOC_ENABLE=1, its best allocator; pgest runs with the default one. f+b is forward
and backward from a sum; a fresh gradient is new memory, a reused one is `grad_inplace=True`. GB/s
counts the bytes that must move (one read; f+b: two reads and a write), Gelem/s the exponentials."""


def write(found: dict[str, dict[str, Any]], folder: Path) -> str:
    text = "\n\n".join(
        [
            "# token_stats on the CPU",
            EXPLANATION,
            preamble(found),
            report(found),
            "## Peak memory on top of the inputs, in multiples of the logits",
            memory(found),
        ]
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ops-cpu.md").write_text(text + "\n")
    with (folder / "ops-cpu.csv").open("w", newline="") as file:
        fields = ["allocator", "n", "v", "dtype", "work", "who", "seconds", "peak"]
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        for alloc, result in found.items():
            writer.writerows({"allocator": alloc, **row} for row in result["rows"])
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    parser.add_argument("--sizes", type=json.loads, default=None, help="such as [[2048,32000]]")
    parser.add_argument(
        "--dtypes", type=json.loads, default=list(DTYPES), help='such as ["float32"]'
    )
    parser.add_argument("--budget", type=float, default=None, help="seconds per comparison")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = options.sizes or [list(s) for s in (SIZES[:3] if options.quick else SIZES)]
    budget = options.budget or (0.2 if options.quick else 6.0)
    if options.worker:
        worker(sizes, options.dtypes, budget)
        return
    arguments = ["--sizes", json.dumps(sizes), "--dtypes", json.dumps(options.dtypes)]
    found = {a: run_worker(a, [*arguments, "--budget", str(budget)]) for a in ALLOCATORS}
    print(write(found, options.out))


if __name__ == "__main__":
    main()
