"""Vectors of bits: log-probability and entropy, their gradient, and draws."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pgest.reference.noise import words
from pgest.reference.rows import statistics_dtype


def bit_stats(logits: Tensor, bits: Tensor | None, joint: bool) -> tuple[Tensor | None, Tensor]:
    """Log-probability of bits b with P(b = 1) = p = sigmoid(z), and entropy.

        log p(b) = b log p + (1 - b) log(1 - p),   H = -p log p - (1 - p) log(1 - p)

    Args:
        logits: z, [..., D].
        bits: [S, ..., D], numbers from 0 to 1 of any dtype, or None for no log-probability.
        joint: whether to sum over D.

    Returns:
        logp [S, ...] (or None) and entropy [...], with D where not joint. 0 log 0 is 0.
        Differentiable in the logits, to any order. Memory: temporaries of the size of the bits.
    """
    z = logits.to(statistics_dtype(logits))
    log_p, log_q = logsigmoid(z), logsigmoid(-z)
    entropy = -(_times(z.sigmoid(), log_p) + _times((-z).sigmoid(), log_q))
    logp = None
    if bits is not None:
        b = bits.to(z.dtype)
        logp = _times(b, log_p) + _times(1 - b, log_q)
        logp = logp.sum(-1) if joint else logp
    return logp, entropy.sum(-1) if joint else entropy


def _times(weight: Tensor, log: Tensor) -> Tensor:
    """weight log, where a weight of 0 makes it 0."""
    none = (weight == 0) & log.isinf()
    return torch.where(none, 0.0, weight * torch.where(none, 0.0, log))


def bit_stats_backward(
    logits: Tensor,
    bits: Tensor | None,
    grad_logp: Tensor | None,
    grad_entropy: Tensor | None,
    joint: bool,
) -> Tensor:
    """Gradient of `bit_stats` for the logits, in closed form.

    With w_s the gradient for logp_s and h for H:

        dz = sum_s w_s (b_s - p) - h z p (1 - p)

    Returns:
        Like logits; differentiable in everything but the bits.
    """
    z = logits.to(statistics_dtype(logits))
    p, q = z.sigmoid(), (-z).sigmoid()
    dz = torch.zeros_like(z)
    if grad_logp is not None and bits is not None:
        w = grad_logp[..., None] if joint else grad_logp
        b = bits.to(z.dtype)
        dz = dz + (w * (b * q - (1 - b) * p)).sum(0)  # b - p, which would cancel
    if grad_entropy is not None:
        h = grad_entropy[..., None] if joint else grad_entropy
        dz = dz - h * torch.where(z.isinf(), 0.0, z) * p * q
    return dz.to(logits.dtype)


def sample_bits(
    logits: Tensor, num_samples: int, antithetic: bool, seed: Tensor | None, noise: Tensor | None
) -> Tensor:
    """Bits [S, ...], bool: 1 where u < p; of antithetic ones the second half has 1 - u for u.

    Args:
        logits: [...].
        seed: of counter-based noise: sample s is row s of it, the logits in their order are its
            elements.
        noise: the uniforms u in [0, 1) instead, [S or S / 2, ...].
    """
    z = logits.to(statistics_dtype(logits))
    draws = num_samples // 2 if antithetic else num_samples
    if noise is not None:
        p = z.sigmoid()
        bits, mirrored = noise < p, 1 - noise <= p
    else:
        assert seed is not None
        rows = torch.arange(draws, device=logits.device)[:, None]
        elements = torch.arange(z.numel(), device=logits.device)
        high, low = (x.view(draws, *z.shape) for x in words(seed, rows, elements))
        bits, mirrored = _below(high, low, z), _below(2**32 - 1 - high, 2**24 - 1 - low, z)
    return torch.cat([bits, mirrored]) if antithetic else bits


def _below(high: Tensor, low: Tensor, z: Tensor) -> Tensor:
    """u < p, compared at the end of u that is near the less likely value, where it is fine."""
    upper = z > 0
    whole = (high << 24) | low
    end = (torch.where(upper, 2**56 - 1 - whole, whole).double() + 0.5) * 2.0**-56
    return (end < (-z.double().abs()).sigmoid()) ^ upper
