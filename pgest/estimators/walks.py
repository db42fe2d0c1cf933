"""A draw as bits: bits are their own, and a token is a walk down a binary tree of V - 1 of them."""

from __future__ import annotations

import torch
from torch import Tensor

from pgest.distributions import Bernoulli, Categorical, Distribution, OneHotCategorical
from pgest.distributions.base import finite
from pgest.distributions.bernoulli import check_bits
from pgest.distributions.categorical import check_rows

DRAWN_AS_BITS = (Bernoulli, Categorical, OneHotCategorical)


def shape(distribution: Distribution) -> torch.Size:
    """The shape of all bits of one sample: [*variables], and V - 1 of each token."""
    if isinstance(distribution, Bernoulli):
        return distribution.variables
    return torch.Size((*distribution.variables, distribution.logits.shape[-1] - 1))


class Walk:
    """The bits of a distribution, independent and with logits of their own.

    Node i of a tree over V tokens has the children 2 i and 2 i + 1; the nodes 1 to V - 1 ask, and V
    to 2 V - 1 are the tokens. A walk goes from node i to 2 i where bit i is 1:

        logit_i = logsumexp(tokens below 2 i) - logsumexp(tokens below 2 i + 1)

    so that any estimator for bits is one for tokens, about log2 V of whose bits are reached.

    Attributes:
        logits: of the bits, [*variables] or [*variables, V - 1], at least float32, finite where the
            distribution's are infinite; differentiable.
    """

    def __init__(self, distribution: Distribution) -> None:
        self.distribution = distribution
        logits = usable(distribution)
        self.logits = logits if isinstance(distribution, Bernoulli) else _nodes(logits)

    def sum(self, x: Tensor) -> Tensor:
        """Sum over all bits of one draw."""
        x = x if isinstance(self.distribution, Bernoulli) else x.sum(-1)
        events = self.distribution.event_dims
        return x.sum(tuple(range(-events, 0))) if events else x

    def like_bits(self, cost: Tensor) -> Tensor:
        """Costs [S, *batch_shape] with a dimension of size 1 for each of the bits' others."""
        return cost.reshape(*cost.shape, *[1] * (self.logits.dim() + 1 - cost.dim()))

    def decode(self, bits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Samples of the distribution, and which bits each depends on: None for all.

        `bits` is bool, [S, *variables] or [S, *variables, V - 1].
        """
        if isinstance(self.distribution, Bernoulli):
            return bits.to(self.distribution.logits.dtype), None
        vocab = self.distribution.logits.shape[-1]
        node = torch.ones(bits.shape[:-1], dtype=torch.int64, device=bits.device)
        reached, place = torch.zeros_like(bits), torch.zeros_like(node)[..., None]
        for _ in range((vocab - 1).bit_length()):
            asks = node < vocab
            place = torch.where(asks[..., None], node[..., None] - 1, place)
            reached = reached.scatter(-1, place, True)
            right = (~bits.gather(-1, place)[..., 0]).to(torch.int64)
            node = torch.where(asks, 2 * node + right, node)
        tokens = node - vocab
        if isinstance(self.distribution, Categorical):
            return tokens, reached
        places = torch.arange(vocab, device=bits.device)
        return (tokens[..., None] == places).to(self.distribution.logits.dtype), reached


def usable(distribution: Distribution) -> Tensor:
    """The logits, at least float32, differentiable and finite where they are infinite.

    A row from which nothing can be drawn is refused where it may be looked at, and NaN elsewhere.
    """
    if isinstance(distribution, Bernoulli):
        check_bits(distribution.logits)
        return finite(distribution.logits)
    top = distribution.logits.detach().amax(-1, keepdim=True)
    check_rows(top)
    logits = finite(distribution.logits)
    return logits + (top - top).to(logits.dtype)


def _nodes(logits: Tensor) -> Tensor:
    """The logits of the bits of tokens, [..., V] -> [..., V - 1], in the order of the nodes."""
    nodes: list[Tensor] = []
    # The sums below the nodes `first` and up, from the leaves, a level at a time.
    below, first = logits, logits.shape[-1]
    while first > 1:
        last, first = first, 1 << ((first - 1).bit_length() - 1)
        left, right = below[..., 2 * first - last : last].unflatten(-1, (-1, 2)).unbind(-1)
        nodes.insert(0, left - right)
        below = torch.cat([torch.logaddexp(left, right), below[..., : 2 * first - last]], -1)
    return torch.cat(nodes, -1) if nodes else below[..., :0]
