"""Losses of tokens from hidden states: python -m benchmarks.linear [--quick] [--out FOLDER].

`linear_objective` and `linear_token_stats` against three bare matrix products of the same size,
eager PyTorch, `F.linear_cross_entropy` at automatic and at fixed chunks, TRL's chunked function and
cut-cross-entropy's compiled form, each with a process of its own, in turns. Writes linear-cpu.md
and linear-cpu.csv, within eight minutes on two cores.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.harness import RESULTS, Candidate, Measured, environment, table, take_turns
from benchmarks.linear_peers import PEERS, SLOW, Inputs, Result, inputs, missing, result
from benchmarks.processes import Elsewhere, serve

SIZE = {"n": 2048, "d": 512, "v": 32000}
QUICK = {"n": 256, "d": 64, "v": 4000}
THP = {"THP_MEM_ALLOC_ENABLE": "1"}


ERRORS = ("loss", "logp", "entropy", "dH", "dW")
BARE = "three bare products"
TUNED = ("eager", "cut-cross-entropy compiled")  # whose memory is worth huge pages


def products(x: Inputs) -> Candidate:
    """The work that no way of doing it can leave out, into memory that exists."""
    hidden, weight = x.hidden.detach().float(), x.weight.detach().float()
    logits = hidden @ weight.t()
    by_hidden, by_weight = torch.empty_like(hidden), torch.empty_like(weight)

    def run() -> None:
        torch.mm(hidden, weight.t(), out=logits)
        torch.mm(logits, weight, out=by_hidden)
        torch.mm(logits.t(), hidden, out=by_weight)

    return Candidate(run)


def candidate(who: str, case: dict[str, Any]) -> Candidate:
    """What `who` does for a case: loss and both gradients."""
    torch._dynamo.reset()
    x = inputs(case)
    if who == BARE:
        return products(x)
    loss = PEERS[who].make()

    def run() -> None:
        torch.autograd.grad(loss(x).loss, (x.hidden, x.weight))

    return Candidate(run)


class Truth(NamedTuple):
    """Loss and statistics in float64 of the same, rounded inputs, and both gradients."""

    found: Result
    gradients: tuple[Tensor, ...]


def truth(case: dict[str, Any]) -> Truth:
    """What all candidates of a case should find."""
    x = inputs(case)
    leaves = [t.detach().double().requires_grad_() for t in (x.hidden, x.weight)]
    log_p = (leaves[0] @ leaves[1].t()).log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    logp = log_p.gather(-1, x.tokens[:, None])[:, 0]
    gradients = torch.autograd.grad(result(x, logp, entropy).loss, leaves)
    return Truth(result(x, logp.detach(), entropy.detach()), gradients)


def errors(who: str, case: dict[str, Any], exact: Truth) -> dict[str, float]:
    """Largest errors; gradients' in parts of their largest entry."""
    x = inputs(case)
    found = PEERS[who].make()(x)
    pairs = dict(zip(ERRORS, zip(found, exact.found, strict=True), strict=False))
    errors = {
        name: float((a.detach().double() - b).abs().max())
        for name, (a, b) in pairs.items()
        if a is not None and b is not None
    }
    ours = torch.autograd.grad(found.loss, (x.hidden, x.weight))
    for name, a, b in zip(("dH", "dW"), ours, exact.gradients, strict=True):
        errors[name] = float((a.double() - b).abs().max() / b.abs().max())
    return errors


def takes_part(who: str, case: dict[str, Any]) -> bool:
    return who == BARE or PEERS[who].entropy or not case["with_entropy"]


def sweep(cases: list[dict[str, Any]], budget_s: float) -> list[dict[str, Any]]:
    """Every case by every candidate; one row each."""
    names = [name for name, peer in PEERS.items() if missing(peer) is None]
    everyone = {(n, "default"): Elsewhere("benchmarks.linear", n, {}) for n in (BARE, *names)}
    everyone |= {(n, "THP"): Elsewhere("benchmarks.linear", n, THP) for n in TUNED if n in names}
    rows: list[dict[str, Any]] = []
    for case in cases:
        print(f"  {case}", file=sys.stderr, flush=True)
        seats = {f"{n}|{a}": s.at(case) for (n, a), s in everyone.items() if takes_part(n, case)}
        slow = [name for name in seats if name.split("|")[0] == SLOW]
        for name, measured in take_turns(seats, budget_s, slow).items():
            who, allocator = name.split("|")
            rows.append({**case, "who": who, "allocator": allocator, **_numbers(case, measured)})
        exact = truth(case)
        for row in rows:
            if row["who"] not in (BARE, SLOW) and all(row[k] == case[k] for k in case):
                row.update(errors(row["who"], case, exact))
    return rows


