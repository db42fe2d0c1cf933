"""Exact expectations over continuous noise of bits: Gauss-Legendre on regions where it is smooth.

What an estimator makes of a uniform is rational in it where 1 / T is an integer, so that a few
dozen nodes are exact to 1e-12.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from enumeration import Moments, weigh
from torch import Tensor

import pgest

NODES = 40


def nodes(n: int = NODES) -> tuple[Tensor, Tensor]:
    """Nodes in (0, 1) and their weights."""
    x, w = np.polynomial.legendre.leggauss(n)
    return (torch.tensor(x) + 1) / 2, torch.tensor(w) / 2


def pieces(edges: Tensor, n: int = NODES) -> tuple[Tensor, Tensor]:
    """Nodes and weights of each interval between edges [E], together [(E - 1) n]."""
    x, w = nodes(n)
    low, width = edges[:-1, None], edges.diff()[:, None]
    return (low + width * x).flatten(), (width * w).flatten()


def product(axes: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Every combination [rows, D] of D variables' nodes, and its weight."""
    grid = torch.cartesian_prod(*[x for x, _ in axes]).view(-1, len(axes))
    return grid, torch.cartesian_prod(*[w for _, w in axes]).view(-1, len(axes)).prod(1)


def moments_of_bits(
    logits: Tensor, f: Any, estimator: Any, noise: Tensor, weight: Tensor
) -> Moments:
    """Moments of one sample of bits [D] from noise [rows, D, ...]."""
    rows = logits.expand(len(weight), *logits.shape).clone().requires_grad_()
    value = pgest.expect(f, pgest.Bernoulli(rows, event_dims=1), estimator, noise=noise[None])
    (estimates,) = torch.autograd.grad(value.sum(), rows)
    return weigh(weight, estimates, value.detach())


def of_uniforms(logits: Tensor, f: Any, estimator: Any, edges: Tensor) -> Moments:
    """Where the noise is one uniform a bit, smooth between `edges` [D, E]."""
    noise, weight = product([pieces(e) for e in edges])
    return moments_of_bits(logits, f, estimator, noise, weight)


def of_bits_and_uniforms(logits: Tensor, f: Any, estimator: Any, n: int = NODES) -> Moments:
    """Where it is a uniform that draws the bit, and one more: the noise of `GumbelRao(draws=1)`."""
    p = logits.sigmoid()
    axes = []
    for a in p.tolist():
        x, w = nodes(n)
        axes += [
            (logits.new_tensor([a / 2, (1 + a) / 2]), logits.new_tensor([a, 1 - a])),
            (x, w),
        ]
    noise, weight = product(axes)
    return moments_of_bits(logits, f, estimator, noise.view(len(weight), -1, 2), weight)


def halves(logits: Tensor) -> Tensor:
    """The edges [D, 3] between which a uniform draws the same bit."""
    p = logits.sigmoid()[:, None]
    return torch.cat([torch.zeros_like(p), p, torch.ones_like(p)], 1)
