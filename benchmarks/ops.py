"""`token_stats` against what people write today: python -m benchmarks.ops [--quick] [--out FOLDER].

Every candidate has a process of its own, so that none profits or suffers from memory that another
one left, and PyTorch's is measured under both of its allocators: the default, and
THP_MEM_ALLOC_ENABLE=1 (huge pages). They take turns. Writes ops-cpu.md (ratios, to read) and
ops-cpu.csv (every number).
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import pgest
from benchmarks.harness import RESULTS, Candidate, ceilings, environment, table, take_turns
from benchmarks.processes import Elsewhere, serve

SIZES = ((1, 10), (64, 10), (128, 1000), (1024, 8192), (2048, 32000), (256, 151936))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WORKS = ("forward logp", "forward logp+entropy", "f+b logp", "f+b logp+entropy")
ALLOCATORS: dict[str, dict[str, str]] = {"default": {}, "thp": {"THP_MEM_ALLOC_ENABLE": "1"}}
PEERS = ("eager", "compiled", "cross_entropy", "trl")
CANDIDATES = [("pgest", "default"), ("pgest in place", "default")]
CANDIDATES += [(who, allocator) for allocator in ALLOCATORS for who in PEERS]

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


def candidate(who: str, case: dict[str, Any]) -> Candidate:
    """What `who` does for a case of the sweep."""
    torch._dynamo.reset()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(case["n"], case["v"], generator=generator).to(DTYPES[case["dtype"]])
    tokens = torch.randint(case["v"], (case["n"],), generator=generator)
    entropy = "entropy" in case["work"]
    if who == "pgest in place":
        return in_place(entropy, logits, tokens)
    wrap = forward_backward if case["work"].startswith("f+b") else forward
    return wrap(peers(entropy)[who], logits, tokens)


def takes_part(who: str, case: dict[str, Any]) -> bool:
    if who == "cross_entropy":
        return "entropy" not in case["work"]
    if who == "trl":
        return importlib.util.find_spec("trl") is not None
    return who != "pgest in place" or case["work"].startswith("f+b")


def sweep(cases: list[dict[str, Any]], budget_s: float) -> list[dict[str, Any]]:
    """Every case by every candidate; one row each."""
    seats = {(w, a): Elsewhere("benchmarks.ops", w, ALLOCATORS[a]) for w, a in CANDIDATES}
    results: list[dict[str, Any]] = []
    for case in cases:
        print(f"  {label(case)} {case['dtype']} {case['work']}", file=sys.stderr, flush=True)
        playing = {f"{w}|{a}": s.at(case) for (w, a), s in seats.items() if takes_part(w, case)}
        for name, m in take_turns(playing, budget_s).items():
            who, allocator = name.split("|")
            row = {**case, "who": who, "allocator": allocator}
            results.append({**row, "seconds": m.seconds, "peak": m.peak_bytes})
    return results


def label(row: dict[str, Any]) -> str:
    return f"[{row['n']}, {row['v']}]"


def traffic(row: dict[str, Any]) -> int:
    """Bytes that the work must move: read forward; read again and write the gradient backward."""
    size = row["n"] * row["v"] * DTYPES[row["dtype"]].itemsize
    return size * (3 if row["work"].startswith("f+b") else 1)


def report(rows: list[dict[str, Any]]) -> str:
    """One line per case: pgest's time, then how many times longer others take."""
    index = {(*case_of(r), r["who"], r["allocator"]): r for r in rows}
    others = [(w, a) for w, a in CANDIDATES if not w.startswith("pgest")]
    header = ["size", "dtype", "work", "gradient", "pgest ms", "GB/s", "Gelem/s"]
    header += [f"x {w}{' THP' if a == 'thp' else ''}" for w, a in others]
    lines = []
    for ours in (r for r in rows if r["who"].startswith("pgest")):
        passes = 2 if ours["work"].startswith("f+b") else 1
        gradient = "-" if passes == 1 else "reused" if "in place" in ours["who"] else "fresh"
        seconds = ours["seconds"]
        line = [label(ours), ours["dtype"], ours["work"], gradient, f"{seconds * 1e3:.3g}"]
        line += [f"{traffic(ours) / seconds / 1e9:.3g}"]
        line += [f"{passes * ours['n'] * ours['v'] / seconds / 1e9:.3g}"]
        for who, alloc in others:
            other = index.get((*case_of(ours), who, alloc))
            line.append("-" if other is None else f"{other['seconds'] / seconds:.2f}")
        lines.append(line)
    return table(header, lines)


def case_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["n"], row["v"], row["dtype"], row["work"]


def memory(rows: list[dict[str, Any]]) -> str:
    """Peak memory of each candidate on top of its inputs, in multiples of the logits."""
    cells: dict[tuple[Any, ...], dict[str, str]] = {}
    for r in rows:
        size = r["n"] * r["v"] * DTYPES[r["dtype"]].itemsize
        if r["peak"] is None or size < 64 << 20 or r["allocator"] != "default":
            continue
        key = (label(r), r["dtype"], r["work"])
        cells.setdefault(key, {})[r["who"]] = f"{r['peak'] / size:.2f}"
    names = list(dict.fromkeys(w for w, _ in CANDIDATES))
    lines = [[*key, *(cell.get(name, "-") for name in names)] for key, cell in cells.items()]
    return table(["size", "dtype", "work", *names], lines)


def preamble() -> str:
    facts = environment()
    trl = importlib.util.find_spec("trl")
    facts["trl"] = importlib.metadata.version("trl") if trl else "not installed, not compared"
    rates = (f"{name} {rate:.1f}" for name, rate in ceilings(256 << 20).items())
    facts["ceilings of this machine, GB/s"] = ", ".join(rates)
    return "\n".join(f"- {key}: {value}" for key, value in facts.items())


EXPLANATION = """\
`python -m benchmarks.ops` wrote this. Medians over rounds in which all take turns, each in
a process of its own; "x eager" is the time of eager
PyTorch divided by pgest's, so more than 1 means that pgest is faster. THP: the other side runs
with THP_MEM_ALLOC_ENABLE=1, its best allocator; pgest runs with the default one. f+b is forward
and backward from a sum; a fresh gradient is new memory, a reused one is `grad_inplace=True`. GB/s
counts the bytes that must move (one read; f+b: two reads and a write), Gelem/s the exponentials.
Ceilings are what torch's own sum and copy reach here. Ratios of one run scatter by a fifth or so on
a shared machine. Peak memory is what the process grew by: memory that its allocator kept from an
earlier call is not in it."""


def write(rows: list[dict[str, Any]], folder: Path) -> str:
    memory_title = "## Peak memory on top of the inputs, in multiples of the logits"
    parts = ["# token_stats on the CPU", EXPLANATION, preamble(), report(rows)]
    text = "\n\n".join([*parts, memory_title, memory(rows)])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ops-cpu.md").write_text(text + "\n")
    with (folder / "ops-cpu.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    parser.add_argument("--sizes", type=json.loads, help="such as [[2048,32000]]")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(lambda case: candidate(options.serve, case))
        return
    cases = [
        {"n": n, "v": v, "dtype": dtype, "work": work}
        for n, v in options.sizes or (SIZES[:3] if options.quick else SIZES)
        for dtype in (DTYPES if (n, v) == SIZES[4] else list(DTYPES)[:2])
        for work in WORKS
    ]
    print(write(sweep(cases, 0.3 if options.quick else 2.5), options.out))


if __name__ == "__main__":
    main()
