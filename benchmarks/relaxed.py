"""Relaxed and hard samples against torch: python -m benchmarks.relaxed [--quick] [--out FOLDER].

Forward and backward from a given upstream gradient. Candidates take turns, each in a process of
its own. Writes relaxed-cpu.md (ratios, to read) and relaxed-cpu.csv.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import pgest
from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.harness import Candidate

SIZES = ((64, 10), (128, 1000), (1024, 8192), (2048, 32000))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WORKS = ("soft", "hard", "straight_through", "reinmax")
PEERS = ("eager", "compiled")
KEYS = ("size", "dtype", "work")
TAU = 0.7

Draw = Callable[[Tensor, Tensor], Tensor]


def ours(work: str) -> Draw:
    if work in ("soft", "hard"):
        return lambda z, tokens: pgest.gumbel_softmax(z, TAU, work == "hard")
    return lambda z, tokens: pgest.straight_through(z, tokens, jacobian=work)


def one_hot(z: Tensor, tokens: Tensor) -> Tensor:
    return torch.zeros_like(z).scatter_(-1, tokens[:, None], 1.0)


def straight_through(z: Tensor, tokens: Tensor) -> Tensor:
    p = z.softmax(-1)
    return one_hot(z, tokens) + p - p.detach()


def reinmax(z: Tensor, tokens: Tensor) -> Tensor:
    """In the form that the paper's algorithm has."""
    x, p = one_hot(z, tokens), z.softmax(-1)
    middle = ((x + p) / 2).log()
    path = 2 * ((middle - z).detach() + z).softmax(-1) - p / 2
    return path - path.detach() + x


def theirs(work: str) -> Draw:
    if work in ("soft", "hard"):
        return lambda z, tokens: F.gumbel_softmax(z, TAU, work == "hard")
    return straight_through if work == "straight_through" else reinmax


def inputs(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    size, dtype = tuple(case["size"]), DTYPES[case["dtype"]]
    z, g = (torch.randn(size, generator=generator).to(dtype) for _ in range(2))
    return z, g, torch.randint(size[1], size[:1], generator=generator)


def candidate(who: str, case: Case) -> Candidate:
    torch._dynamo.reset()
    z, g, tokens = inputs(case)
    z.requires_grad_()
    draw = ours(case["work"]) if who == "pgest" else theirs(case["work"])
    draw = torch.compile(draw, dynamic=False) if who == "compiled" else draw
    return Candidate(lambda: torch.autograd.grad(draw(z, tokens), z, g))


def error(who: str, case: Case) -> str:
    """Largest error of the gradient against float64, on 64 rows, from equal noise or tokens."""
    if who == "compiled":
        return "-"
    z, g, tokens = (x[:64] for x in inputs(case))
    u = torch.rand(z.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u = u.float().clamp(1e-6, 1 - 1e-6)
    work = case["work"]
    exact, ours_z = z.double().requires_grad_(), z.clone().requires_grad_()

    def relaxed(x: Tensor) -> Tensor:
        noise = -(-u.to(x.dtype if x.dtype == torch.float64 else torch.float32).log()).log()
        return ((x + noise.to(x.dtype)) / TAU).softmax(-1)

    noisy = work in ("soft", "hard")
    truth = relaxed(exact) if noisy else theirs(work)(exact, tokens)
    if who == "pgest":
        hard = work == "hard"
        found = pgest.gumbel_softmax(ours_z, TAU, hard, noise=u) if noisy else None
        found = ours(work)(ours_z, tokens) if found is None else found
    else:
        found = relaxed(ours_z) if noisy else theirs(work)(ours_z, tokens)
    (a,) = torch.autograd.grad(found, ours_z, g)
    (b,) = torch.autograd.grad(truth, exact, g.double())
    return f"{float((a - b).abs().max()):.1e}"


EXPLANATION = """\
`python -m benchmarks.relaxed` wrote this. Forward and backward with a given upstream gradient;
medians over rounds in which all take turns, each in a process of its own. "x eager" is the time
of eager PyTorch divided by pgest's, so more than 1 means that pgest is faster; THP: the other side
runs with THP_MEM_ALLOC_ENABLE=1. soft and hard: `gumbel_softmax` against `F.gumbel_softmax`, the
noise included; the others: `straight_through` of given tokens against the usual lines. MB is the
growth of the process in a call; errors are of the gradient, against float64."""


def measure(quick: bool, out: Path) -> str:
    sizes = SIZES[:2] if quick else SIZES
    found = [
        dict(zip(KEYS, (list(size), dtype, work), strict=True))
        for size, dtype, work in itertools.product(sizes, DTYPES, WORKS)
    ]
    rows = cases.sweep("benchmarks.relaxed", PEERS, found, 0.3 if quick else 4.0, error)
    rows = [{**row, "size": str(row["size"])} for row in rows]
    title = "gumbel_softmax and straight_through on the CPU"
    return cases.write("relaxed", title, EXPLANATION, rows, KEYS, out)


if __name__ == "__main__":
    cases.run(candidate, measure, __doc__)
