"""One of V: as an integer token, or as a one-hot vector through which a gradient can pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pgest.distributions.base import (
    Distribution,
    Relaxable,
    finite,
    readable,
    tempered,
    uniform,
    without_path,
)
from pgest.ops import checks, sample, token_logp, token_stats
from pgest.reference import statistics_dtype


class _Softmax(Distribution):
    """What tokens and one-hot vectors share: rows of logits [..., V]."""

    def __init__(self, logits: Tensor, event_dims: int = 0) -> None:
        checks.logits(logits)
        super().__init__(logits, event_dims, logits.shape[:-1])

    @property
    def probs(self) -> Tensor:
        """P(token), like `logits`."""
        return self.logits.softmax(-1)

    @property
    def support_size(self) -> int:
        """V to the number of tokens in one draw."""
        tokens = self.variables[len(self.batch_shape) :].numel()
        return int(self.logits.shape[-1]) ** int(tokens)

    def entropy(self) -> Tensor:
        """Entropy of one draw in nats, [*batch_shape]."""
        entropy = token_stats(self.logits, None, outputs=("entropy",)).entropy
        assert entropy is not None
        return self._sum_event(entropy)

    def support_log_prob(self) -> Tensor:
        """Log-probability of every value of one draw, [*batch_shape, support_size]."""
        return self._outer(self.logits.to(statistics_dtype(self.logits)).log_softmax(-1))

    def support_value(self, index: Tensor) -> Tensor:
        """The values at places of the support, [n, *batch_shape] -> [n, *batch, *event_shape]."""
        return self._digits(index, self.logits.shape[-1])

    def _token_logp(self, tokens: Tensor) -> Tensor:
        draws = tokens.shape[: tokens.dim() - len(self.variables)].numel()
        rows = tokens.reshape(draws, *self.variables)
        return self._sum_event(token_logp(self.logits, rows).view(tokens.shape))


class Categorical(_Softmax):
    """Tokens in {0, ..., V - 1} with P(token) = softmax(logits), as integers.

        log p(token) = logits[token] - log sum_j exp(logits_j)

    Args:
        logits: [*batch_shape, *event_shape, V], raw: they need not be normalised; -inf marks
            impossible tokens, which are never drawn.
        event_dims: how many trailing dimensions before V form one draw whose log-probs are summed.

    Raises:
        TypeError, ValueError: logits that are not floating point [..., V], or `event_dims` that
            they do not have.

    Memory: drawing is `pgest.sample`, some 24 bytes a token (in compiled code, under torch.func and
    on other devices two temporaries of 12 bytes a logit together, 16 for float64); `log_prob` is
    `pgest.token_logp`, three numbers a row.

    Example:
        >>> tokens = Categorical(torch.tensor([[0.0, float("-inf")]]))
        >>> tokens.sample((3,)).tolist()
        [[0], [0], [0]]
    """

    def sample(
        self,
        sample_shape: Sequence[int] = (),
        *,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Draw int64 tokens, detached, by inverting the cumulative distribution.

        `noise`: uniforms in [0, 1), [*sample_shape, *batch_shape, *event_shape], one a token; see
        `pgest.expect`.

        Raises:
            ValueError: a row of NaN, +inf or only -inf, in eager code on the CPU. Elsewhere the
                last token is drawn, and the log-probabilities of that row alone are NaN. Rows that
                are padding need some finite logit.
        """
        return draw_tokens(self.logits, sample_shape, generator, noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, float32 (float64 for float64 logits), [..., *batch_shape]."""
        self._check_value(value)
        return self._token_logp(value)

    def enumerate_support(self) -> Tensor:
        """Every value of one draw, [support_size, *batch_shape, *event_shape]."""
        return self._joint(self.logits.shape[-1])


class OneHotCategorical(_Softmax, Relaxable):
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
        return self._sum_event(terms.sum(-1))

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
        _check_rows(logits.detach().amax(-1))
        u = uniform(sample_shape, logits.shape, logits, logits.dtype, generator, noise)
        # A uniform may be 0: the smallest positive number stands for it, and all stays finite.
        gumbel = -(-u.clamp_min(torch.finfo(u.dtype).tiny).log()).log()
        return tempered(logits + gumbel, temperature, u.shape[:-1]).softmax(-1)

    def relaxed_given(
        self, sample: Tensor, noise: Tensor, *, temperature: float | Tensor = 1.0
    ) -> Tensor:
        """Return what `relaxed` would, given that its largest entry is that of `sample`.

        With E = -log noise, the largest of logits + Gumbel noise is at -log E_top, and the others
        are at -log(E_j / p_j + E_top), up to a constant of the row.
        """
        log_p = self.logits.to(statistics_dtype(self.logits)).log_softmax(-1)
        tiny = torch.finfo(log_p.dtype).tiny
        log_e = (-noise.to(log_p.dtype).clamp_min(tiny).log()).log()
        top = (log_e * sample).sum(-1, keepdim=True)
        below = -torch.logaddexp(log_e - finite(log_p), top)
        z = torch.where(sample > 0, -top, torch.where(log_p.isneginf(), -torch.inf, below))
        return tempered(z, temperature, noise.shape[:-1]).softmax(-1)

    def nearest(self, relaxed: Tensor) -> Tensor:
        """One-hot at the largest entry."""
        return self._one_hot(relaxed.detach().argmax(-1))

    def _one_hot(self, tokens: Tensor) -> Tensor:
        vocab = torch.arange(self.logits.shape[-1], device=tokens.device)
        return (tokens[..., None] == vocab).to(self.logits.dtype)


def draw_tokens(
    logits: Tensor,
    sample_shape: Sequence[int],
    generator: torch.Generator | None,
    noise: Tensor | None,
) -> Tensor:
    """Tokens [*sample_shape, ...] of rows of logits [..., V], one uniform each, detached.

    The token is the first whose cumulative probability exceeds the uniform: `pgest.sample` in eager
    code on the CPU. Elsewhere plain PyTorch, since rows without a token are no error there; sums
    are float64, because in float32 a vocabulary of 100,000 tokens would lose its rare ones.

    Raises:
        ValueError: a row of NaN, +inf or only -inf, in eager code on the CPU. Elsewhere the last
            token is drawn, and the statistics of that row alone are NaN.
    """
    rows = logits.shape[:-1]
    with torch.no_grad():
        u = uniform(sample_shape, rows, logits, torch.float64, generator, noise)
        draws = torch.Size(sample_shape).numel()
        u = u.to(torch.float64).reshape(draws, *rows)
        if readable(logits) and draws > 0:
            return sample(logits, draws, noise=u).tokens.reshape(*sample_shape, *rows)
        cumulative = logits.softmax(-1, statistics_dtype(logits)).cumsum(-1, dtype=torch.float64)
        total = cumulative[..., -1:]
        _check_rows(total)
        u = u.movedim(0, -1)
        # Rounding must not carry a uniform to the total: behind it no token has a probability.
        below = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
        tokens = torch.searchsorted(cumulative, below.contiguous(), right=True)
        tokens = tokens.clamp_max(logits.shape[-1] - 1)  # a row of NaN has no token at all
        return tokens.movedim(-1, 0).reshape(*sample_shape, *rows)


def _check_rows(of_rows: Tensor) -> None:
    """Raise where a number that summarises a row is not finite, if it may be looked at."""
    if readable(of_rows) and not bool(of_rows.isfinite().all()):
        raise ValueError(
            "logits must have a possible token in each row, and neither NaN nor +inf, got "
            f"{int((~of_rows.isfinite()).sum())} of {of_rows.numel()} rows without"
        )
