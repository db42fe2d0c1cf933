"""What `sample` draws has the law that it says: frequencies, couplings, Gumbel-top-k."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import pgest
from pgest import reference

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
KS = 2.6  # sqrt(n) D of Kolmogorov and Smirnov: exceeded by chance once in 10^6
Z = 5.0


def row(vocab: int, dtype: torch.dtype = torch.float64, scale: float = 0.5) -> Tensor:
    return (scale * torch.randn(vocab, generator=torch.Generator().manual_seed(vocab))).to(dtype)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chi_square(tokens: Tensor, p: Tensor) -> float:
    """Pearson's statistic in standard deviations of what it is by chance."""
    expected = p.double() * tokens.numel()
    assert expected.min() > 4
    counts = torch.bincount(tokens.flatten(), minlength=len(p))
    statistic = ((counts - expected).square() / expected).sum()
    return float((statistic - (len(p) - 1)) / math.sqrt(2 * (len(p) - 1)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("vocab", "draws"), [(10, 100_000), (32_000, 1_000_000)])
def test_frequencies(dtype: torch.dtype, vocab: int, draws: int) -> None:
    """Finds an off-by-one, and probabilities that are wrong by a part of 0.06."""
    logits = row(vocab, dtype, 0.3)
    p = logits.double().softmax(-1)
    tokens = pgest.sample(logits, draws, generator=seeded()).tokens
    assert chi_square(tokens, p) < Z
    assert chi_square((tokens + 1) % vocab, p) > 20
    assert chi_square(tokens, (0.8 * logits.double()).softmax(-1)) > 2 * Z


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab", [1, 10, 5000, 32_000])
def test_a_grid_of_uniforms(dtype: torch.dtype, vocab: int) -> None:
    """Inversion to the grid's resolution and 10^-6: each token has its part of [0, 1)."""
    logits, n = row(vocab, dtype, 2.0), 100_000
    noise = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    tokens = pgest.sample(logits, n, noise=noise).tokens
    assert (tokens.diff() >= 0).all()
    before = logits.double().softmax(-1).cumsum(-1) * n
    found = torch.bincount(tokens, minlength=vocab).cumsum(-1)
    assert (found - before).abs().max() <= 1 + n * 1e-6


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tiny_probabilities_have_their_uniforms(dtype: torch.dtype) -> None:
    """Uniforms of 24 bits would never reach them."""
    logits = torch.full((5000,), -math.inf)
    logits[[0, 2500, 4999]] = torch.tensor([-21.0, 0.0, -21.0])  # p = 7.6e-10
    places = [0.0, 7.5e-10, 7.7e-10, 0.5, 1 - 7.7e-10, 1 - 7.5e-10, 1 - 2**-53]
    u = torch.tensor(places, dtype=torch.float64)
    tokens = pgest.sample(logits.to(dtype), 7, noise=u).tokens
    assert tokens.tolist() == [0, 0, 2500, 2500, 2500, 4999, 4999]


@pytest.mark.parametrize("method", ["independent", "antithetic", "stratified"])
@pytest.mark.parametrize("num_samples", [1, 2, 5])
def test_each_sample_by_itself_has_the_law(method: str, num_samples: int) -> None:
    logits = row(10, torch.float32)
    rows = logits.expand(100_000, 10)
    drawn = pgest.sample(rows, num_samples, method=method, generator=seeded(1))
    for tokens in drawn.tokens:
        assert chi_square(tokens, logits.softmax(-1)) < Z


@pytest.mark.parametrize("method", ["antithetic", "stratified"])
def test_couplings(method: str) -> None:
    """A vocabulary of equal tokens shows the uniforms."""
    vocab, s, n = 4000, 5, 300
    logits = torch.zeros(n, vocab)
    u = (pgest.sample(logits, s, method=method, generator=seeded()).tokens + 0.5) / vocab
    if method == "antithetic":
        torch.testing.assert_close(u[:2] + u[3:], torch.ones(2, n), rtol=0, atol=1.1 / vocab)
    else:
        parts = (u * s).long().sort(0).values
        assert (parts == torch.arange(s)[:, None]).all()
        turns = torch.bincount((u[0] * s).long(), minlength=s)
        assert turns.min() > n / s / 2
    independent = pgest.sample(logits, s, generator=seeded()).tokens / vocab
    assert u.mean(0).var() < 0.5 * independent.mean(0).var()


def test_the_largest_uniform_has_a_mirror() -> None:
    noise = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    drawn = pgest.sample(torch.zeros(3), 4, method="antithetic", noise=noise)
    assert drawn.tokens.tolist() == [0, 2, 2, 0]


LOGITS = torch.tensor([0.3, -1.0, 1.5, 0.0], dtype=torch.float64)


def without_replacement(n: int, s: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tokens and perturbed values [S, n]."""
    rows = LOGITS.float().expand(n, len(LOGITS))
    drawn = pgest.sample(rows, s, method="without_replacement", generator=seeded(seed))
    assert drawn.perturbed is not None
    return drawn.tokens, drawn.perturbed


def gumbel_top_k(n: int, s: int) -> tuple[Tensor, Tensor]:
    u = torch.rand(n, len(LOGITS), generator=seeded(7), dtype=torch.float64)
    best = (LOGITS.log_softmax(-1) - (-u.log()).log()).topk(s)
    return best.indices.T, best.values.T


def order_probabilities(s: int) -> dict[tuple[int, ...], float]:
    """Of every order of S tokens: the product of p over what is left."""
    p = LOGITS.softmax(-1).tolist()
    found = {}
    for order in itertools.permutations(range(len(p)), s):
        left = [1 - sum(p[i] for i in order[:k]) for k in range(s)]
        found[order] = math.prod(p[i] / r for i, r in zip(order, left, strict=True))
    assert abs(sum(found.values()) - 1) < 1e-12
    return found


@pytest.mark.parametrize("draw", [without_replacement, gumbel_top_k])
@pytest.mark.parametrize("s", [1, 2, 3, 4])
def test_orders_without_replacement(draw: Any, s: int) -> None:
    tokens, _ = draw(200_000, s)
    exact = order_probabilities(s)
    code = {order: i for i, order in enumerate(exact)}
    coded = torch.tensor([code[tuple(t)] for t in tokens.T.tolist()])
    p = torch.tensor(list(exact.values()), dtype=torch.float64)
    assert chi_square(coded, p) < Z
    other = (0.97 * p.log()).softmax(-1)  # a planted error
    assert chi_square(coded, other) > Z


def scaled_arrivals(tokens: Tensor, perturbed: Tensor) -> Tensor:
    """(exp(-g_k) - exp(-g_{k-1})) times the probability that is left: independent Exp(1)."""
    p = LOGITS.softmax(-1)[tokens]
    left = 1 - p.cumsum(0) + p
    arrivals = (-perturbed).exp()
    return torch.cat([arrivals[:1], arrivals.diff(dim=0)]) * left


def uniform_distance(x: Tensor) -> float:
    """sqrt(n) D between numbers and the uniform law on [0, 1)."""
    n = x.numel()
    grid = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return float((x.flatten().double().sort().values - grid).abs().max() * math.sqrt(n))


@pytest.mark.parametrize("draw", [without_replacement, gumbel_top_k])
def test_perturbed_values_have_the_joint_law_of_gumbel_top_k(draw: Any) -> None:
    """By order of tokens, the arrivals are exponential, and independent of each other and of it.

    That says all of the joint law. The true Gumbel-top-k passes the same; errors of 0.03 in the log
    of what is left are found.
    """
    tokens, perturbed = draw(200_000, 3)
    assert (perturbed.diff(dim=0) <= 0).all()
    u = (-scaled_arrivals(tokens, perturbed)).exp()
    for k in range(3):
        assert uniform_distance(u[k]) < KS
        for token in range(4):
            assert uniform_distance(u[k][tokens[0] == token]) < KS
            assert uniform_distance(u[k][tokens[k] == token]) < KS
    correlations = torch.corrcoef(u)[[0, 0, 1], [1, 2, 2]]
    assert correlations.abs().max() < Z / math.sqrt(200_000)
    planted = (-scaled_arrivals(tokens, perturbed) * math.exp(0.03)).exp()
    assert min(uniform_distance(planted[k]) for k in range(3)) > KS


def test_kool_s_estimator_is_unbiased() -> None:
    """The sum of p / q f over all but the last, whose perturbed value is the threshold."""
    tokens, perturbed = without_replacement(200_000, 3, seed=3)
    log_p = LOGITS.log_softmax(-1)
    f = torch.tensor([1.0, -2.0, 0.5, 7.0], dtype=torch.float64)
    logp = log_p[tokens[:-1]]
    q = -torch.expm1(-(logp - perturbed[-1]).exp())
    estimates = (logp.exp() / q * f[tokens[:-1]]).sum(0)
    error = float(estimates.mean() - (log_p.exp() * f).sum())
    assert abs(error) < Z * float(estimates.std()) / math.sqrt(200_000)
    assert float(estimates.std()) / math.sqrt(200_000) < 0.02


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_one_token_leaves_is_not_lost(dtype: torch.dtype) -> None:
    """p of the first is 1 to every digit, and the rest underflows next to it, again and again."""
    logits = torch.full((3, 5000), -math.inf)
    logits[0, [7, 2049, 2050, 4999, 3]] = torch.tensor([0.0, -200.0, -200.0, -1000.0, -4000.0])
    logits[1, [7, 2049, 2050, 4999, 3]] = torch.tensor([0.0, -30.0, -60.0, -90.0, -120.0])
    logits[2, :5] = torch.tensor([9.0, 0.0, -1.0, -2.0, -3.0])
    logits = logits.to(dtype)
    noise = torch.rand(2, 5, 3, dtype=torch.float64, generator=seeded())
    drawn = pgest.sample(logits, 5, method="without_replacement", noise=noise)
    tokens, perturbed = reference.draw.distinct(logits.double(), noise)
    assert torch.equal(drawn.tokens, tokens)
    torch.testing.assert_close(drawn.perturbed, perturbed, rtol=1e-6, atol=1e-6)
    assert drawn.tokens[3:, :2].tolist() == [[4999, 4999], [3, 3]]
