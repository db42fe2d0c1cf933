"""`bit_stats` and `sample_bits`: vectors of bits, scored and drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgest.ops import checks, scalars
from pgest.ops import noise as noises
from pgest.ops.bits import autograd
from pgest.ops.rules import entry

OUTPUTS = ("logp", "entropy")


class BitStats(NamedTuple):
    """Statistics of vectors of bits, in nats; None where `outputs` did not ask."""

    logp: Tensor | None = None
    entropy: Tensor | None = None


def bit_stats(
    logits: Tensor,
    bits: Tensor | None,
    *,
    event_dims: int = 1,
    outputs: Sequence[str] = OUTPUTS,
) -> BitStats:
    """Log-probability of vectors of independent bits, and their entropy, in one pass.

    With P(b = 1) = p = sigmoid(z), summed over the last `event_dims` dimensions:

        logp = sum b log p + (1 - b) log(1 - p),   entropy = -sum p log p + (1 - p) log(1 - p)
        dz = sum_s w_s (b_s - p) - h z p (1 - p)   for gradients w of logp and h of entropy

    Args:
        logits: z, [...], float32, float64, bfloat16 or float16; infinite ones are certain bits.
        bits: shaped like `logits`, or [S, ...] for S samples; bool, uint8 or the logits' dtype,
            numbers from 0 to 1 (logp is linear in each). None if `outputs` does not ask for "logp".
        event_dims: how many trailing dimensions form one vector; 0 for bits that count alone. The
            default is 1, where `pgest.Bernoulli` has 0: here the last dimension is one vector.
        outputs: any of "logp", "entropy"; only these are computed.

    Returns:
        BitStats: logp [...] or [S, ...] and entropy [...] without the event's dimensions, float32
        (float64 for float64 logits), in nats; twice differentiable in the logits. The bits are
        detached. Forward mode raises.

    Raises:
        ValueError: a shape, name or value that does not fit, by argument name; bits that require a
            gradient. Bits outside [0, 1] raise on the CPU (RuntimeError in compiled code).
        TypeError: a dtype that does not fit.

    Nothing cancels: all is computed from |z| and the less likely value's probability, to a few
    units in the last place of each term. An impossible bit has logp -inf, and a finite gradient; a
    NaN logit makes its vector NaN, that one alone, and one whose upstream gradient is 0 has the
    gradient 0. Memory: the outputs and one gradient, whatever S; bits are read where they are
    (strided ones are copied). Second derivatives make temporaries of the bits' size.

    Source: the gradient of logp is the score function of Williams (1992), REINFORCE.

    Example:
        >>> logits = torch.zeros(2, requires_grad=True)
        >>> stats = bit_stats(logits, torch.tensor([[True, False], [True, True]]))
        >>> [round(x, 3) for x in stats.logp.tolist()], round(stats.entropy.item(), 3)
        ([-1.386, -1.386], 1.386)
        >>> (torch.tensor([3.0, 1.0]) * stats.logp).sum().backward()
        >>> logits.grad.tolist()
        [2.0, -1.0]
    """
    _check_logits(logits)
    outputs = checks.outputs(outputs, OUTPUTS)
    event_dims = _event_dims(event_dims, logits)
    event = math.prod(logits.shape[logits.dim() - event_dims :])
    scored = "logp" in outputs
    samples = _check_bits(bits, logits) if scored else None
    batch = logits.shape[: logits.dim() - event_dims]
    # One dimension of bits for the kernel, which sums over it or does not.
    rows = (*batch, event) if event_dims else logits.shape or (1,)
    given = (
        bits.reshape(1 if samples is None else samples, *rows)
        if scored and bits is not None
        else None
    )
    run = entry(autograd.bit_stats, autograd.BitStats, autograd.EagerBitStats, logits)
    logp, entropy = run(logits.reshape(rows), given, "entropy" in outputs, event_dims > 0)
    return BitStats(
        logp.view(batch if samples is None else (samples, *batch)) if scored else None,
        entropy.view(batch) if "entropy" in outputs else None,
    )


def sample_bits(
    logits: Tensor,
    num_samples: int = 1,
    *,
    antithetic: bool = False,
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Bits with P(b = 1) = p = sigmoid(logits): b = 1 where a uniform u is below p, detached.

    Args:
        logits: [...], float32, float64, bfloat16 or float16; infinite ones are certain bits.
        num_samples: S.
        antithetic: the second half of the samples mirrors the first: sample s + S / 2 has 1 - u
            where sample s has u. Each alone is distributed as any other.
        dtype: of the bits: bool, uint8 or, by default, the logits'.
        generator: what the noise's seed is drawn from, by default torch's own; in eager code only.
        noise: the uniforms u in [0, 1), [S, ...], or [S / 2, ...] of antithetic samples. Compiled
            code that repeats itself and `torch.vmap` take noise in this way.

    Returns:
        [S, ...].

    Raises:
        ValueError: a shape or value that does not fit, by argument name; an odd number of
            antithetic samples; NaN logits and noise outside [0, 1) on the CPU (RuntimeError in
            compiled code).
        TypeError: a dtype that does not fit.

    Noise from a seed is never stored: it is a function of the seed, the sample's number and the
    bit's place, the same in every dtype, layout and for any number of threads. Its uniforms have 56
    bits, and are compared at the end that is near the less likely value, so that p may be as close
    to 0 or 1 as the logits say; the caller's are compared with p in float32 (float64 for float64
    logits), which rounds what is within 6e-8 (1e-16) of 1. Memory: the bits.

    Example:
        >>> pair = sample_bits(torch.zeros(5), 2, antithetic=True)
        >>> pair.sum(0).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    _check_logits(logits)
    num_samples = _count(num_samples, antithetic)
    if dtype not in (None, torch.bool, torch.uint8, logits.dtype):
        raise TypeError(f"dtype must be bool, uint8 or {logits.dtype} like logits, got {dtype}")
    draws = num_samples // 2 if antithetic else num_samples
    shape = torch.Size((draws, *logits.shape))
    seed, uniforms = noises.draw(shape, logits, generator, noise)
    args = (num_samples, antithetic, seed, uniforms, dtype or logits.dtype)
    bits: Tensor = autograd.sample_bits(logits.detach(), *args)
    return bits


def _check_logits(logits: Any) -> None:
    checks.tensor("logits", logits)
    if logits.dtype not in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        raise TypeError(f"logits must be float32, float64, bfloat16 or float16, got {logits.dtype}")


def _event_dims(x: Any, logits: Tensor) -> int:
    event_dims = scalars.integer("event_dims", x)
    if not 0 <= event_dims <= logits.dim():
        raise ValueError(
            f"event_dims must be between 0 and {logits.dim()} for logits {tuple(logits.shape)}, "
            f"got {event_dims}"
        )
    return event_dims


def _check_bits(bits: Any, logits: Tensor) -> int | None:
    """S of bits [S, ...], None of bits shaped like logits."""
    if bits is None:
        raise ValueError('bits must be a tensor when outputs ask for "logp", got None')
    checks.tensor("bits", bits)
    if bits.dtype not in (torch.bool, torch.uint8, logits.dtype):
        raise TypeError(f"bits must be bool, uint8 or {logits.dtype} like logits, got {bits.dtype}")
    if bits.requires_grad:
        raise ValueError("bits must not require a gradient, logp has none for them: .detach()")
    if bits.device != logits.device:
        raise ValueError(f"bits must be on {logits.device} like logits, got {bits.device}")
    if bits.shape == logits.shape:
        return None
    if bits.dim() == 0 or bits.shape[1:] != logits.shape:
        raise ValueError(
            f"bits must have shape {tuple(logits.shape)} like logits, or one more dimension of "
            f"samples in front, got {tuple(bits.shape)}"
        )
    return bits.shape[0]


def _count(x: Any, antithetic: Any) -> int:
    num_samples = scalars.count("num_samples", x)
    if not isinstance(antithetic, bool):
        raise TypeError(f"antithetic must be a bool, got {type(antithetic).__name__}")
    if antithetic and num_samples % 2:
        raise ValueError(f"num_samples must be even for antithetic pairs, got {num_samples}")
    return num_samples
