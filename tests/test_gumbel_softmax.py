"""gumbel_softmax: its distribution, its edges, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from op_row import HALF
from test_noise_words import seeded
from torch import Tensor

import pgest

DTYPES = (torch.float64, torch.float32, *HALF)


def tokens_of(logits: Tensor, n: int, seed: int) -> Tensor:
    rows = logits.expand(n, -1)
    return pgest.gumbel_softmax(rows, hard=True, generator=seeded(seed)).argmax(-1)


def chi_square_excess(counts: Tensor, p: Tensor) -> float:
    """Standard deviations of the statistic above its mean, cells with few expected merged."""
    expected = p * counts.sum()
    few = expected < 10
    cells, means = (
        torch.cat([x[~few], x[few].sum()[None]]) if few.any() else x for x in (counts, expected)
    )
    freedom = len(means) - 1
    statistic = ((cells - means) ** 2 / means).sum()
    return float((statistic - freedom) / math.sqrt(2 * freedom))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("vocab", "n"), [(10, 200_000), (32_000, 4000)])
def test_hard_samples_have_the_right_frequencies(dtype: torch.dtype, vocab: int, n: int) -> None:
    """Chi-square below 4.5 deviations; a probability of 0.1 off by 3 % is seen (V = 10)."""
    logits = (2 * torch.randn(vocab, generator=seeded(1))).to(dtype)
    found = torch.cat([tokens_of(logits, 1000, seed) for seed in range(n // 1000)])
    counts = torch.bincount(found, minlength=vocab).double()
    p = logits.double().softmax(-1)
    assert chi_square_excess(counts, p) < 4.5
    if vocab == 10:
        wrong = p * (1 + 0.06 * (torch.arange(10) % 2))
        assert chi_square_excess(counts, wrong / wrong.sum()) > 4.5


def test_no_place_is_preferred() -> None:
    found = tokens_of(torch.zeros(30_001), 3000, 0)
    assert abs((found < 15_000).double().mean() - 0.5) < 4 * 0.5 / math.sqrt(3000)
    places = torch.bincount(found % 64, minlength=64).double()
    assert chi_square_excess(places, torch.full((64,), 1 / 64)) < 4.5


def test_a_relaxed_entry_has_the_concrete_distribution() -> None:
    """For V = 2, tau logit(y_0) - (z_0 - z_1) is logistic: Kolmogorov and Smirnov's distance."""
    n, tau = 100_000, 0.6
    logits = torch.tensor([0.3, -0.4], dtype=torch.float64)
    y = pgest.gumbel_softmax(logits.expand(n, 2), tau, generator=seeded(0))
    logistic = (tau * (y[:, 0].log() - y[:, 1].log()) - 0.7).sort().values
    distance = (logistic.sigmoid() - torch.arange(n).double() / n).abs().max()
    assert distance < 1.95 / math.sqrt(n)  # p = 0.001
    shifted = ((logistic + 0.03).sigmoid() - torch.arange(n).double() / n).abs().max()
    assert shifted > 1.95 / math.sqrt(n)


def test_rare_entries_are_drawn() -> None:
    """2^24 uniforms could not draw what this does: an entry of probability 3e-8, against 32,000."""
    rest, n = 10.0, 32_000
    logits = torch.full((n,), rest)
    logits[7] = rest + math.log(3e-8 * n)
    gumbels = pgest.gumbel_softmax(logits.expand(500, n), 1.0, generator=seeded(0))
    assert (gumbels[:, 7] > 0).all()
    assert gumbels[:, 7].max() > 20 * gumbels[:, 7].median()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hard", [False, True])
