"""Every outcome of some samples, and the noise that draws it: by the code that users run."""

from __future__ import annotations

import torch
from torch import Tensor

from pgest.distributions import Bernoulli, Categorical, OneHotCategorical

Kind = type[Bernoulli] | type[Categorical] | type[OneHotCategorical]
KINDS = (Bernoulli, Categorical, OneHotCategorical)


def table(kind: Kind, logits: Tensor) -> tuple[int, torch.Size]:
    """How many values a variable has, and the shape of the variables."""
    return (2, logits.shape) if kind is Bernoulli else (logits.shape[-1], logits.shape[:-1])


def tokens_of(kind: Kind, z: Tensor) -> Tensor:
    """Values of variables as integers, which for one-hot vectors takes their last axis away."""
    return (z.argmax(-1) if kind is OneHotCategorical else z).to(torch.int64)


def outcomes(
    kind: Kind, logits: Tensor, samples: int, batch_dims: int = 0
) -> tuple[Tensor, Tensor]:
    """Noise [S, rows, *variables] that draws every outcome, and its probability [rows, *batch].

    The first `batch_dims` dimensions of the variables are independent draws: each row has the same
    outcome in all of them, with a probability of its own.
    """
    values, variables = table(kind, logits)
    batch, event = variables[:batch_dims], variables[batch_dims:]
    tokens = torch.cartesian_prod(*[torch.arange(values)] * (samples * event.numel()))
    tokens = tokens.view(-1, samples, *[1] * batch_dims, *event).movedim(1, 0)
    tokens = tokens.expand(-1, -1, *variables).to(logits.device)
    rows = logits.detach().double().expand(tokens.shape[1], *logits.shape)
    noise, probability = force(kind, rows, tokens)
    return noise, probability.prod(0).reshape(tokens.shape[1], *batch, -1).prod(-1)


def force(kind: Kind, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The noise with which these tokens are drawn, and the probability of each of them."""
    if kind is Bernoulli:  # a bit is 1 below P(1)
        p = logits.sigmoid().expand(tokens.shape)
        return torch.where(tokens == 1, p / 2, (1 + p) / 2), torch.where(tokens == 1, p, 1 - p)
    p = logits.softmax(-1)  # a token is the first whose cumulative probability exceeds the noise
    index = tokens.movedim(0, -1)
    chosen = p.gather(-1, index).movedim(-1, 0)
    return p.cumsum(-1).gather(-1, index).movedim(-1, 0) - chosen / 2, chosen
