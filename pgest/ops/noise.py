"""Where the noise of an op comes from: a seed for counter-based noise, or the caller's uniforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pgest.reference import statistics_dtype


def given(
    shape: Sequence[int], like: Tensor, generator: torch.Generator | None, noise: Any
) -> Tensor | None:
    """The caller's uniforms, detached, or None where they are to be drawn.

    Whether they are in [0, 1) the kernel checks.

    Raises:
        ValueError: both a generator and noise, a generator in compiled code or under torch.func,
            noise of another shape or device.
        TypeError: noise that is not floating point, a generator that is none.
    """
    if generator is not None:
        _check_generator(generator)
    if noise is None:
        return None
    if generator is not None:
        raise ValueError("noise and generator exclude each other: got both")
    if not isinstance(noise, Tensor) or not noise.is_floating_point():
        came = noise.dtype if isinstance(noise, Tensor) else type(noise).__name__
        raise TypeError(f"noise must be a floating-point tensor of uniforms in [0, 1), got {came}")
    if noise.shape != torch.Size(shape):
        raise ValueError(f"noise must have shape {tuple(shape)}, got {tuple(noise.shape)}")
    if noise.device != like.device:
        raise ValueError(f"noise must be on {like.device} like logits, got {noise.device}")
    return noise.detach()


def draw(
    shape: Sequence[int], like: Tensor, generator: torch.Generator | None, noise: Any
) -> tuple[Tensor | None, Tensor | None]:
    """A seed drawn from the generator, or the uniforms of `noise` in the dtype of statistics.

    A seed is one int64 on the device, which is never looked at here. Raises as `given` does.
    """
    uniforms = given(shape, like, generator, noise)
    if uniforms is None:
        return _seed(like.device, generator), None
    return None, _narrowed(uniforms, statistics_dtype(like))


def _check_generator(generator: Any) -> None:
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if torch.compiler.is_compiling():
        raise ValueError("generator is for eager code: compiled code passes noise=")
    if torch._C._are_functorch_transforms_active():
        raise ValueError("generator is for eager code: code under torch.func passes noise=")


def _seed(device: torch.device, generator: torch.Generator | None) -> Tensor:
    return torch.randint(-(2**63), 2**63 - 1, (1,), device=device, generator=generator)


def _narrowed(noise: Tensor, dtype: torch.dtype) -> Tensor:
    """In another dtype, where rounding must not carry a uniform to 1."""
    if dtype.itemsize >= noise.dtype.itemsize:
        return noise.to(dtype)
    below_one = 1 - torch.finfo(dtype).eps / 2
    return torch.where(noise < 1, noise.to(dtype).clamp_max(below_one), noise.to(dtype))
