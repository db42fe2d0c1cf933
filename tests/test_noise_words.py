"""Counter-based noise: published test vectors, accuracy, extremes, independence of layout."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import pgest
from pgest import reference
from pgest.reference.noise import exponential_noise, philox, words

ONES = 0xFFFFFFFF
# From the known-answer tests that the authors of Philox publish with it (Random123, kat_vectors).
PUBLISHED = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def seed_of(generator: torch.Generator) -> Tensor:
    """What an op draws from a generator."""
    return torch.randint(-(2**63), 2**63 - 1, (1,), generator=generator)


def kernel_noise(seed: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Differences of the kernel's noise to the first element's, from its soft samples."""
    y = pgest.gumbel_softmax(torch.zeros(shape, dtype=dtype), 8.0, generator=seeded(seed))
    return 8 * (y.double().log() - y.double()[..., :1].log())


@pytest.mark.parametrize(("counter", "key", "expected"), PUBLISHED)
def test_philox_gives_the_published_words(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    a, b, c, d = (torch.tensor(word) for word in counter)
    assert tuple(int(word) for word in philox((a, b, c, d), key)) == expected


@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float64, 1e-13), (torch.float32, 2e-5)], ids=str
)
def test_the_kernel_makes_the_noise_of_the_definition(dtype: torch.dtype, error: float) -> None:
    gumbel = reference.gumbel_noise(seed_of(seeded(3)), torch.Size((7,)), 5003)
    found = kernel_noise(3, (7, 5003), dtype)
    assert (found - (gumbel - gumbel[..., :1])).abs().max() < error


@pytest.mark.parametrize("vocab", [1, 5, 63, 64, 65, 2048, 2049, 4500])
def test_hard_samples_are_those_of_the_definition(vocab: int) -> None:
    logits = torch.randn(50, vocab, generator=seeded(0))
    gumbel = reference.gumbel_noise(seed_of(seeded(1)), torch.Size((50,)), vocab)
    hard = pgest.gumbel_softmax(logits, hard=True, generator=seeded(1))
    assert torch.equal(hard.argmax(-1), (logits + gumbel).argmax(-1))
    assert torch.equal(hard.sum(-1), torch.ones(50))


def drawn(seed: int, rows: int, elements: int) -> Tensor:
    places = torch.arange(rows)[:, None], torch.arange(elements)
    return exponential_noise(*words(torch.tensor([seed]), *places))


def test_both_ends_are_finite_and_fine() -> None:
    high = torch.tensor([0, 0, 0, ONES, ONES, ONES])
    low = torch.tensor([0, 1, 2, 0xFFFFFF, 0xFFFFFE, 0xFFFFFD])
    noise = exponential_noise(high, low)
    u = torch.tensor([0.5, 1.5, 2.5], dtype=torch.float64) * 2.0**-56
    torch.testing.assert_close(noise, torch.cat([u, -u.log()]), rtol=1e-15, atol=0)
    gumbel = -noise.log()
    assert 39.5 < gumbel.max() < 39.6
    assert -3.7 < gumbel.min() < -3.6


def test_the_kernel_is_accurate_in_both_tails() -> None:
    """The extremes of a million."""
    gumbel = reference.gumbel_noise(seed_of(seeded(0)), torch.Size((1024,)), 1024)
    y = pgest.gumbel_softmax(torch.zeros(1024, 1024), generator=seeded(0)).double()
    log_y = gumbel - gumbel.logsumexp(-1, keepdim=True)
    for extreme in (gumbel.argmax(), gumbel.argmin()):
        torch.testing.assert_close(
            y.flatten()[extreme], log_y.flatten()[extreme].exp(), rtol=3e-6, atol=0
        )
    assert gumbel.max() > 12
    assert len(gumbel.unique()) == gumbel.numel()


def test_exponential_noise_is_exponential() -> None:
    """Kolmogorov and Smirnov's distance, and moments; a shift of 0.4 % would be seen."""
    noise = drawn(7, 1000, 1000)
    sample = noise.flatten().sort().values
    n = len(sample)
    grid = torch.arange(n, dtype=torch.float64) / n
    distance = ((1 - (-sample).exp()) - grid).abs().max()
    assert distance < 1.95 / math.sqrt(n)  # p = 0.001
    assert abs(sample.mean() - 1) < 4 / math.sqrt(n)
    assert abs((sample**2).mean() - 2) < 4 * math.sqrt(20 / n)


def test_neighbours_and_rows_are_independent() -> None:
    noise = drawn(9, 1000, 1024)
    u = (-noise).exp() - 0.5
    for shift in (1, 16, 32, 48, 64):  # 16 is the distance of two words of one counter
        along = (12 * u[:, :-shift] * u[:, shift:]).mean()
        assert abs(along) < 4 / math.sqrt(u.numel() - 1000 * shift)
    assert abs((12 * u[:-1] * u[1:]).mean()) < 4 / math.sqrt(u.numel() - 1024)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_types_have_the_same_noise(dtype: torch.dtype) -> None:
    logits = torch.randn(20, 3000, generator=seeded(0)).to(dtype)
    half, full = (
        pgest.gumbel_softmax(x, 0.5, generator=seeded(2)) for x in (logits, logits.float())
    )
    assert torch.equal(half, full.to(dtype))


def test_noise_does_not_depend_on_layout_or_threads() -> None:
    logits = torch.randn(6, 5, 3000, generator=seeded(0))
    expected = pgest.gumbel_softmax(logits, generator=seeded(4))
    strided = logits.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(pgest.gumbel_softmax(strided, generator=seeded(4)), expected)
    moved = pgest.gumbel_softmax(logits.movedim(-1, 0), dim=0, generator=seeded(4))
    assert torch.equal(moved.movedim(0, -1), expected)
    flat = pgest.gumbel_softmax(logits.view(30, 3000), generator=seeded(4))
    assert torch.equal(flat.view(6, 5, 3000), expected)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(pgest.gumbel_softmax(logits, generator=seeded(4)), expected)
    finally:
        torch.set_num_threads(threads)


def test_seeds_and_rows_differ() -> None:
    logits = torch.zeros(4, 100)
    first = pgest.gumbel_softmax(logits, generator=seeded(1))
    assert torch.equal(pgest.gumbel_softmax(logits, generator=seeded(1)), first)
    assert not torch.equal(pgest.gumbel_softmax(logits, generator=seeded(2)), first)
    assert len({tuple(row) for row in first.tolist()}) == 4
    torch.manual_seed(0)
    assert not torch.equal(pgest.gumbel_softmax(logits), pgest.gumbel_softmax(logits))
