"""Bits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from pgest.distributions.base import (
    Relaxable,
    check_floating,
    finite,
    readable,
    sized,
    tempered,
    uniform,
)
from pgest.distributions.paths import attached, still, with_path, without_path
from pgest.ops import sample_bits
from pgest.reference import statistics_dtype


class Bernoulli(Relaxable):
    """Bits z in {0, 1} with P(z = 1) = sigmoid(logits).

        log p(z) = z logits - softplus(logits)

    Nothing is clamped: `log_prob` is exact for any finite logit, and infinite logits are bits that
    are certain. Without `noise`, in eager code on the CPU, `sample` is `pgest.sample_bits`; else it
    compares a uniform of 24 bits with a float32 probability (53 bits and float64 for float64
    logits), which rounds what is within 6e-8 (1e-16) of 0 or 1.

    Args:
        logits: [*batch_shape, *event_shape], floating point, raw: any real numbers.
        event_dims: how many trailing dimensions form one draw whose log-probs are summed.

    Raises:
        TypeError: logits that are not a floating-point tensor.
        ValueError: `event_dims` that the logits do not have.

    Memory: a sample is one number a bit, in the logits' dtype; `log_prob` makes one temporary of
    the sample's size.

    Example:
        >>> bits = Bernoulli(torch.zeros(3, 4), event_dims=1)
        >>> bits.batch_shape, bits.event_shape
        (torch.Size([3]), torch.Size([4]))
        >>> bits.log_prob(bits.sample((2,))).shape
        torch.Size([2, 3])
    """

    def __init__(self, logits: Tensor, event_dims: int = 0) -> None:
        check_floating(logits)
        super().__init__(logits, event_dims, logits.shape)

    @property
    def probs(self) -> Tensor:
        """P(z = 1), like `logits`."""
        return self.logits.sigmoid()

    @property
    def support_size(self) -> int:
        """2 to the number of bits in one draw."""
        return 2 ** int(self.event_shape.numel())

    def sample(
        self,
        sample_shape: Sequence[int] = (),
        *,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Draw bits in the dtype of the logits, detached: 1 where the uniform is below P(z = 1).

        `noise`: uniforms in [0, 1), [*sample_shape, *batch_shape, *event_shape].

        Raises:
            ValueError: NaN logits, in eager code on the CPU; elsewhere such a bit is 0, and its
                log-probability NaN.
        """
        with torch.no_grad():
            logits = self.logits.to(statistics_dtype(self.logits))
            check_bits(logits)
            if noise is None and readable(logits):
                shape = sized(sample_shape)
                return self.drawn(shape.numel(), generator).view(*shape, *logits.shape)
            u = uniform(sample_shape, logits.shape, logits, logits.dtype, generator, noise)
            return (u < logits.sigmoid()).to(self.logits.dtype)

    def drawn(
        self,
        num_samples: int,
        generator: torch.Generator | None,
        *,
        antithetic: bool = False,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Return bits [num_samples, ...] by `pgest.sample_bits`, whose noise is never stored.

        In eager code on the CPU, where NaN was refused before.
        """
        if not num_samples or not self.logits.numel():
            return self.logits.new_empty(num_samples, *self.logits.shape, dtype=dtype)
        return sample_bits(
            self.logits, num_samples, antithetic=antithetic, dtype=dtype, generator=generator
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, float32 (float64 for float64 logits), [..., *batch_shape].

        Linear in `value`, so that relaxed bits have one too, and differentiable in both.
        """
        bits = self._bits(value)
        impossible = (self.logits == -torch.inf) & (value > 0)
        impossible = impossible | ((self.logits == torch.inf) & (value < 1))
        return self.sum_event(torch.where(impossible, -torch.inf, bits))

    def score(self, sample: Tensor) -> Tensor:
        """Return `log_prob` of a sample, none of whose bits is impossible (or is about -1e38)."""
        return self.sum_event(self._bits(sample))

    def weighted_score(self, sample: Tensor, weight: Tensor) -> Tensor:
        """Return <logits, mean of weight * (sample - p)>."""
        if weight.dim() != sample.dim() - self.event_dims:  # a draw that a batch shares
            return super().weighted_score(sample, weight)
        logits = finite(self.logits)
        known = logits.detach()
        wide = weight.reshape(*weight.shape, *[1] * self.event_dims)
        slope = wide * (sample - known.sigmoid())
        if sample.dim() == logits.dim():  # every sample has logits of its own
            return self.sum_event(still(slope, known) * logits).mean(0)
        return self.sum_event(still(slope.mean(0), known) * logits)

    def _bits(self, value: Tensor) -> Tensor:
        self._check_value(value)
        logits = finite(self.logits)
        # Bit by bit: infinite logits cancel in the difference, not in a difference of sums.
        value = without_path(value, self.logits.isinf()).to(logits.dtype)
        return torch.addcmul(-softplus(logits), value, logits)

    def entropy(self) -> Tensor:
        """Entropy of one draw in nats, [*batch_shape]."""
        logits = finite(self.logits)
        return self.sum_event(softplus(logits) - logits * logits.sigmoid())

    def enumerate_support(self) -> Tensor:
        """Every value of one draw, [support_size, *batch_shape, *event_shape]."""
        return self._joint(2).to(self.logits.dtype)

    def support_log_prob(self) -> Tensor:
        """Log-probability of every value of one draw, [*batch_shape, support_size]."""
        logits = self.logits.to(statistics_dtype(self.logits))
        return self._outer(torch.stack([logsigmoid(-logits), logsigmoid(logits)], -1))

    def support_value(self, index: Tensor) -> Tensor:
        """The values at places of the support, [n, *batch_shape] -> [n, *batch, *event_shape]."""
        return self._digits(index, 2).to(self.logits.dtype)

    def relaxed(
        self,
        sample_shape: Sequence[int] = (),
        *,
        temperature: float | Tensor = 1.0,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Return sigmoid((logits - logit(u)) / T), which rounds to what `sample` draws from u.

        In the dtype of statistics: a half type would round some of them to the other side.
        `noise`: the uniforms u in [0, 1), [*sample_shape, *batch_shape, *event_shape]. A tensor T
        broadcasts to that shape. NaN is refused as in `sample`.
        """
        logits = self.logits.to(statistics_dtype(self.logits))
        check_bits(logits)
        u = uniform(sample_shape, logits.shape, logits, logits.dtype, generator, noise)
        # A uniform may be 0, whose logit is infinite; the smallest positive number stands for it.
        logistic = u.clamp_min(torch.finfo(u.dtype).tiny).logit()
        return tempered(logits - logistic, temperature, u.shape).sigmoid()

    def relaxed_given(
        self, sample: Tensor, noise: Tensor, *, temperature: float | Tensor = 1.0
    ) -> Tensor:
        """Return what `relaxed` would, given that it rounds to `sample`."""
        return tempered(self.perturbed_given(sample, noise), temperature, noise.shape).sigmoid()

    def nearest(self, relaxed: Tensor) -> Tensor:
        """Round to 0 or 1."""
        return (relaxed.detach() > 0.5).to(relaxed.dtype)

    def soften(self, moved: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Return sigmoid(moved / T)."""
        moved = attached(moved, self.logits)
        return tempered(moved, temperature, moved.shape).sigmoid()

    def perturbed_given(self, sample: Tensor, noise: Tensor) -> Tensor:
        """Return softplus(softplus(logits) + logit(1 - v)) for a 1, its mirror image for a 0.

        It is logits plus a logistic variable that is cut off at 0, by inverting its distribution,
        from the uniforms v.
        """
        logits = self.logits.to(statistics_dtype(self.logits))
        v = noise.to(logits.dtype).clamp_min(torch.finfo(logits.dtype).tiny)
        logistic = -v.logit()
        one = softplus(softplus(logits) + logistic)
        zero = -softplus(softplus(-logits) + logistic)
        return torch.where(sample.detach() > 0, one, zero)

    def gapped(self, sample: Tensor, gap: float) -> Tensor:
        """Return s max(s logits, gap), where s = 2 z - 1."""
        sign = 2 * sample.detach().to(statistics_dtype(self.logits)) - 1
        return sign * (sign * self.logits.detach()).clamp_min(gap)

    def reinmax(self, sample: Tensor, temperature: float = 1.0) -> Tensor:
        """Return bits b whose Jacobian is 1/2 |b - p|, or with T that of the two logits (0, z).

        J = 1/2 (|b - q| + q (1 - q) - p (1 - p)),   q = sigmoid(logits / T)
        """
        logits = self.logits.to(statistics_dtype(self.logits))
        sign = 2 * sample.detach().to(logits.dtype) - 1
        # J's integral, of which autograd makes J and J's derivatives.
        path = temperature * logsigmoid(sign * logits / temperature) * sign
        if temperature != 1:
            path = path + temperature * (logits / temperature).sigmoid() - logits.sigmoid()
        return with_path(sample, 0.5 * path).to(self.logits.dtype)


def check_bits(logits: Tensor) -> None:
    """Raise where a logit is NaN, if it may be looked at."""
    if readable(logits) and bool(logits.isnan().any()):
        raise ValueError(f"logits must not be NaN, got {int(logits.isnan().sum())} such")
