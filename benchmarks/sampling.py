"""`sample` against what people write today: python -m benchmarks.sampling [--quick] [--out FOLDER].

Every candidate has a process of its own; they take turns. Writes sampling-cpu.md (ratios, to read)
and sampling-cpu.csv (every number).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pgest
from benchmarks.harness import RESULTS, Candidate, environment, table, take_turns
from benchmarks.processes import Elsewhere, serve

SIZES = ((1, 10), (64, 10), (128, 1000), (2048, 32000), (256, 151936))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SAMPLES = 4  # where more than one is drawn
TOP_K, TOP_P = 50, 0.9
Draw = Callable[[Tensor], tuple[Tensor, Tensor]]  # tokens and their logp, [S, N]


def scored(tokens: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [N, S] with the log-probabilities that people gather."""
    return tokens.T, logits.log_softmax(-1).gather(-1, tokens).T


def ours(**options: Any) -> Draw:
    def draw(logits: Tensor) -> tuple[Tensor, Tensor]:
        drawn = pgest.sample(logits, **options)
        assert drawn.logp is not None
        return drawn.tokens, drawn.logp

    return draw


def categorical(num_samples: int) -> Draw:
    def draw(logits: Tensor) -> tuple[Tensor, Tensor]:
        policy = torch.distributions.Categorical(logits=logits)
        tokens = policy.sample(torch.Size((num_samples,)))
        return tokens, policy.log_prob(tokens)

    return draw