def test_impossible_entries_and_broken_rows(dtype: torch.dtype, hard: bool) -> None:
    logits = torch.randn(5, 4500, generator=seeded(0)).to(dtype)
    logits[0, ::2] = -math.inf
    logits[1] = -math.inf
    logits[2, 4400] = math.nan
    logits[3, 17] = math.inf
    logits.requires_grad_()
    y = pgest.gumbel_softmax(logits, 0.8, hard, generator=seeded(0))
    assert (y[0, ::2] == 0).all()
    assert y[[1, 2, 3]].isnan().all()
    assert y[[0, 4]].isfinite().all()
    upstream = torch.randn(5, 4500, generator=seeded(1)).to(dtype)
    upstream[0, 2] = math.inf  # as that of y log y is where y is 0
    upstream[3] = 0
    (grad,) = torch.autograd.grad(y, logits, upstream)
    assert (grad[0, ::2] == 0).all()
    assert grad[[0, 4]].isfinite().all()
    assert grad[[0, 4]].abs().sum() > 0
    assert grad[[1, 2]].isnan().all()
    assert (grad[3] == 0).all()


def test_ties_and_extreme_temperatures() -> None:
    logits = torch.zeros(3, 7)
    noise = torch.full((3, 7), 0.5)
    hard = pgest.gumbel_softmax(logits, hard=True, noise=noise)
    assert torch.equal(hard.argmax(-1), torch.zeros(3, dtype=torch.int64))
    assert torch.equal(hard.sum(-1), torch.ones(3))
    noise = torch.rand(3, 7, generator=seeded(0))
    cold = pgest.gumbel_softmax(logits, 1e-6, noise=noise)
    assert torch.equal(cold, pgest.gumbel_softmax(logits, hard=True, noise=noise))
    warm = pgest.gumbel_softmax(logits, 1e6, noise=noise)
    torch.testing.assert_close(warm, torch.full((3, 7), 1 / 7), rtol=1e-4, atol=0)


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_noise_is_precise_beside_large_logits(offset: float) -> None:
    noise = torch.rand(4, 100, generator=seeded(0))
    near = pgest.gumbel_softmax(torch.zeros(4, 100), noise=noise)
    torch.testing.assert_close(
        pgest.gumbel_softmax(torch.full((4, 100), offset), noise=noise), near, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5), (5,), (2, 1)], ids=str)
def test_few_rows(shape: tuple[int, ...]) -> None:
    logits = torch.zeros(shape, requires_grad=True)
    for hard in (False, True):
        y = pgest.gumbel_softmax(logits, hard=hard)
        assert y.shape == shape
        (grad,) = torch.autograd.grad(y.sum(), logits)
        assert grad.abs().sum() == 0


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_any_dimension(dim: int) -> None:
    logits = torch.randn(3, 4, 5, generator=seeded(0), requires_grad=True)
    noise = torch.rand(3, 4, 5, generator=seeded(1))
    tau = torch.rand(4, 5) + 0.5 if dim == 0 else torch.rand(3, 1) + 0.5
    y = pgest.gumbel_softmax(logits, tau, dim=dim, noise=noise)
    t = tau[None] if dim == 0 else tau[:, None] if dim == 1 else tau[..., None]
    expected = ((logits - (-noise.log()).log()) / t).softmax(dim)
    torch.testing.assert_close(y, expected)
    upstream = torch.randn(3, 4, 5, generator=seeded(2))
    torch.testing.assert_close(
        torch.autograd.grad(y, logits, upstream), torch.autograd.grad(expected, logits, upstream)
    )


@pytest.mark.parametrize("hard", [False, True])
def test_the_seed_gives_the_backward_the_same_noise(hard: bool) -> None:
    """The hard one's backward computes the soft sample again."""
    logits = torch.randn(6, 3000, generator=seeded(0), requires_grad=True)
    upstream = torch.randn(6, 3000, generator=seeded(1))
    y = pgest.gumbel_softmax(logits, 0.7, hard, generator=seeded(2))
    soft = pgest.gumbel_softmax(logits, 0.7, generator=seeded(2)).detach()
    expected = soft * (upstream - (soft * upstream).sum(-1, keepdim=True)) / 0.7
    (grad,) = torch.autograd.grad(y, logits, upstream, retain_graph=True)
    torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-6)
    again = torch.autograd.grad(y, logits, upstream, create_graph=True)[0]
    torch.testing.assert_close(again, grad)
    assert torch.autograd.grad(again.square().sum(), logits)[0].abs().sum() > 0


