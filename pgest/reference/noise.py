"""Counter-based noise: a pure function of (seed, row, element), the same in every dtype."""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_COUNTERS = 16  # in a group of 64 elements: element 16 w + c of it has word w of its counter c


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Philox4x32-10: four words of 32 bits from a counter of four and a key of two.

    Words are int64 tensors in [0, 2^32).

    Source: Salmon, Moraes, Dror and Shaw (2011), Parallel random numbers: as easy as 1, 2, 3.
    """
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _product(a, 0xD2511F53)
        high1, low1 = _product(c, 0xCD9E8D57)
        a, b, c, d = high1 ^ b ^ k0, low1, high0 ^ d ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return [a, b, c, d]


def _product(x: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """The high and the low word of x m, by halves: 64 bits with a sign do not hold it."""
    low, high = x * (m & 0xFFFF), x * (m >> 16)
    middle = (low >> 16) + (high & 0xFFFF)
    return (high >> 16) + (middle >> 16), ((middle & 0xFFFF) << 16) | (low & 0xFFFF)


def words(seed: Tensor, rows: Tensor, elements: Tensor) -> tuple[Tensor, Tensor]:
    """The random word of elements of rows, and the last 24 bits of the word that follows it.

    Args:
        seed: int64, one element.
        rows, elements: int64, broadcastable to each other.
    """
    key = int(seed)
    rows, elements = torch.broadcast_tensors(rows, elements)
    counter = elements // (4 * _COUNTERS) * _COUNTERS + elements % _COUNTERS
    place = (elements // _COUNTERS % 4)[None]
    split = (counter & _WORD, counter >> 32, rows & _WORD, rows >> 32)
    four = torch.stack(philox(split, (key & _WORD, (key >> 32) & _WORD)))
    return four.gather(0, place)[0], four.gather(0, (place + 1) % 4)[0] & 0xFFFFFF


def exponential_noise(high: Tensor, low: Tensor) -> Tensor:
    """-log(1 - u) in float64, u = (high 2^24 + low + 1/2) 2^-56, in [2^-57, 39.6]."""
    upper = high >= 2**31
    whole = (high << 24) | low
    end = (torch.where(upper, 2**56 - 1 - whole, whole).double() + 0.5) * 2.0**-56
    return -torch.where(upper, end.log(), (-end).log1p())


def gumbel_noise(seed: Tensor, batch: torch.Size, vocab: int) -> Tensor:
    """Gumbel noise [*batch, vocab] in float64: -log of exponential noise, in [-3.7, 39.6]."""
    rows = torch.arange(batch.numel(), device=seed.device).view(*batch, 1)
    elements = torch.arange(vocab, device=seed.device)
    return -exponential_noise(*words(seed, rows, elements)).log()


def gumbel_of(uniforms: Tensor) -> Tensor:
    """Gumbel noise -log(-log u) of uniforms in [0, 1); the smallest positive number is for 0."""
    return -(-uniforms.clamp_min(torch.finfo(uniforms.dtype).tiny).log()).log()