def exponential(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The usual idiom of inference code: the first arrival of a race."""
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    tokens = (p / torch.empty_like(p).exponential_()).argmax(-1, keepdim=True)
    return tokens.T, log_p.gather(-1, tokens).T


def multinomial(num_samples: int, replacement: bool) -> Draw:
    def draw(logits: Tensor) -> tuple[Tensor, Tensor]:
        tokens = logits.softmax(-1).multinomial(num_samples, replacement=replacement)
        return scored(tokens, logits)

    return draw


def gumbel_top_k(logits: Tensor) -> tuple[Tensor, Tensor]:
    log_p = logits.log_softmax(-1)
    noise = -torch.empty_like(log_p).exponential_().log()
    tokens = (log_p + noise).topk(SAMPLES).indices
    return tokens.T, log_p.gather(-1, tokens).T


def by_top_k(logits: Tensor) -> tuple[Tensor, Tensor]:
    edge = logits.topk(TOP_K).values[..., -1:]
    return exponential(logits.masked_fill(logits < edge, -torch.inf))


def by_top_p(logits: Tensor) -> tuple[Tensor, Tensor]:
    ordered, order = logits.sort(-1, descending=True)
    p = ordered.softmax(-1)
    ordered = ordered.masked_fill(p.cumsum(-1) - p >= TOP_P, -torch.inf)
    tokens, logp = exponential(ordered)
    return order.gather(-1, tokens.T).T, logp


# What is done, by whom; the first of each is ours.
WORKS: dict[str, dict[str, Draw]] = {
    "1 sample": {
        "pgest": ours(),
        "Categorical": categorical(1),
        "exponential": exponential,
        "multinomial": multinomial(1, True),
    },
    f"{SAMPLES} samples": {
        "pgest": ours(num_samples=SAMPLES),
        "Categorical": categorical(SAMPLES),
        "multinomial": multinomial(SAMPLES, True),
    },
    f"{SAMPLES} stratified": {"pgest": ours(num_samples=SAMPLES, method="stratified")},
    f"{SAMPLES} without replacement": {
        "pgest": ours(num_samples=SAMPLES, method="without_replacement"),
        "multinomial": multinomial(SAMPLES, False),
        "Gumbel top-k": gumbel_top_k,
    },
    "1 sample, top-k": {"pgest": ours(top_k=TOP_K), "topk": by_top_k},
    "1 sample, top-p": {"pgest": ours(top_p=TOP_P), "sort": by_top_p},
}
COMPILED = ("exponential", "Gumbel top-k")
BACKWARD = "1 sample"  # timed with a backward, too


def players(work: str) -> dict[str, Draw]:
    """Who does a work, those that compile also compiled."""
    found = dict(WORKS[work])
    for name in COMPILED:
        if name in found:
            found[name + ", compiled"] = torch.compile(found[name], dynamic=False)
    return found


NAMES = list(dict.fromkeys(name for work in WORKS for name in players(work)))


def logits_of(case: dict[str, Any]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(case["n"], case["v"], generator=generator).to(DTYPES[case["dtype"]])


def candidate(who: str, case: dict[str, Any]) -> Candidate:
    """What `who` does for a case of the sweep."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    draw, logits = players(case["work"])[who], logits_of(case)
    if not case["backward"]:
        return Candidate(lambda: draw(logits))
    leaf = logits.requires_grad_()

    def run() -> None:
        _, logp = draw(leaf)
        torch.autograd.grad(logp.sum(), leaf)

    return Candidate(run)


def error(who: str, case: dict[str, Any]) -> float:
    """The largest error of logp, against float64, of the tokens that were drawn."""
    torch.manual_seed(0)
    logits = logits_of({**case, "n": min(case["n"], 64)})
    tokens, logp = WORKS[case["work"]][who.removesuffix(", compiled")](logits)
    exact = logits.double()
    if "top-k" in case["work"] or "top-p" in case["work"]:
        options = {"top_k": TOP_K} if "top-k" in case["work"] else {"top_p": TOP_P}
        tau = pgest.row_threshold(logits, **options)
        exact = exact.masked_fill(exact < tau[:, None], -torch.inf)
    truth = exact.log_softmax(-1).gather(-1, tokens.T).T
    return float((logp.double() - truth).abs().max())


def sweep(cases: list[dict[str, Any]], budget_s: float) -> list[dict[str, Any]]:
    """Every case by everyone who does its work; one row each."""
    seats = {name: Elsewhere("benchmarks.sampling", name, {}) for name in NAMES}
    results: list[dict[str, Any]] = []
    for case in cases:
        print(f"  {case}", file=sys.stderr, flush=True)
        playing = {name: seats[name].at(case) for name in players(case["work"])}
        for who, m in take_turns(playing, budget_s).items():
            row = {**case, "who": who, "seconds": m.seconds, "peak": m.peak_bytes}
            results.append({**row, "error": error(who, case)})
    return results


def report(rows: list[dict[str, Any]]) -> str:
    """One line per case: pgest's time, then how many times longer others take."""
    others = [name for name in NAMES if name != "pgest"]
    cases: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for r in rows:
        key = (f"[{r['n']}, {r['v']}]", r["dtype"], r["work"], "yes" if r["backward"] else "no")
        cases.setdefault(key, {})[r["who"]] = r
    lines = []
    for key, of in cases.items():
        mine = of["pgest"]["seconds"]
        ratios = (f"{of[o]['seconds'] / mine:.3g}" if o in of else "-" for o in others)
        lines.append([*key, f"{mine * 1e3:.3g}", *ratios])
    return table(["size", "dtype", "work", "backward", "ms", *(f"x {o}" for o in others)], lines)


def errors(rows: list[dict[str, Any]]) -> str:
    """The largest error of logp by work and dtype, over all sizes."""
    cells: dict[tuple[str, str], dict[str, float]] = {}
    for r in rows:
        cell = cells.setdefault((r["dtype"], r["work"]), {})
        cell[r["who"]] = max(r["error"], cell.get(r["who"], 0.0))
    lines = [
        [*key, *(f"{cell[name]:.1e}" if name in cell else "-" for name in NAMES)]
        for key, cell in cells.items()
    ]
    return table(["dtype", "work", *NAMES], lines)


EXPLANATION = f"""\
`python -m benchmarks.sampling` wrote this. Each draws tokens of every row and gives their
log-probability. Medians over rounds in which all take turns, each in a process of its own; "x
Categorical" is the time of `torch.distributions.Categorical` (sample, log_prob) divided by pgest's,
so more than 1 means that pgest is faster. "exponential" is `(p / q.exponential_()).argmax(-1)`,
"multinomial" is `torch.multinomial` with a gather, "Gumbel top-k" adds Gumbel noise and takes
`topk`; "topk" and "sort" restrict the logits (top-k {TOP_K}, top-p {TOP_P}) before "exponential".
With a backward, the sum of the log-probabilities is differentiated. Ratios of one run scatter by a
fifth or so on a shared machine."""


def write(rows: list[dict[str, Any]], folder: Path) -> str:
    facts = "\n".join(f"- {key}: {value}" for key, value in environment().items())
    title = "## Largest error of the log-probabilities, against float64"
    text = "\n\n".join(
        ["# sample on the CPU", EXPLANATION, facts, report(rows), title, errors(rows)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sampling-cpu.md").write_text(text + "\n")
    with (folder / "sampling-cpu.csv").open("w", newline="") as file:
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
        {"n": n, "v": v, "dtype": dtype, "work": work, "backward": backward}
        for n, v in options.sizes or (SIZES[1:3] if options.quick else SIZES)
        for dtype in DTYPES
        for work in WORKS
        for backward in ((False, True) if work == BACKWARD else (False,))
        if v > TOP_K or "top-k" not in work
    ]
    print(write(sweep(cases, 0.3 if options.quick else 2.5), options.out))


if __name__ == "__main__":
    main()
