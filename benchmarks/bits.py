"""Vectors of bits against torch: python -m benchmarks.bits [--quick] [--out FOLDER].

Drawing, and scoring with the backward of a weighted sum of log-probabilities. Candidates take
turns, each in a process of its own. Writes bits-cpu.md (ratios, to read) and bits-cpu.csv.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import pgest
from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.harness import Candidate

SIZES = ((100, 200), (1000, 1000))
SAMPLES = (1, 4, 64)
DTYPES = {"float32": torch.float32, "bool": torch.bool}
WORKS = ("draw", "score", "draw+score")
PEERS = ("distributions", "bce", "bce compiled")
KEYS = ("size", "S", "bits", "work")

Score = Callable[[Tensor, Tensor], Tensor]


def by_pgest(z: Tensor, bits: Tensor) -> Tensor:
    logp = pgest.bit_stats(z, bits, outputs=("logp",)).logp
    assert logp is not None
    return logp


def by_distributions(z: Tensor, bits: Tensor) -> Tensor:
    bernoulli = torch.distributions.Bernoulli(logits=z, validate_args=False)
    return bernoulli.log_prob(bits.to(z.dtype)).sum(-1)


def by_bce(z: Tensor, bits: Tensor) -> Tensor:
    floats = bits.to(z.dtype)
    each = F.binary_cross_entropy_with_logits(z.expand(floats.shape), floats, reduction="none")
    return -each.sum(-1)


def draw_pgest(z: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    return pgest.sample_bits(z, n, dtype=dtype)


def draw_distributions(z: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    return torch.distributions.Bernoulli(logits=z, validate_args=False).sample((n,)).to(dtype)


def draw_uniform(z: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    return (torch.rand(n, *z.shape) < z.sigmoid()).to(dtype)


DRAW: dict[str, Any] = {"pgest": draw_pgest, "distributions": draw_distributions}
SCORE: dict[str, Score] = {"pgest": by_pgest, "distributions": by_distributions}


def inputs(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    size, n = tuple(case["size"]), case["S"]
    z = 2 * torch.randn(size, generator=generator)
    bits = torch.rand(n, *size, generator=generator) < z.sigmoid()
    return z, bits.to(DTYPES[case["bits"]]), torch.randn(n, size[0], generator=generator)


def candidate(who: str, case: Case) -> Candidate:
    torch._dynamo.reset()
    z, bits, weight = inputs(case)
    leaf = z.clone().requires_grad_()
    draw, score = DRAW.get(who, draw_uniform), SCORE.get(who, by_bce)
    if who == "bce compiled":
        draw, score = (torch.compile(f, dynamic=False) for f in (draw, score))

    def drawn() -> Tensor:
        with torch.no_grad():
            sample: Tensor = draw(z, case["S"], bits.dtype)
            return sample

    def scored(sample: Tensor) -> None:
        torch.autograd.grad(score(leaf, sample), leaf, weight)

    work = {
        "draw": drawn,
        "score": lambda: scored(bits),
        "draw+score": lambda: scored(drawn()),
    }
    return Candidate(work[case["work"]])


def error(who: str, case: Case) -> str:
    """Largest errors of logp and of the gradient against float64."""
    if who == "bce compiled" or case["work"] != "score":
        return "-"
    z, bits, weight = inputs(case)
    score, found = SCORE.get(who, by_bce), []
    for kind, f in ((torch.float32, score), (torch.float64, by_bce)):
        leaf = z.to(kind).requires_grad_()
        logp = f(leaf, bits)
        found.append((logp, *torch.autograd.grad(logp, leaf, weight.to(kind))))
    errors = (float((a - b).abs().max()) for a, b in zip(*found, strict=True))
    return " ".join(f"{e:.1e}" for e in errors)


EXPLANATION = """\
`python -m benchmarks.bits` wrote this. float32 logits [B, D], S samples. draw: bits [S, B, D];
score: their log-probabilities summed over D, and the backward with a weight for each of the S
samples; medians over rounds in which all take turns, each in a process of its own. "x bce" is the
time of that candidate divided by pgest's, so more than 1 means that pgest is faster; THP: the other
side runs with THP_MEM_ALLOC_ENABLE=1. distributions is `torch.distributions.Bernoulli`, bce
`F.binary_cross_entropy_with_logits` with draws by `torch.rand`. MB is the growth of the process in
a call; errors are of log-probability and gradient, against float64."""


def measure(quick: bool, out: Path) -> str:
    sizes, samples = (SIZES[:1], SAMPLES[:2]) if quick else (SIZES, SAMPLES)
    found = [
        dict(zip(KEYS, (list(size), n, kind, work), strict=True))
        for size, n, kind, work in itertools.product(sizes, samples, DTYPES, WORKS)
    ]
    rows = cases.sweep("benchmarks.bits", PEERS, found, 0.3 if quick else 2.5, error)
    rows = [{**row, "size": str(row["size"])} for row in rows]
    return cases.write("bits", "Vectors of bits on the CPU", EXPLANATION, rows, KEYS, out)


if __name__ == "__main__":
    cases.run(candidate, measure, __doc__)
