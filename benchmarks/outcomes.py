"""Every outcome of some samples, and the noise that draws it: by the code that users run."""

from __future__ import annotations

import torch
from torch import Tensor

import pgest

Kind = type[pgest.Bernoulli] | type[pgest.Categorical] | type[pgest.OneHotCategorical]


def table(kind: Kind, logits: Tensor) -> tuple[int, torch.Size]:
    """How many values a variable has, and the shape of the variables."""
    return (2, logits.shape) if kind is pgest.Bernoulli else (logits.shape[-1], logits.shape[:-1])


def outcomes(kind: Kind, logits: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Noise [S, rows, *variables] that draws every outcome, and their probability [rows]."""
    values, variables = table(kind, logits)
    tokens = torch.cartesian_prod(*[torch.arange(values)] * (samples * variables.numel()))
    tokens = tokens.view(-1, samples, *variables).movedim(1, 0)
    rows = logits.detach().double().expand(tokens.shape[1], *logits.shape)
    noise, probability = force(kind, rows, tokens)
    return noise, probability.prod(0).reshape(tokens.shape[1], -1).prod(-1)


def force(kind: Kind, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The noise with which these tokens are drawn, and the probability of each of them."""
    if kind is pgest.Bernoulli:  # a bit is 1 below P(1)
        p = logits.sigmoid().expand(tokens.shape)
        return torch.where(tokens == 1, p / 2, (1 + p) / 2), torch.where(tokens == 1, p, 1 - p)
    p = logits.softmax(-1)  # a token is the first whose cumulative probability exceeds the noise
    index = tokens.movedim(0, -1)
    chosen = p.gather(-1, index).movedim(-1, 0)
    return p.cumsum(-1).gather(-1, index).movedim(-1, 0) - chosen / 2, chosen
