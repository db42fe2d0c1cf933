"""What the distributions share: shapes, noise and the support of a joint draw."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from pgest.ops import noise as noises
from pgest.ops import scalars
from pgest.reference import statistics_dtype


class Distribution(ABC):
    """Independent discrete variables with raw logits, of which the last `event_dims` form one draw.

    `variables` is the shape of the single variables; its last `event_dims` dimensions make one
    draw, whose log-probabilities are summed; the dimensions before them are `batch_shape`. A sample
    has the shape [*sample_shape, *batch_shape, *event_shape], a log-probability [*sample_shape,
    *batch_shape].
    """

    from_torch = False  # whether it stands for an object of torch.distributions

    def __init__(self, logits: Tensor, event_dims: int, variables: torch.Size) -> None:
        event_dims = scalars.integer("event_dims", event_dims)
        if not 0 <= event_dims <= len(variables):
            raise ValueError(
                f"event_dims must be between 0 and {len(variables)}, the number of dimensions of "
                f"{type(self).__name__}'s variables {tuple(variables)}, got {event_dims}"
            )
        self.logits = logits
        self.event_dims = event_dims
        self.variables = variables
        self.batch_shape = variables[: len(variables) - event_dims]

    def __repr__(self) -> str:
        shape = tuple(self.logits.shape)
        return f"{type(self).__name__}(logits {shape}, event_dims={self.event_dims})"

    def spelled(self, event_dims: int) -> str:
        """How the user would write it with other `event_dims`."""
        name = type(self).__name__
        if not self.from_torch:
            return f"{name}(..., event_dims={event_dims})"
        return f"Independent({name}(...), {event_dims})" if event_dims else f"{name}(...) alone"

    @property
    @abstractmethod
    def probs(self) -> Tensor:
        """Probabilities, like `logits`."""

    @property
    @abstractmethod
    def support_size(self) -> int:
        """The number of values of one joint draw; it may be astronomically large."""

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one draw."""
        return self.variables[len(self.batch_shape) :]

    @abstractmethod
    def sample(
        self,
        sample_shape: Sequence[int] = (),
        *,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Draw; nothing that comes back carries a gradient."""

    @abstractmethod
    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, [*sample_shape, *batch_shape]; differentiable in the logits."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Entropy of one draw in nats, [*batch_shape]; differentiable in the logits."""

    @abstractmethod
    def enumerate_support(self) -> Tensor:
        """Every value of one draw, [support_size, *batch_shape, *event_shape]."""

    def score(self, sample: Tensor) -> Tensor:
        """Return `log_prob` of a value that `sample` returned, by the cheapest way there is."""
        return self.log_prob(sample)

    def weighted_score(self, sample: Tensor, weight: Tensor) -> Tensor:
        """Return numbers whose slope in the logits is that of the mean of weight * `score(sample)`.

        No more is promised of them. `weight` [S, *batch_shape], or with further dimensions where
        elements of a batch share the draw; the result has these too.
        """
        score = self.score(sample)
        score = score.reshape(*score.shape, *[1] * (weight.dim() - score.dim()))
        return (weight * score).mean(0)

    def support_log_prob(self) -> Tensor:
        """Log-probability of every value of one draw, [*batch_shape, support_size]."""
        return self.log_prob(self.enumerate_support()).movedim(0, -1)

    def support_value(self, index: Tensor) -> Tensor:
        """The values at places of the support, [n, *batch_shape] -> [n, *batch, *event_shape]."""
        every = self.enumerate_support()
        at = index.reshape(*index.shape, *[1] * (every.dim() - index.dim()))
        return every.gather(0, at.expand(len(index), *every.shape[1:]))

    def sum_event(self, per_variable: Tensor) -> Tensor:
        """Sum over the variables of one draw: [..., *variables] -> [..., *batch_shape]."""
        if self.event_dims == 0:
            return per_variable
        return per_variable.sum(tuple(range(-self.event_dims, 0)))

    def _check_value(self, value: Tensor) -> None:
        expected = (*self.batch_shape, *self.event_shape)
        if not isinstance(value, Tensor):
            raise TypeError(f"value must be a tensor, got {type(value).__name__}")
        if value.shape[max(0, value.dim() - len(expected)) :] != expected:
            raise ValueError(
                f"value must have shape (..., {', '.join(map(str, expected))}) like a sample of "
                f"{self!r}, got {tuple(value.shape)}"
            )

    def _joint(self, values: int) -> Tensor:
        """Every combination of `values` values per variable, [M, *batch_shape, *event dims]."""
        size = values ** self.variables[len(self.batch_shape) :].numel()
        index = torch.arange(size, device=self.logits.device)
        index = index.view(size, *[1] * len(self.batch_shape))
        return self._digits(index, values).expand(-1, *self.variables)

    def _digits(self, index: Tensor, values: int) -> Tensor:
        """The combination of values at places of the support, [n, *batch] -> [n, *variables]."""
        event = self.variables[len(self.batch_shape) :]
        digits = torch.arange(event.numel(), device=index.device).flip(0)
        table = index[..., None] // values**digits % values
        return table.reshape(*index.shape, *event)

    def _outer(self, log_p: Tensor) -> Tensor:
        """Sums of log-probabilities [*variables, V] for all combinations, [*batch_shape, V^n]."""
        n = self.variables[len(self.batch_shape) :].numel()
        rows = log_p.reshape(*self.batch_shape, n, log_p.shape[-1])
        joint = log_p.new_zeros(*self.batch_shape, 1)
        for i in range(n):
            joint = (joint[..., None] + rows[..., i, None, :]).flatten(-2)
        return joint


class Relaxable(Distribution):
    """A distribution whose samples are floating point, so that a gradient can pass through them."""

    @property
    def mean(self) -> Tensor:
        """E[sample], [*batch_shape, *event_shape]; differentiable in the logits."""
        return self.probs

    @abstractmethod
    def relaxed(
        self,
        sample_shape: Sequence[int] = (),
        *,
        temperature: float | Tensor = 1.0,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """A sample between the discrete values (Concrete); differentiable in logits and T."""

    @abstractmethod
    def relaxed_given(
        self, sample: Tensor, noise: Tensor, *, temperature: float | Tensor = 1.0
    ) -> Tensor:
        """A relaxed sample given that it rounds to `sample`; differentiable in logits and T.

        `noise`: uniforms in [0, 1), [*sample_shape, *logits.shape].
        """

    @abstractmethod
    def nearest(self, relaxed: Tensor) -> Tensor:
        """The discrete value nearest to a relaxed one; nothing that comes back has a gradient."""

    @abstractmethod
    def soften(self, moved: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """The relaxed value of logits that were moved by a constant: `moved` is logits + constant.

        [..., *logits.shape], in the dtype of statistics, differentiable in logits and T.
        """

    @abstractmethod
    def perturbed_given(self, sample: Tensor, noise: Tensor) -> Tensor:
        """Logits + noise given that they round to `sample`, from uniforms [..., *sample].

        Up to a constant of the row; differentiable in the logits.
        """

    @abstractmethod
    def gapped(self, sample: Tensor, gap: float) -> Tensor:
        """Logits that are moved no more than needed for `sample` to lead by at least `gap`."""

    @abstractmethod
    def reinmax(self, sample: Tensor, temperature: float = 1.0) -> Tensor:
        """`sample`, to the last bit, with ReinMax's Jacobian for the logits."""


def uniform(
    sample_shape: Sequence[int],
    shape: torch.Size,
    like: Tensor,
    dtype: torch.dtype,
    generator: torch.Generator | None,
    noise: Tensor | None,
) -> Tensor:
    """Uniforms in [0, 1), [*sample_shape, *shape]: the caller's or fresh ones.

    The only door of randomness. The caller's numbers outside [0, 1) are refused where they may be
    looked at, and clamped elsewhere: below 0 they would draw a token that is impossible.
    """
    shape = torch.Size((*sized(sample_shape), *shape))
    noise = noises.given(shape, like, generator, noise)
    if noise is None:
        return torch.rand(shape, dtype=dtype, device=like.device, generator=generator)
    if not readable(noise):
        return noise.clamp(0, 1 - torch.finfo(noise.dtype).eps / 2)
    if noise.numel():
        low, high = (float(x) for x in noise.aminmax())
        if not (low >= 0 and high < 1):
            raise ValueError(f"noise must be uniforms in [0, 1), got from {low} to {high}")
    return noise


def sized(sample_shape: Sequence[int]) -> torch.Size:
    """The shape of samples, which must be a sequence."""
    if not isinstance(sample_shape, Sequence):
        hint = f": write ({sample_shape},)" if isinstance(sample_shape, int) else ""
        came = type(sample_shape).__name__
        raise TypeError(f"sample_shape must be a sequence of integers, got {came}{hint}")
    return torch.Size(sample_shape)


def readable(x: Tensor) -> bool:
    """Whether values may be looked at: in eager code on the CPU, where nothing has to wait."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return x.device.type == "cpu"


def check_floating(logits: Any) -> None:
    """Raise unless `logits` is a floating-point tensor."""
    if not isinstance(logits, Tensor):
        raise TypeError(f"logits must be a tensor, got {type(logits).__name__}")
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")


def finite(logits: Tensor) -> Tensor:
    """Logits in the dtype of statistics, where an infinity is the largest number: 0 * it is 0."""
    return logits.to(statistics_dtype(logits)).nan_to_num(nan=torch.nan)


def check_temperature(temperature: Any) -> None:
    """Raise unless T is a positive, finite number or a floating-point tensor of such."""
    if isinstance(temperature, Tensor):
        if not temperature.is_floating_point():
            raise TypeError(f"temperature must be floating point, got {temperature.dtype}")
        if not readable(temperature) or bool(((temperature > 0) & temperature.isfinite()).all()):
            return
    elif isinstance(temperature, bool) or not isinstance(temperature, Real):
        came = type(temperature).__name__
        raise TypeError(f"temperature must be a number or a tensor, got {came}")
    elif 0 < float(temperature) < float("inf"):
        return
    raise ValueError(f"temperature must be positive and finite, got {temperature}")


def tempered(logits: Tensor, temperature: float | Tensor, rows: torch.Size) -> Tensor:
    """logits / T, where a tensor T broadcasts to `rows`, the leading dimensions of the logits."""
    check_temperature(temperature)
    if not isinstance(temperature, Tensor):
        return logits / temperature
    try:
        temperature = temperature.expand(rows)
    except RuntimeError:
        raise ValueError(
            f"temperature must be a number or broadcastable to {tuple(rows)}, one a variable, got "
            f"shape {tuple(temperature.shape)}"
        ) from None
    temperature = temperature.reshape(*rows, *[1] * (logits.dim() - len(rows)))
    # It must not see infinities: its gradient would be 0 * inf.
    infinite = logits.isinf()
    return torch.where(infinite, logits, torch.where(infinite, 0.0, logits) / temperature)
