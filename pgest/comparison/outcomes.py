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
    outcome in all of them, with a probability of its own. What is possible in none is left out.
    """
    values, variables = table(kind, logits)
    batch, event = variables[:batch_dims], variables[batch_dims:]
    tokens = torch.cartesian_prod(*[torch.arange(values)] * (samples * event.numel()))
    tokens = tokens.view(-1, samples, *[1] * batch_dims, *event).movedim(1, 0)
    tokens = tokens.expand(-1, -1, *variables).to(logits.device)
    rows = logits.detach().double().expand(tokens.shape[1], *logits.shape)
    noise, probability = force(kind, rows, tokens)
    probability = probability.prod(0).reshape(tokens.shape[1], *batch, -1).prod(-1)
    possible = probability.flatten(1).sum(1) > 0 if batch else probability > 0
    return noise[:, possible], probability[possible]


def force(kind: Kind, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The noise with which these tokens are drawn, and the probability of each of them.

    Both are of the part of [0, 1) that draws a token. It may be empty, as a masked token's is and
    one's below the rounding of the others: the noise then draws another, and the probability is 0.
    """
    if kind is Bernoulli:  # a bit is 1 below P(1)
        p = logits.sigmoid().expand(tokens.shape)
        low, high = torch.where(tokens == 1, 0.0, p), torch.where(tokens == 1, p, 1.0)
    else:  # a token is the first whose cumulative probability exceeds the noise
        above = logits.softmax(-1).cumsum(-1)
        index = tokens.movedim(0, -1)
        edges = torch.cat([torch.zeros_like(above[..., :1]), above], -1)
        low, high = (edges.gather(-1, i).movedim(-1, 0) for i in (index, index + 1))
    below_one = 1 - torch.finfo(low.dtype).eps / 2
    return ((low + high) / 2).clamp_max(below_one), high - low
