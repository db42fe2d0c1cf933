"""Tokens coupled by swaps of their noise."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pgest.distributions import Categorical, Distribution, OneHotCategorical
from pgest.distributions.base import uniform
from pgest.distributions.paths import still
from pgest.estimators.base import Cost, Estimator, Traits
from pgest.estimators.first_order import add_surrogate
from pgest.estimators.walks import usable


class ARSM(Estimator):
    """ARSM: augment, REINFORCE, swap, merge: what would be drawn if two numbers changed places.

        z = argmin_i pi_i exp(-logit_i),   pi ~ Dirichlet(1, ..., 1)
        gradient_c = mean over s of sum_j (F_cj - mean over m of F_mj) (1/V - pi_j)

    with F_cj the cost of what is drawn when pi_c and pi_j change places, in all tokens of the draw
    at once. F is symmetric and F_jj = f(z), so that f is evaluated V (V - 1) / 2 + 1 times a
    sample: it is for a small V. Dimension 0 of z is S times as many, and the samples themselves,
    which alone make the value and f's own gradient, come first. Unbiased, and adding a constant to
    f changes nothing.

    `noise`: [S, *variables, V]; pi is -log(1 - noise) over its sum.

    Memory: all evaluations at once, V^2 costs a sample.

    Source: Yin, Yue and Zhou (2019), arXiv 1905.01413.

    Example:
        >>> logits = torch.zeros(2, 3, requires_grad=True)
        >>> tokens = pgest.Categorical(logits)
        >>> value = pgest.expect(lambda z: (z - 1.0) ** 2, tokens, "arsm")
        >>> value.sum().backward()
        >>> logits.grad.shape
        torch.Size([2, 3])
    """

    name: ClassVar[str] = "arsm"
    traits: ClassVar[Traits] = Traits(
        unbiased=True,
        evaluations="S (V² - V + 2) / 2",
        distributions=(Categorical, OneHotCategorical),
        scores=False,
    )

    def noise_shape(self, distribution: Distribution, num_samples: int) -> torch.Size:
        """One uniform for each token of the vocabulary."""
        return torch.Size((num_samples, *distribution.logits.shape))

    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the mean cost of the samples, with the gradient attached."""
        logits = usable(distribution)
        known, vocab = logits.detach(), logits.shape[-1]
        shape = self.noise_shape(distribution, num_samples)
        u = uniform((), shape, known, known.dtype, generator, noise)
        pieces = -torch.log1p(-u).clamp_max(-torch.finfo(known.dtype).tiny)
        # All swaps c < j, the first of which is none at all: 0 with 0.
        c, j = torch.triu_indices(vocab, vocab, 1, device=known.device)
        c, j = (torch.cat([x.new_zeros(1), x]) for x in (c, j))
        tokens = _swapped(pieces.log(), known, c, j)
        cost = f(_like_samples(distribution, tokens.flatten(0, 1)))
        costs = cost.detach().unflatten(0, (len(c), num_samples))
        # F [S, *batch_shape, V, V], from the swap that each of its entries is.
        number = torch.zeros(vocab, vocab, dtype=torch.int64, device=known.device)
        number = number.index_put((c, j), torch.arange(len(c), device=known.device))
        f_swapped = costs.movedim(0, -1)[..., number + number.T]
        f_centred = f_swapped - f_swapped.mean(-2, keepdim=True)
        events = distribution.event_dims
        f_centred = f_centred.reshape(*f_centred.shape[:-2], *[1] * events, vocab, vocab)
        share = 1 / vocab - pieces / pieces.sum(-1, keepdim=True)
        slope = (f_centred @ share[..., None].to(f_centred.dtype))[..., 0].mean(0)
        surrogate = (still(slope, known) * logits).flatten(len(distribution.batch_shape)).sum(-1)
        return add_surrogate(cost[:num_samples].mean(0), surrogate, self.name)


def _swapped(log_pieces: Tensor, logits: Tensor, c: Tensor, j: Tensor) -> Tensor:
    """Tokens [swaps, S, *variables] of noise [S, *variables, V] with entries c and j exchanged."""
    vocab, swaps = logits.shape[-1], len(c)
    order = torch.arange(vocab, device=logits.device).expand(swaps, vocab)
    order = order.scatter(1, c[:, None], j[:, None]).scatter(1, j[:, None], c[:, None])
    return (log_pieces[..., order].movedim(-2, 0) - logits).argmin(-1)


def _like_samples(distribution: Distribution, tokens: Tensor) -> Tensor:
    if isinstance(distribution, Categorical):
        return tokens
    vocab = torch.arange(distribution.logits.shape[-1], device=tokens.device)
    return (tokens[..., None] == vocab).to(distribution.logits.dtype)