def test_the_default_noise_is_torchs() -> None:
    logits = torch.zeros(3, 50)
    torch.manual_seed(3)
    first = pgest.gumbel_softmax(logits)
    torch.manual_seed(3)
    assert torch.equal(pgest.gumbel_softmax(logits), first)


def test_vmap_with_a_seed() -> None:
    """`same` gives each element the same noise, `different` its own, as torch's own draws do."""
    logits = torch.zeros(3, 2, 50)

    def run(x: Tensor) -> Tensor:
        return pgest.gumbel_softmax(x)

    same = torch.vmap(run, randomness="same")(logits)
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0, 0], same[0, 1])
    different = torch.vmap(run, randomness="different")(logits)
    assert not torch.equal(different[0], different[1])
    with pytest.raises(RuntimeError, match="random"):
        torch.vmap(run)(logits)


def test_compiled_code_draws_anew() -> None:
    torch.compiler.reset()
    run = torch.compile(
        lambda x: pgest.gumbel_softmax(x, hard=True), fullgraph=True, backend="eager"
    )
    logits = torch.zeros(4, 1000)
    assert not torch.equal(run(logits), run(logits))


ERRORS: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
    ({"logits": [1.0]}, TypeError, "^logits must be a tensor, got list"),
    ({"logits": torch.zeros(3, dtype=torch.int64)}, TypeError, "^logits must be float32"),
    ({"logits": torch.zeros(2, 0)}, ValueError, r"^logits must have shape \[..., V\]"),
    ({"logits": torch.tensor(1.0)}, ValueError, r"^logits must have a dimension of entries"),
    ({"tau": 0}, ValueError, "^tau must be positive and finite, got 0"),
    ({"tau": -1.0}, ValueError, "^tau must be positive and finite, got -1.0"),
    ({"tau": math.inf}, ValueError, "^tau must be positive and finite, got inf"),
    ({"tau": math.nan}, ValueError, "^tau must be positive and finite, got nan"),
    ({"tau": "1"}, TypeError, "^tau must be a number or a tensor, got str"),
    ({"tau": torch.zeros(())}, ValueError, "^tau must be positive and finite, got 0.0+ in row 0"),
    ({"tau": torch.tensor([1.0, math.nan])}, ValueError, "^tau must be .* got -?nan in row 1"),
    ({"tau": torch.ones(3)}, ValueError, "^tau must be a number or broadcastable to"),
    ({"hard": 1}, TypeError, "^hard must be a bool, got int"),
    ({"dim": 2}, ValueError, r"^dim must be in \[-2, 2\) for logits \(2, 5\), got 2"),
    ({"dim": 1.0}, TypeError, "^dim must be an integer, got float"),
    ({"noise": torch.zeros(5)}, ValueError, r"^noise must have shape \(2, 5\), got \(5,\)"),
    ({"noise": [0.5]}, TypeError, "^noise must be a floating-point tensor of uniforms"),
    ({"noise": torch.ones(2, 5)}, ValueError, r"^noise must be uniforms in \[0, 1\), got"),
    ({"noise": torch.full((2, 5), -1.0)}, ValueError, "^noise must be uniforms"),
    ({"noise": torch.full((2, 5), math.nan)}, ValueError, "^noise must be uniforms"),
    ({"noise": torch.ones(2, 5).double()}, ValueError, "^noise must be uniforms"),
)


@pytest.mark.parametrize(("options", "kind", "message"), ERRORS)
@pytest.mark.parametrize("hard", [False, True])
def test_bad_arguments(
    options: dict[str, Any], kind: type[Exception], message: str, hard: bool
) -> None:
    arguments: dict[str, Any] = {"logits": torch.zeros(2, 5), "hard": hard, **options}
    with pytest.raises(kind, match=message):
        pgest.gumbel_softmax(**arguments)


def test_noise_and_generator_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="noise and generator exclude each other"):
        pgest.gumbel_softmax(torch.zeros(3), generator=seeded(0), noise=torch.zeros(3))


def test_wider_noise_is_not_rounded_to_one() -> None:
    noise = torch.full((2, 5), 1 - 1e-12, dtype=torch.float64)
    assert pgest.gumbel_softmax(torch.zeros(2, 5), noise=noise).isfinite().all()
