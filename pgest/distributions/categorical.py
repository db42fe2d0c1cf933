"""One of V, as an integer token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pgest.distributions.base import (
    Distribution,
    readable,
    uniform,
)
from pgest.ops import checks, sample, token_logp, token_stats
from pgest.reference import statistics_dtype


class Softmax(Distribution):
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
        return self.sum_event(entropy)

    def support_log_prob(self) -> Tensor:
        """Log-probability of every value of one draw, [*batch_shape, support_size]."""
        return self._outer(self.logits.to(statistics_dtype(self.logits)).log_softmax(-1))

    def support_value(self, index: Tensor) -> Tensor:
        """The values at places of the support, [n, *batch_shape] -> [n, *batch, *event_shape]."""
        return self._digits(index, self.logits.shape[-1])

    def _token_logp(self, tokens: Tensor) -> Tensor:
        draws = tokens.shape[: tokens.dim() - len(self.variables)].numel()
        rows = tokens.reshape(draws, *self.variables)
        return self.sum_event(token_logp(self.logits, rows).view(tokens.shape))


class Categorical(Softmax):
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
        check_rows(total)
        u = u.movedim(0, -1)
        # Rounding must not carry a uniform to the total: behind it no token has a probability.
        below = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
        tokens = torch.searchsorted(cumulative, below.contiguous(), right=True)
        tokens = tokens.clamp_max(logits.shape[-1] - 1)  # a row of NaN has no token at all
        return tokens.movedim(-1, 0).reshape(*sample_shape, *rows)


def check_rows(of_rows: Tensor) -> None:
    """Raise where a number that summarises a row is not finite, if it may be looked at."""
    if readable(of_rows) and not bool(of_rows.isfinite().all()):
        raise ValueError(
            "logits must have a possible token in each row, and neither NaN nor +inf, got "
            f"{int((~of_rows.isfinite()).sum())} of {of_rows.numel()} rows without"
        )
