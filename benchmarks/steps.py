"""A step's gradient in the forward: python -m benchmarks.steps [--quick] [--out FOLDER].

`token_stats_sum` beside `token_stats`, the same weighted sum and its backward, each in a process of
its own, in turns. Writes steps-cpu.md and steps-cpu.csv.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pgest
from benchmarks.harness import RESULTS, Candidate, environment, table, take_turns
from benchmarks.kl import DTYPES, QUICK, SIZE, WORKS, arguments, ours, shown
from benchmarks.processes import Elsewhere, serve

IN_FORWARD = "gradient in the forward"
WAYS = ("forward+backward", IN_FORWARD)
PLACES = {"fresh": "", "in place": " in place"}
# Of an entropy bonus and of exact KL; log p has an advantage a token.
COEFS = {"entropy": -0.01, "kl": 0.05}

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def loss_of(who: str, case: dict[str, Any]) -> Loss:
    """A policy's loss, by one of the ways and in one of the places."""
    names, inplace = WORKS[case["work"]], who.endswith(PLACES["in place"])
    advantage = torch.randn(case["n"], generator=torch.Generator().manual_seed(1))
    weights: dict[str, float | Tensor] = {"logp": -advantage}
    weights |= {name: coef for name, coef in COEFS.items() if name in names}

    def in_forward(logits: Tensor, tokens: Tensor, theirs: Tensor) -> Tensor:
        reference = theirs if "kl" in names else None
        return pgest.token_stats_sum(
            logits, tokens, weights, reference_logits=reference, grad_inplace=inplace
        )

    stats = ours(names, grad_inplace=inplace)

    def before_backward(logits: Tensor, tokens: Tensor, theirs: Tensor) -> Tensor:
        found = stats(logits, tokens, theirs)
        terms = [(weights[name] * s).sum() for name, s in zip(names, found, strict=True)]
        return torch.stack(terms).sum()

    return in_forward if who.startswith(IN_FORWARD) else before_backward


def candidate(who: str, case: dict[str, Any]) -> Candidate:
    """The loss and its gradient for logits that a layer made, untimed, before every call."""
    logits, tokens, theirs = arguments(case)
    loss = loss_of(who, case)
    made = {"logits": torch.empty_like(logits)}
    zero = torch.zeros((), dtype=logits.dtype, requires_grad=True)

    def prepare() -> None:
        made["logits"] = made["logits"].detach().copy_(logits).add_(zero)

    def run() -> None:
        torch.autograd.grad(loss(made["logits"], tokens, theirs), made["logits"])

    return Candidate(run, prepare)


def measure(n: int, v: int, budget_s: float) -> list[dict[str, Any]]:
    """Every way and place, for each work and dtype."""
    names = [way + suffix for way in WAYS for suffix in PLACES.values()]
    seats = {who: Elsewhere("benchmarks.steps", who, {}) for who in names}
    rows = []
    for dtype in DTYPES:
        for work in WORKS:
            case = {"n": n, "v": v, "dtype": dtype, "work": work, "samples": None}
            size = n * v * DTYPES[dtype].itemsize
            found = take_turns({who: seat.at(case) for who, seat in seats.items()}, budget_s)
            for who, m in found.items():
                peak = None if m.peak_bytes is None else m.peak_bytes / size
                rows.append({**case, "who": who, "seconds": m.seconds, "peak in logits": peak})
    return rows


def report(rows: list[dict[str, Any]]) -> str:
    """How much longer the two take one after the other."""
    found = {(r["dtype"], r["work"], r["who"]): r for r in rows}
    header = ["dtype", "work", "gradient", *(f"{way}, ms" for way in WAYS), "ratio"]
    lines = []
    for dtype, work in dict.fromkeys((r["dtype"], r["work"]) for r in rows):
        for place, suffix in PLACES.items():
            apart, together = (found[dtype, work, way + suffix]["seconds"] for way in WAYS)
            times = (shown(x * 1e3) for x in (apart, together))
            lines.append([dtype, work, place, *times, shown(apart / together)])
    return table(header, lines)


EXPLANATION = """\
`python -m benchmarks.steps` wrote this: a weighted sum of log p, entropy and exact KL(p||q), whose
weights are known before, and its gradient, at {n} rows of {v}: `token_stats`, the sum and its
backward, beside `token_stats_sum`. Medians over rounds in which all take turns, each in a process
of its own. Fresh: into new memory; in place: over the logits."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small size and few rounds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(lambda case: candidate(options.serve, case))
        return
    n, v = QUICK if options.quick else SIZE
    rows = measure(n, v, 1.0 if options.quick else 15.0)
    facts = "\n".join(f"- {key}: {value}" for key, value in environment().items())
    parts = ["# A step's gradient in the forward on the CPU", EXPLANATION.format(n=n, v=v), facts]
    text = "\n\n".join([*parts, report(rows)])
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "steps-cpu.md").write_text(text + "\n")
    with (options.out / "steps-cpu.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(text)


if __name__ == "__main__":
    main()
