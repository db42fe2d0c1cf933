"""Every outcome of one sample of an estimator that moves the logits, with common noise."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor

import pgest
from pgest.comparison.outcomes import Kind
from pgest.estimators import SPSA, EvolutionStrategies
from pgest.estimators.perturbation import Perturbed

NODES = 9  # of the Gauss-Hermite rule, a number of the direction


def directions(estimator: Perturbed, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Uniforms [r, n or 0] of the directions, their probability [r], and the moves [r, K, n]."""
    if isinstance(estimator, SPSA):
        signs = torch.tensor(list(product([-1.0, 1.0], repeat=n)), dtype=torch.float64)
        return 0.5 + signs / 4, torch.full((len(signs),), 0.5**n).double(), signs[:, None]
    if isinstance(estimator, EvolutionStrategies):
        x, w = (torch.tensor(a) for a in np.polynomial.hermite_e.hermegauss(NODES))
        index = torch.tensor(list(product(range(NODES), repeat=n)))
        return torch.special.ndtr(x[index]), (w / w.sum())[index].prod(-1), x[index][:, None]
    return torch.zeros(1, 0).double(), torch.ones(1).double(), torch.eye(n).double()[None]


def perturbed_outcomes(estimator: Perturbed, kind: Kind, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Noise [1, rows, ...] and probability [rows] of one draw of all variables."""
    logits = logits.detach().double()
    noise, probability = [], []
    for uniforms, p, moves in zip(*directions(estimator, logits.numel()), strict=True):
        moves = estimator.step * torch.cat([torch.zeros_like(moves[:1]), moves, -moves])
        moved = logits + moves.view(-1, *logits.shape)
        middle, share = _regions(kind, moved)
        noise.append(torch.cat([uniforms.expand(len(middle), -1), middle], -1))
        probability.append(p * share)
    return torch.cat(noise)[None], torch.cat(probability)


def _regions(kind: Kind, moved: Tensor) -> tuple[Tensor, Tensor]:
    """Uniforms [r, variables] in each region where all moved draws are constant, and its size."""
    if kind is pgest.Bernoulli:
        edges = moved.sigmoid().T
    else:
        cumulative = moved.softmax(-1).cumsum(-1)[..., :-1]
        rows = cumulative.unsqueeze(1) if cumulative.dim() == 2 else cumulative
        edges = rows.transpose(0, 1).flatten(1)
    ends = torch.nn.functional.pad(edges.sort(-1).values, (1, 0))
    ends = torch.nn.functional.pad(ends, (0, 1), value=1.0)
    size, middle = ends.diff(dim=-1), (ends[:, 1:] + ends[:, :-1]) / 2
    index = torch.tensor(list(product(range(size.shape[-1]), repeat=len(size))))
    each = torch.arange(len(size))
    middle, share = middle[each, index], size[each, index].prod(-1)
    return middle[share > 0], share[share > 0]
