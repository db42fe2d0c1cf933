"""The moments of `pgest.compare`: their standard errors, and what there is when none is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import pgest
from pgest.comparison.moments import Truth


def normal(n: int, mean: Tensor, generator: torch.Generator) -> Tensor:
    """Calls of an estimator with this mean and unit variances."""
    noise = torch.randn(n, len(mean), generator=generator, dtype=torch.float64)
    return mean + noise


@pytest.mark.parametrize(("d", "n"), [(3, 300), (20, 100), (200, 50)])
@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_the_error_of_the_bias_is_its_spread_over_simulations(d: int, n: int, bias: float) -> None:
    """Errors are of the square of the bias. Where there is none, the square is a chi-squared of d
    degrees of freedom, of which they must not be more than 1.3 times the standard deviation."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(d, dtype=torch.float64)
    truth[0] = 1.0
    squares, errors = [], []
    for _ in range(400):
        found = Truth(truth).drawn(normal(n, (1 + bias) * truth, generator))
        squares.append(found.bias**2)
        errors.append(found.bias_error * (found.bias_error + 2 * found.bias))
    spread = float(torch.tensor(squares).std()) if bias else (2 * d) ** 0.5 / n
    assert 0.9 < sum(errors) / len(errors) / spread < 1.3


def test_the_length_of_an_estimated_truth_has_an_error() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.full((20,), 0.1, dtype=torch.float64)
    lengths, claimed = [], []
    for _ in range(300):
        calls = normal(500, true, generator)
        truth = Truth(calls.mean(0), calls)
        assert truth.length
        lengths.append(truth.length)
        claimed.append(truth.length * truth.length_error)
        moments = truth.drawn(normal(500, true, generator))
        assert moments.spread_error > moments.spread * truth.length_error > 0  # a part of the ±
    assert 0.9 < sum(claimed) / len(claimed) / float(torch.tensor(lengths).std()) < 1.2


def test_a_gradient_that_is_lost_in_noise_has_no_length() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.full((20,), 0.01, dtype=torch.float64)
    found = [Truth(c.mean(0), c) for c in (normal(100, true, generator) for _ in range(200))]
    assert [t.length for t in found] == [None] * 200
    moments = found[0].drawn(normal(100, true, generator))
    assert moments.spread == pytest.approx(20**0.5, rel=0.1)  # absolute


def parity(z: Tensor) -> Tensor:
    """Of fair bits: its gradient is 0."""
    return 1000 * (1 - 2 * (z.sum(-1) % 2))


def test_what_is_not_resolved_is_said() -> None:
    bits = pgest.Bernoulli(torch.zeros(20, dtype=torch.float64), event_dims=1)
    found = pgest.compare(parity, bits, ["rloo", "reinforce"], repeats=60)
    assert found.length is None
    assert "The true gradient is not resolved" in found.advice()
    assert "raise repeats" in found.advice()
    assert [r["needed"] for r in found.record()["figures"]] == [None, None]


def test_the_reference_says_that_it_is_one() -> None:
    bits = pgest.Bernoulli(torch.zeros(20, dtype=torch.float64), event_dims=1)
    names = ["rloo", "dice", "reinforce"]
    found = pgest.compare(lambda z: z.sum(-1), bits, names, repeats=60)
    assert {r.name for r in found.figures if r.reference} == {"rloo", "dice"}
    for line in found.table().splitlines()[2:]:
        assert ("reference" in line) == ("reinforce" not in line)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_gradient_of_0_is_said_to_be(dtype: torch.dtype) -> None:
    bits = pgest.Bernoulli(torch.tensor([0.4, -0.9, 1.2], dtype=dtype), event_dims=1)

    def f(z: Tensor) -> Tensor:
        """1/3, up to rounding."""
        third = (z.sum(-1) + 0.7) / 3
        return third / (z.sum(-1) + 0.7)

    found = pgest.compare(f, bits, ["rloo"])
    assert found.length == 0
    assert found.advice().startswith("The true gradient is 0, as far as the rounding of f can tell")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_no_bias(dtype: torch.dtype) -> None:
    """Exact are those that enumerate, those for quadratic f, and those that see every value."""
    bits = pgest.Bernoulli(torch.tensor([0.4, -0.9, 1.2], dtype=dtype), event_dims=1)
    certain = ["exact", "sum_and_sample", "unordered_set"]
    for names, samples in ((certain, 8), (["rloo", "reinmax"], 2)):
        found = pgest.compare(
            lambda z: (z.sum(-1) - 1.3) ** 2, bits, names, num_samples=samples, repeats=20
        )
        assert {r.name for r in found.figures} == set(names)
        for r in found.figures:
            assert (r.enumerated, r.bias, r.bias_error, r.trusted) == (True, 0.0, 0.0, True)
            assert (r.spread == 0) == (r.name in certain)


def test_one_variable_at_all_its_values_leaves_no_error() -> None:
    """The spread of `measure_valued` on one token is that of its sums."""
    token = pgest.OneHotCategorical(torch.tensor([0.3, -0.8, 0.5], dtype=torch.float64))

    def f(z: Tensor) -> Tensor:
        return (z @ torch.tensor([1.0, -1.2, 0.4], dtype=torch.float64)) ** 4

    for samples in (4, 40):  # the outcomes of 40 are too many to be listed
        found = pgest.compare(f, token, ["measure_valued"], num_samples=samples, repeats=20)
        assert (found.figures[0].spread, found.figures[0].enumerated) == (0, True)


def test_a_sum_over_bits_leaves_no_spread_without_a_true_gradient() -> None:
    bits = pgest.Bernoulli(torch.zeros(20, dtype=torch.float64), event_dims=1)
    found = pgest.compare(lambda z: z.sum(-1), bits, ["measure_valued"], repeats=60)
    assert (found.figures[0].spread, found.figures[0].spread_error) == (0, 0)
