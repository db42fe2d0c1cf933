"""Noise in which every outcome of coupled samples lies once, and the probability of each.

Variables are independent of each other, so that the outcomes of one are listed and then combined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, product

import torch
from torch import Tensor

import pgest
from benchmarks.simplex import cells
from pgest.comparison.outcomes import Kind
from pgest.estimators import ARM, ARMS, ARSM, Antithetic, DisARM, Estimator, Stratified
from pgest.estimators.walks import Walk

Choices = tuple[Tensor, Tensor]  # noise [..., M] and probabilities [M] of one variable
Rule = Callable[[Kind, Tensor, int], tuple[Tensor, Tensor]]
F64 = torch.float64


def combined(choices: Sequence[Choices], shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Every combination of what the variables do."""
    index = torch.cartesian_prod(*[torch.arange(len(p)) for _, p in choices])
    index = index.view(-1, len(choices))
    noise = torch.stack([u[..., index[:, i]] for i, (u, _) in enumerate(choices)], -1)
    probability = torch.stack([p[index[:, i]] for i, (_, p) in enumerate(choices)])
    return noise.view(*noise.shape[:-1], *shape), probability.prod(0)


def repeated(choices: Choices, times: int) -> Choices:
    """Independent pairs of one variable: noise [times, M^times]."""
    noise, p = choices
    index = torch.cartesian_prod(*[torch.arange(len(p))] * times).view(-1, times).T
    return noise[index], p[index].prod(0)


def intervals(breaks: Sequence[float]) -> list[tuple[float, float]]:
    """Those between neighbouring breaks that are not empty."""
    ends = sorted({0.0, 1.0, *breaks})
    return [(a, b) for a, b in pairwise(ends) if b - a > 1e-15]


def midpoints(breaks: Sequence[float]) -> Choices:
    """A uniform within each interval: all of what is constant in it."""
    found = intervals(breaks)
    noise, p = [(a + b) / 2 for a, b in found], [b - a for a, b in found]
    return torch.tensor(noise, dtype=F64), torch.tensor(p, dtype=F64)


def gauss(breaks: Sequence[float]) -> Choices:
    """Two nodes an interval: exact for what is a cubic of the uniform there, as ARM's square is."""
    noise, p = midpoints(breaks)
    half = p / 2
    offset = half / math.sqrt(3)
    return torch.cat([noise - offset, noise + offset]), torch.cat([half, half])


def over_bits(one: Callable[[float, int], Choices]) -> Rule:
    """Of a rule for one bit of probability p, one for all bits of a distribution."""

    def rule(kind: Kind, logits: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        bits = Walk(kind(logits)).logits.sigmoid()
        return combined([one(p, samples) for p in bits.flatten().tolist()], bits.shape)

    return rule


def over_variables(one: Callable[[list[float], int], Choices]) -> Rule:
    """Of a rule for the ends of a variable's values in [0, 1), one for all variables."""

    def rule(kind: Kind, logits: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        bits = kind is pgest.Bernoulli
        ends = logits.sigmoid()[..., None] if bits else logits.softmax(-1).cumsum(-1)[..., :-1]
        choices = [one(row, samples) for row in ends.reshape(-1, ends.shape[-1]).tolist()]
        return combined(choices, ends.shape[:-1])

    return rule


def arm(p: float, samples: int) -> Choices:
    return repeated(gauss([p, 1 - p]), samples // 2)


def disarm(p: float, samples: int) -> Choices:
    return repeated(midpoints([p, 1 - p]), samples // 2)


def arms(p: float, samples: int) -> Choices:
    """Which pieces of a broken stick are longer than t: P(those of a set all are) is known."""
    r, n = min(p, 1 - p), samples
    t = 1 - r ** (1 / (n - 1))
    noise, probability = [], []
    for long in product([False, True], repeat=n):
        k = sum(long)
        q = sum(
            (-1) ** j * math.comb(n - k, j) * max(0.0, 1 - (k + j) * t) ** (n - 1)
            for j in range(n - k + 1)
        )
        if q < 1e-15:
            continue
        short = 1 / n if k == 0 else min(t, (1 - k * t) / max(1, n - k)) / 2
        piece = [(1 - (n - k) * short) / k if x else short for x in long]
        assert all((x > t) == y for x, y in zip(piece, long, strict=True))
        noise.append([-math.expm1(-x) for x in piece])
        probability.append(q)
    return torch.tensor(noise, dtype=F64).T, torch.tensor(probability, dtype=F64)


def antithetic(ends: list[float], samples: int) -> Choices:
    return repeated(midpoints([*ends, *(1 - x for x in ends)]), samples // 2)


def stratified(ends: list[float], samples: int) -> Choices:
    """Every part of the first sample, and what each part's sample may be."""
    inside = []
    for part in range(samples):
        breaks = [x for end in ends if 0 < (x := end * samples - part) < 1]
        inside.append([((a + b) / 2, b - a) for a, b in intervals(breaks)])
    noise, probability = [], []
    for first in range(samples):
        parts = [(first + s) % samples for s in range(samples)]
        for drawn in product(*[inside[part] for part in parts]):
            places = [x for x, _ in drawn]
            noise.append([(first + places[0]) / samples, *places[1:]])
            probability.append(math.prod(q for _, q in drawn) / samples)
    return torch.tensor(noise, dtype=F64).T, torch.tensor(probability, dtype=F64)


def arsm(kind: Kind, logits: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Of three tokens a variable, and of one sample."""
    assert samples == 1
    choices = [cells(row) for row in logits.reshape(-1, 3).tolist()]
    noise, probability = combined(choices, logits.shape[:-1])  # [3, rows, *variables]
    return noise.movedim(0, -1)[None], probability


RULES: dict[type[Estimator], Rule] = {
    ARSM: arsm,
    ARM: over_bits(arm),
    DisARM: over_bits(disarm),
    ARMS: over_bits(arms),
    Antithetic: over_variables(antithetic),
    Stratified: over_variables(stratified),
}
