"""`token_stats` with exact KL and many samples: python -m benchmarks.kl [--quick] [--out FOLDER].

As in `benchmarks.ops` every candidate has a process of its own, PyTorch's under both of its
allocators, and they take turns. Beside each time stand the largest errors against float64. Writes
kl-cpu.md and kl-cpu.csv.
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
from benchmarks.harness import RESULTS, Candidate, Measured, environment, table, take_turns
from benchmarks.processes import Elsewhere, serve
from pgest.ops.stats.kernel import OUTPUTS

SIZE, QUICK = (2048, 32000), (128, 4000)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ALLOCATORS: dict[str, dict[str, str]] = {"default": {}, "thp": {"THP_MEM_ALLOC_ENABLE": "1"}}
OURS = ("pgest", "pgest in place")
THEIRS = tuple((who, allocator) for allocator in ALLOCATORS for who in ("eager", "compiled"))
SAMPLES = (1, 64)
COMPARED = ("logp", "entropy", "kl")
WORKS = {"logp": ("logp",), "logp+entropy": ("logp", "entropy"), "logp+entropy+KL": COMPARED}

Stats = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]


def eager(logits: Tensor, tokens: Tensor, theirs: Tensor) -> tuple[Tensor, ...]:
    """What people write today."""
    log_p, log_q = logits.log_softmax(-1), theirs.log_softmax(-1)
    p = log_p.exp()
    logp = log_p.gather(-1, tokens[:, None])[:, 0]
    return logp, -(p * log_p).sum(-1), (p * (log_p - log_q)).sum(-1)


def ours(names: tuple[str, ...], **options: Any) -> Stats:
    assert list(names) == sorted(names, key=OUTPUTS.index)

    def stats(logits: Tensor, tokens: Tensor, theirs: Tensor) -> tuple[Tensor, ...]:
        found = pgest.token_stats(
            logits,
            tokens,
            outputs=names,
            reference_logits=theirs if "kl" in names else None,
            **options,
        )
        return tuple(s for s in found if s is not None)

    return stats


def arguments(case: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    n, v, dtype = case["n"], case["v"], DTYPES[case["dtype"]]
    logits, theirs = (torch.randn(n, v, generator=generator).to(dtype) for _ in range(2))
    shape = (n,) if case["samples"] is None else (case["samples"], n)
    return logits, torch.randint(v, shape, generator=generator), theirs


def stats_of(who: str, case: dict[str, Any]) -> Stats:
    if who == "pgest in place":
        return ours(WORKS[case["work"]], grad_inplace=True)
    if who == "pgest":
        return ours(WORKS[case["work"]])
    return torch.compile(eager, dynamic=False) if who == "compiled" else eager


def candidate(who: str, case: dict[str, Any]) -> Candidate:
    """Forward and backward; in place, the logits are made anew, untimed, before every call."""
    torch._dynamo.reset()
    logits, tokens, theirs = arguments(case)
    stats, leaf = stats_of(who, case), logits.requires_grad_()
    made = {"logits": leaf}
    if who == "pgest in place":
        made["logits"] = torch.empty_like(logits)
        zero = torch.zeros((), dtype=logits.dtype, requires_grad=True)

    def prepare() -> None:
        if who == "pgest in place":
            made["logits"] = made["logits"].detach().copy_(leaf.detach()).add_(zero)

    def run() -> None:
        outputs = stats(made["logits"], tokens, theirs)
        torch.autograd.grad([o.sum() for o in outputs], made["logits"])

    return Candidate(run, prepare)


def results_of(stats: Stats, logits: Tensor, tokens: Tensor, theirs: Tensor) -> list[Tensor]:
    """The statistics and the gradient of their weighted sum, in float64."""
    leaf = logits.detach().requires_grad_()
    outputs = stats(leaf * 1, tokens, theirs)
    total = torch.stack([(0.5 + i) * o.double().sum() for i, o in enumerate(outputs)]).sum()
    (grad,) = torch.autograd.grad(total, leaf)
    return [x.detach().double() for x in (*outputs, grad)]


def errors(who: str, case: dict[str, Any]) -> list[float]:
    """The largest error of logp, entropy, KL and dlogits against float64, over 64 rows."""
    logits, tokens, theirs = (x[:64] for x in arguments(case))
    exact = results_of(eager, logits.double(), tokens, theirs.double())
    found = results_of(stats_of(who, case), logits, tokens, theirs)
    return [float((a - b).abs().max()) for a, b in zip(found, exact, strict=True)]


def measure(
    seats: dict[str, Elsewhere], case: dict[str, Any], budget_s: float
) -> dict[str, Measured]:
    return take_turns({name: seat.at(case) for name, seat in seats.items()}, budget_s)


def compare(n: int, v: int, budget_s: float) -> list[dict[str, Any]]:
    """logp, entropy and KL by everybody."""
    seats = {f"{w}|default": Elsewhere("benchmarks.kl", w, {}) for w in OURS}
    seats |= {f"{w}|{a}": Elsewhere("benchmarks.kl", w, ALLOCATORS[a]) for w, a in THEIRS}
    rows: list[dict[str, Any]] = []
    for dtype in DTYPES:
        case = {"n": n, "v": v, "dtype": dtype, "work": "logp+entropy+KL", "samples": None}
        size = n * v * DTYPES[dtype].itemsize
        for name, m in measure(seats, case, budget_s).items():
            who, allocator = name.split("|")
            row = {**case, "who": who, "allocator": allocator, "seconds": m.seconds}
            row["peak in logits"] = None if m.peak_bytes is None else m.peak_bytes / size
            names = ("logp", "entropy", "KL", "dlogits")
            rows.append(
                row | {f"error of {k}": e for k, e in zip(names, errors(who, case), strict=True)}
            )
    return rows


def many_samples(n: int, v: int, budget_s: float) -> list[dict[str, Any]]:
    """S = 64 samples of each row beside one."""
    seats = {str(s): Elsewhere("benchmarks.kl", "pgest", {}) for s in SAMPLES}
    rows = []
    for work in WORKS:
        case = {"n": n, "v": v, "dtype": "float32", "work": work}
        playing = {s: seat.at({**case, "samples": int(s)}) for s, seat in seats.items()}
        for s, m in take_turns(playing, budget_s).items():
            peak = None if m.peak_bytes is None else m.peak_bytes / (n * v * 4)
            rows.append({**case, "samples": int(s), "seconds": m.seconds, "peak in logits": peak})
    return rows


def shown(x: float | None, form: str = ".3g") -> str:
    return "-" if x is None else format(x, form)


def report(rows: list[dict[str, Any]]) -> str:
    """Times of all, and how many times longer each takes than pgest."""
    fields = ["peak in logits", *(k for k in rows[0] if k.startswith("error of "))]
    header = ["dtype", "who", "allocator", "ms", *(f"/ {who}" for who in OURS), *fields]
    seconds = {(r["dtype"], r["who"], r["allocator"]): r["seconds"] for r in rows}
    lines = []
    for r in rows:
        ratios = [r["seconds"] / seconds[r["dtype"], who, "default"] for who in OURS]
        line = [r["dtype"], r["who"], r["allocator"], shown(r["seconds"] * 1e3)]
        lines.append([*line, *(shown(x) for x in ratios), *(shown(r[k], ".2g") for k in fields)])
    return table(header, lines)


def samples_report(rows: list[dict[str, Any]]) -> str:
    one = {r["work"]: r["seconds"] for r in rows if r["samples"] == 1}
    header = ["work", "S", "ms", "x S = 1", "peak in logits"]
    lines = []
    for r in rows:
        times = (shown(r["seconds"] * 1e3), shown(r["seconds"] / one[r["work"]]))
        lines.append([r["work"], str(r["samples"]), *times, shown(r["peak in logits"], ".2f")])
    return table(header, lines)


EXPLANATION = """\
`python -m benchmarks.kl` wrote this: forward and backward from the sums of log p, entropy and exact
KL(p||q), whose reference logits are given, at {n} rows of {v}. Medians over rounds in which all
take turns, each in a process of its own. "/ pgest" is how many times longer than pgest's (into a
fresh gradient, or over the logits), which runs with the default allocator; thp:
THP_MEM_ALLOC_ENABLE=1, PyTorch's best. Errors are the largest of 64 rows against float64 on
the same logits."""


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
    budget_s = 1.0 if options.quick else 30.0
    rows, samples = compare(n, v, budget_s), many_samples(n, v, budget_s / 3)
    facts = "\n".join(f"- {key}: {value}" for key, value in environment().items())
    title = "# token_stats with exact KL on the CPU"
    parts = [title, EXPLANATION.format(n=n, v=v), facts, report(rows)]
    text = "\n\n".join([*parts, "## Many samples of each row, float32", samples_report(samples)])
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "kl-cpu.md").write_text(text + "\n")
    with (options.out / "kl-cpu.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), restval="")
        writer.writeheader()
        writer.writerows([*rows, *samples])
    print(text)


if __name__ == "__main__":
    main()
