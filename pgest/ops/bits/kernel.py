"""Vectors of bits in torch's library: schemas, what runs without a kernel, fake kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from pgest import reference
from pgest.ops.library import define, tell_once


def _outputs(
    logits: Tensor, bits: Tensor | None, entropy: bool, joint: bool
) -> tuple[Tensor, Tensor]:
    dtype = reference.statistics_dtype(logits)
    each = logits.shape[:-1] if joint else logits.shape
    return (
        logits.new_empty((0,) if bits is None else (bits.shape[0], *each), dtype=dtype),
        logits.new_empty(each if entropy else (0,), dtype=dtype),
    )


def _bit_stats(
    logits: Tensor, bits: Tensor | None, entropy: bool, joint: bool
) -> tuple[Tensor, Tensor]:
    tell_once()
    if bits is not None and bits.device.type == "cpu":
        bad = ~((bits >= 0) & (bits <= 1))
        if bad.any():
            sample = int(bad.flatten(start_dim=1).any(1).nonzero()[0])
            raise ValueError(f"bits must be from 0 to 1, got others in sample {sample}")
    outputs = _outputs(logits, bits, entropy, joint)
    with torch.no_grad():
        values = reference.bit_stats(logits, bits, joint)
    for output, value in zip(outputs, values, strict=True):
        if output.shape != (0,) and value is not None:
            output.copy_(value)
    return outputs


def _bit_stats_backward(
    logits: Tensor,
    bits: Tensor | None,
    grad_logp: Tensor | None,
    grad_entropy: Tensor | None,
    joint: bool,
) -> Tensor:
    tell_once()
    with torch.no_grad():
        # What has no gradient is not read, as in the kernels.
        each = logits.shape[:-1] if joint else logits.shape
        silent = torch.ones(each, dtype=torch.bool, device=logits.device)
        if grad_logp is not None:
            silent = silent & (grad_logp == 0).all(0)
        if grad_entropy is not None:
            silent = silent & (grad_entropy == 0)
        logits = torch.where(silent[..., None] if joint else silent, 0.0, logits)
        args = (logits, bits, grad_logp, grad_entropy, joint)
        return reference.bit_stats_backward(*args).contiguous()


def _fake_backward(logits: Tensor, *args: object) -> Tensor:
    return logits.new_empty(logits.shape)


def _sample_bits(
    logits: Tensor,
    num_samples: int,
    antithetic: bool,
    seed: Tensor | None,
    noise: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    tell_once()
    if logits.device.type == "cpu":
        if logits.isnan().any():
            raise ValueError("logits must not be NaN")
        if noise is not None and not ((noise >= 0) & (noise < 1)).all():
            bad = ~((noise >= 0) & (noise < 1)).flatten(start_dim=1).all(1)
            raise ValueError(
                f"noise must be uniforms in [0, 1), got others in sample {int(bad.nonzero()[0])}"
            )
    return reference.sample_bits(logits, num_samples, antithetic, seed, noise).to(dtype)


def _fake_sample_bits(
    logits: Tensor, num_samples: int, antithetic: bool, seed: object, noise: object, dtype: object
) -> Tensor:
    return logits.new_empty((num_samples, *logits.shape), dtype=dtype)  # type: ignore[call-overload]


define(
    "bit_stats(Tensor logits, Tensor? bits, bool entropy, bool joint)"
    " -> (Tensor logp, Tensor entropy)",
    _bit_stats,
    _outputs,
)
define(
    "bit_stats_backward(Tensor logits, Tensor? bits, Tensor? grad_logp, Tensor? grad_entropy,"
    " bool joint) -> Tensor grad_logits",
    _bit_stats_backward,
    _fake_backward,
)
define(
    "sample_bits(Tensor logits, SymInt num_samples, bool antithetic, Tensor? seed, Tensor? noise,"
    " ScalarType dtype) -> Tensor bits",
    _sample_bits,
    _fake_sample_bits,
)
