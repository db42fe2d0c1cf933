"""One of V, as a one-hot vector through which a gradient can pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pgest.distributions.base import Relaxable, finite, tempered, uniform
from pgest.distributions.categorical import Softmax, check_rows, draw_tokens
from pgest.distributions.paths import attached, without_path
from pgest.ops import straight_through
from pgest.reference import statistics_dtype


class OneHotCategorical(Softmax, Relaxable):
    """One-hot vectors of V numbers, 1 at the token with P(token) = softmax(logits).

        log p(z) = sum_j z_j log softmax(logits)_j

    As `Categorical`, but floating point: f can be differentiated in the sample. The last axis, V,
    is part of every draw and is not counted by `event_dims`.

    Args:
        logits: [*batch_shape, *event dimensions, V], raw; -inf marks impossible tokens.
        event_dims: how many trailing dimensions before V form one draw whose log-probs are summed.

    Raises:
        TypeError, ValueError: as `Categorical`.

    Memory: V numbers a sample, in the logits' dtype; `log_prob` makes another temporary of that
    size, except of samples in the score-function estimators, which is `pgest.token_logp`.

    Example:
        >>> places = OneHotCategorical(torch.zeros(2, 5, 3), event_dims=1)
        >>> places.batch_shape, places.event_shape
        (torch.Size([2]), torch.Size([5, 3]))
    """

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one draw, V included."""
        return self.logits.shape[len(self.batch_shape) :]

    def sample(
        self,
        sample_shape: Sequence[int] = (),
        *,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Draw one-hot vectors in the dtype of the logits, detached.

        `noise`: uniforms in [0, 1) without the axis V, one a token; equal noise draws the tokens
        that `Categorical` draws, and equal rows are refused.
        """
        return self._one_hot(draw_tokens(self.logits, sample_shape, generator, noise))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, float32 (float64 for float64 logits), [..., *batch_shape].

        Linear in `value`, so that relaxed vectors have one too, and differentiable in both.
        """
        self._check_value(value)
        logits = self.logits.to(statistics_dtype(self.logits))
        log_p = logits.log_softmax(-1)
        value = without_path(value, log_p.isinf())
        terms = torch.where(log_p.isneginf() & (value > 0), -torch.inf, value * finite(log_p))
        return self.sum_event(terms.sum(-1))

    def score(self, sample: Tensor) -> Tensor:
        """Return `log_prob` of a one-hot sample, in one pass over the logits."""
        self._check_value(sample)
        return self._token_logp(sample.argmax(-1))

    def enumerate_support(self) -> Tensor:
        """Every value of one draw, [support_size, *batch_shape, *event_shape]."""
        return self._one_hot(self._joint(self.logits.shape[-1]))

    def support_value(self, index: Tensor) -> Tensor:
        """The values at places of the support, [n, *batch_shape] -> [n, *batch, *event_shape]."""
        return self._one_hot(super().support_value(index))

    def relaxed(
        self,
        sample_shape: Sequence[int] = (),
        *,
        temperature: float | Tensor = 1.0,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Return softmax((logits + Gumbel noise) / T), with -log(-log u) as the Gumbel noise.

        In the dtype of statistics: a half type would make ties.
        `noise`: the uniforms u in [0, 1), [*sample_shape, *logits.shape], one a number. A tensor T
        broadcasts to that shape without the axis V. Rows are refused as in `sample`.
        """
        logits = self.logits.to(statistics_dtype(self.logits))
        check_rows(logits.detach().amax(-1))
        u = uniform(sample_shape, logits.shape, logits, logits.dtype, generator, noise)
        # A uniform may be 0: the smallest positive number stands for it, and all stays finite.
        gumbel = -(-u.clamp_min(torch.finfo(u.dtype).tiny).log()).log()
        return tempered(logits + gumbel, temperature, u.shape[:-1]).softmax(-1)

    def nearest(self, relaxed: Tensor) -> Tensor:
        """One-hot at the largest entry."""
        return self._one_hot(relaxed.detach().argmax(-1))

    def soften(self, moved: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Return softmax(moved / T)."""
        moved = attached(moved, self.logits)
        return tempered(moved, temperature, moved.shape[:-1]).softmax(-1)

    def perturbed_given(self, sample: Tensor, noise: Tensor) -> Tensor:
        """Return -log e_y at the token y, -log(e_y + e_j / p_j) elsewhere, for e = -log(noise).

        It is log p plus Gumbel noise whose largest sum is y's: the largest is Gumbel whatever y,
        and given it the others are Gumbel below it (Maddison, Tarlow and Minka 2014, A* sampling).
        """
        log_p = self.logits.to(statistics_dtype(self.logits)).log_softmax(-1)
        sample = sample.detach().to(log_p.dtype)
        u = noise.to(log_p.dtype).clamp_min(torch.finfo(log_p.dtype).tiny)
        log_e = (-u.log()).log()
        top = (sample * log_e).sum(-1, keepdim=True)
        below = -torch.logaddexp(log_e - finite(log_p), top)
        # An impossible token stays one, without a gradient of infinities.
        below = torch.where(log_p.isneginf(), -torch.inf, below)
        return torch.where(sample > 0, -top, below)

    def relaxed_given(
        self, sample: Tensor, noise: Tensor, *, temperature: float | Tensor = 1.0
    ) -> Tensor:
        """Return what `relaxed` would, given that its largest entry is that of `sample`."""
        z = self.perturbed_given(sample, noise)
        return tempered(z, temperature, noise.shape[:-1]).softmax(-1)

    def gapped(self, sample: Tensor, gap: float) -> Tensor:
        """Return the largest logit at the token, elsewhere min(logit, largest - gap)."""
        logits = self.logits.detach().to(statistics_dtype(self.logits))
        top = logits.amax(-1, keepdim=True)
        return torch.where(sample.detach() > 0, top, torch.minimum(logits, top - gap))

    def reinmax(self, sample: Tensor, temperature: float = 1.0) -> Tensor:
        """Return `pgest.straight_through` of the sample, with that Jacobian."""
        return straight_through(
            self.logits, sample.detach(), jacobian="reinmax", temperature=temperature
        )

    def _one_hot(self, tokens: Tensor) -> Tensor:
        vocab = torch.arange(self.logits.shape[-1], device=tokens.device)
        return (tokens[..., None] == vocab).to(self.logits.dtype)