def _numbers(case: dict[str, Any], measured: Measured) -> dict[str, Any]:
    """Seconds, and the peak memory beyond inputs and returned gradients."""
    itemsize = getattr(torch, case["dtype"]).itemsize
    returned = itemsize * case["d"] * (case["n"] + case["v"])
    peak = measured.peak_bytes
    return {
        "seconds": measured.seconds,
        "peak_mb": None if peak is None else max(0, peak - returned) / 1e6,
    }


def report(rows: list[dict[str, Any]]) -> str:
    """A table for each case: time, ratio to the bare products, memory, errors."""
    parts = []
    keys = ("n", "d", "v", "dtype", "with_entropy")
    for case in dict.fromkeys(tuple((k, r[k]) for k in keys) for r in rows):
        mine = [r for r in rows if all(r[k] == v for k, v in case)]
        facts = dict(case)
        bare = next(r["seconds"] for r in mine if r["who"] == BARE)
        loss = "-logp - 0.01 entropy" if facts["with_entropy"] else "-logp"
        parts.append(
            f"## hidden [{facts['n']}, {facts['d']}], V = {facts['v']}, {facts['dtype']}: {loss}"
        )
        header = ["who", "s", "x bare products", "peak MB", *(f"error {e}" for e in ERRORS)]
        parts.append(table(header, [_line(r, bare) for r in mine]))
    return "\n\n".join(parts)


def _line(row: dict[str, Any], bare: float) -> list[str]:
    who = row["who"] + (", huge pages" if row["allocator"] == "THP" else "")
    peak = "-" if row["peak_mb"] is None or row["who"] == BARE else f"{row['peak_mb']:.0f}"
    found = [f"{row[e]:.1e}" if e in row else "-" for e in ERRORS]
    return [who, f"{row['seconds']:.3g}", f"{row['seconds'] / bare:.2f}", peak, *found]


EXPLANATION = """\
`python -m benchmarks.linear` wrote this. Loss and gradients of hidden and weight; medians over
rounds in which all take turns, each in a process of its own. The automatic chunk of
`F.linear_cross_entropy`, many times slower, gets no turns: its figure is that of its first warm
call, and its errors are not measured. The bare products are those that every
way of doing it needs (logits, and both gradients of them), float32 into preallocated memory. Peak
MB is what the process grew by, without the gradients that are returned. Numbers behind a name are
its chunk: rows for `F.linear_cross_entropy` (auto: its own choice; none: a loss for each token,
which takes a fourth product, as `linear_token_stats` does), columns for TRL. Errors are the largest
ones against float64, of dH and dW in parts of their largest entry. Huge pages:
THP_MEM_ALLOC_ENABLE=1, PyTorch's best allocator."""


def preamble() -> str:
    facts = environment()
    packages = {p.package: missing(p) for p in PEERS.values() if p.package is not None}
    for package, reason in packages.items():
        version = importlib.metadata.version(package) if reason is None else None
        facts[package] = version or f"not compared: {reason}"
    return "\n".join(f"- {key}: {value}" for key, value in facts.items())


def write(rows: list[dict[str, Any]], folder: Path) -> str:
    text = "\n\n".join(["# Losses from hidden states, on the CPU", EXPLANATION, preamble()])
    text = f"{text}\n\n{report(rows)}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "linear-cpu.md").write_text(text + "\n")
    with (folder / "linear-cpu.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *(e for e in ERRORS if e not in rows[0])])
        writer.writeheader()
        writer.writerows(rows)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small size and few rounds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="this one alone; products of bfloat16 take eager PyTorch half an hour",
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(lambda case: candidate(options.serve, case))
        return
    size = QUICK if options.quick else SIZE
    works = [("float32", False), ("float32", True), ("bfloat16", True)]
    works = [work for work in works if options.dtype in (None, work[0])]
    cases = [{**size, "dtype": dtype, "with_entropy": entropy} for dtype, entropy in works]
    print(write(sweep(cases, 1.0 if options.quick else 50.0), options.out))


if __name__ == "__main__":
    main()
