"""`row_threshold` keeps what a definition by sorting keeps."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

import pgest
from pgest import reference

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
RESTRICTIONS: tuple[dict[str, Any], ...] = (
    {"top_k": 1},
    {"top_k": 3},
    {"top_k": 900},
    {"top_p": 0.3},
    {"top_p": 0.9},
    {"min_p": 0.05},
    {"top_k": 20, "top_p": 0.7},
    {"top_k": 50, "top_p": 0.9, "min_p": 0.1},
    {"top_p": 0.9, "temperature": 0.3},
)


def rows(dtype: torch.dtype, vocab: int, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(vocab)
    return (scale * torch.randn(3, 2, vocab, generator=generator)).to(dtype)


def define(logits: Tensor, temperature: float = 1.0, **options: Any) -> Tensor:
    return reference.row_threshold(logits, temperature=torch.tensor(temperature), **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("restriction", RESTRICTIONS, ids=str)
def test_equals_its_definition(dtype: torch.dtype, restriction: dict[str, Any]) -> None:
    for vocab in (1, 2, 7, 64, 65, 2049, 4099):
        for scale in (1.0, 5.0):
            logits = rows(dtype, vocab, scale)
            found = pgest.row_threshold(logits, **restriction)
            assert torch.equal(found, define(logits, **restriction))


@pytest.mark.parametrize("vocab", [300, 5000])
@pytest.mark.parametrize("restriction", RESTRICTIONS, ids=str)
def test_zeros_of_both_signs_are_equal(vocab: int, restriction: dict[str, Any]) -> None:
    logits = -rows(torch.float32, vocab).abs()
    logits[..., ::7], logits[..., 3::7] = 0.0, -0.0
    assert (pgest.row_threshold(logits, **restriction) == define(logits, **restriction)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_nucleus_of_a_large_vocabulary(dtype: torch.dtype) -> None:
    """Masses in float64: what is kept holds top_p, and without its smallest value does not."""
    for scale in (0.01, 1.0, 4.0, 80.0):
        logits = rows(dtype, 32000, scale)
        p = logits.double().softmax(-1)
        for top_p in (0.01, 0.5, 0.95, 0.9999):
            tau = pgest.row_threshold(logits, top_p=top_p)[..., None]
            at_least = torch.where(logits.double() >= tau, p, 0.0).sum(-1)
            above = torch.where(logits.double() > tau, p, 0.0).sum(-1)
            assert (at_least >= top_p * (1 - 1e-6)).all()
            assert (above < top_p * (1 + 1e-6)).all()


def test_by_hand() -> None:
    p = torch.tensor([0.1, 0.3, 0.2, 0.3, 0.1])
    for options, kept in (
        ({"top_p": 0.5}, [1, 3]),
        ({"top_p": 0.61}, [1, 2, 3]),
        ({"top_p": 0.85}, [0, 1, 2, 3, 4]),  # ties at the edge are all kept
        ({"top_k": 1}, [1, 3]),
        ({"top_k": 3}, [1, 2, 3]),
        ({"top_k": 3, "top_p": 0.7}, [1, 3]),  # 0.6 of what top_k left is 0.75
        ({"top_k": 3, "top_p": 0.76}, [1, 2, 3]),
        ({"min_p": 0.6}, [1, 2, 3]),
        ({"min_p": 0.7}, [1, 3]),
        ({"min_p": 0.34, "temperature": 2.0}, [0, 1, 2, 3, 4]),  # (1/3) ** (1/2) = 0.58
    ):
        tau = pgest.row_threshold(p.log(), **options)
        assert (p.log() >= tau).nonzero()[:, 0].tolist() == kept, options


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_in_any_order_and_of_any_size(dtype: torch.dtype) -> None:
    """Sorted rows, ties, one far outlier, the whole range of the type, denormal distances."""
    biggest = torch.finfo(dtype).max
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(-5, 5, 3000, dtype=torch.float64)
    tiny = torch.rand(3000, generator=generator, dtype=torch.float64) * torch.finfo(dtype).tiny
    for row in (
        ramp,
        ramp.flip(0),
        torch.zeros(3000),
        ramp.round(),
        torch.where(ramp > 4.9, biggest, ramp),
        torch.where(ramp < 0, -biggest, ramp),
        ramp / 5 * biggest,
        tiny,
    ):
        logits = row.to(dtype)[None]
        for options in (
            {"top_k": 7},
            {"top_k": 2000},
            {"top_p": 0.5},
            {"top_k": 900, "top_p": 0.5},
        ):
            found = pgest.row_threshold(logits, **options)
            kept, expected = (int((logits >= t).sum()) for t in (found, define(logits, **options)))
            edge = int((logits.double() == found).sum())
            assert abs(kept - expected) <= (edge if "top_p" in options else 0), (row[:3], options)


def test_bias_and_softcap() -> None:
    logits = rows(torch.float32, 500)
    bias = torch.linspace(-2, 2, 500)
    v = reference.rows.values(logits, bias, 4.0)
    for options in ({"top_k": 9}, {"top_p": 0.4}, {"min_p": 0.2}):
        found = pgest.row_threshold(logits, bias=bias, softcap=4.0, **options)
        plain = pgest.row_threshold(v, **options)
        torch.testing.assert_close(found, plain, rtol=1e-6, atol=0)
        stats = (v >= found[..., None] - 1e-6).sum(-1)
        assert torch.equal(stats, (v >= plain[..., None] - 1e-6).sum(-1))


def test_extreme_rows() -> None:
    inf, nan = math.inf, math.nan
    logits = torch.tensor(
        [[-inf] * 4, [0, nan, 0, 0], [0, inf, 0, 0], [-inf, 1, -inf, -inf], [1, 2, 3, 4]]
    )
    for options in ({"top_k": 2}, {"top_k": 4}, {"top_p": 0.5}, {"min_p": 0.5}, {"top_k": 9}):
        tau = pgest.row_threshold(logits, **options)
        torch.testing.assert_close(tau, define(logits, **options), equal_nan=True)
        assert tau[0] == -inf
        assert tau[1:3].isnan().all()
        assert not tau[3:].isnan().any()
        assert ((logits[3] >= tau[3]) & (logits[3] > -inf)).tolist() == [False, True, False, False]


def test_nothing_restricts() -> None:
    logits = rows(torch.float32, 9)
    for options in ({}, {"top_p": 1.0}, {"top_k": 10}):
        assert (pgest.row_threshold(logits, **options) == -math.inf).all()


def test_masked_rows_are_not_read() -> None:
    logits = rows(torch.float32, 9)
    mask = torch.tensor([[True, False], [False, True], [True, True]])
    bad = torch.where(mask[..., None], logits, math.nan)
    temperature = torch.where(mask, 0.7, -1.0)
    found = pgest.row_threshold(bad, top_p=0.5, mask=mask, temperature=temperature)
    expected = torch.where(mask, pgest.row_threshold(logits, top_p=0.5, temperature=0.7), -math.inf)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("batch", [(0,), (2, 0)], ids=str)
def test_no_rows(batch: tuple[int, ...]) -> None:
    assert pgest.row_threshold(torch.zeros(*batch, 5), top_k=2).shape == batch


def test_strides_and_threads() -> None:
    logits = rows(torch.float32, 5003)
    wide = torch.full((5, 2, 5010), math.nan)
    wide[1:4, :, :5003] = logits
    options: dict[str, Any] = {"top_k": 300, "top_p": 0.8}
    expected = pgest.row_threshold(logits, **options)
    for view in (wide[1:4, :, :5003], logits.movedim(-1, 0).contiguous().movedim(0, -1)):
        assert torch.equal(pgest.row_threshold(view, **options), expected)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(pgest.row_threshold(logits, **options), expected)
    finally:
        torch.set_num_threads(before)


def test_transforms_and_compile() -> None:
    logits = rows(torch.float32, 40)
    temperature = torch.linspace(0.5, 1.5, 6).view(3, 2)

    def run(logits: Tensor, temperature: Tensor) -> Tensor:
        return pgest.row_threshold(logits, top_k=9, top_p=0.8, temperature=temperature)

    expected = run(logits, temperature)
    assert torch.equal(torch.vmap(run)(logits, temperature), expected)
    mixed = torch.vmap(run, in_dims=(1, None), out_dims=1)(logits, temperature[:, 0])
    assert torch.equal(mixed[:, 0], expected[:, 0])
    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(logits, temperature), expected)
    biases = torch.stack([torch.zeros(40), torch.linspace(-5, 5, 40), torch.linspace(3, 0, 40)])

    def by_bias(logits: Tensor, bias: Tensor) -> Tensor:
        return pgest.row_threshold(logits, top_p=0.8, bias=bias, softcap=6.0)

    for i, found in enumerate(torch.vmap(by_bias)(logits, biases)):
        assert torch.equal(found, by_bias(logits[i], biases[i]))
    for shared, bias in zip(torch.vmap(by_bias, (None, 0))(logits, biases), biases, strict=True):
        assert torch.equal(shared, by_bias(logits, bias))
    half = torch.vmap(by_bias)(logits.bfloat16(), biases)
    assert torch.equal(half[1], by_bias(logits[1].bfloat16(), biases[1]))
    assert not run(logits.requires_grad_(), temperature).requires_grad
    args = (logits.detach(), None, 0.0, temperature.double(), None, 9, 0.8, 0.0)
    torch.library.opcheck(torch.ops.pgest.row_threshold.default, args)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"top_k": 0}, ValueError, "top_k must be at least 1, got 0"),
        ({"top_k": 2.0}, TypeError, "top_k must be an integer, got float"),
        ({"top_k": True}, TypeError, "top_k must be an integer, got bool"),
        ({"top_p": 0.0}, ValueError, "top_p must be in (0, 1], got 0.0"),
        ({"top_p": 1.5}, ValueError, "top_p must be in (0, 1], got 1.5"),
        ({"top_p": math.nan}, ValueError, "top_p must be in (0, 1], got nan"),
        ({"min_p": -0.1}, ValueError, "min_p must be in (0, 1], got -0.1"),
        ({"min_p": "x"}, TypeError, "min_p must be a number, got str"),
        ({"softcap": 0.0}, ValueError, "softcap must be positive and finite, got 0.0"),
        ({"bias": torch.zeros(3)}, ValueError, "bias must have shape (9,) like the last dim"),
        ({"bias": torch.zeros(9).long()}, TypeError, "bias must be a floating-point tensor, got"),
        ({"temperature": 0.0}, ValueError, "temperature must be positive and finite, got 0.0"),
        ({"temperature": torch.tensor([1.0, -2.0])}, ValueError, "got -2.0"),
        ({"mask": torch.zeros(3)}, TypeError, "mask must be a bool tensor"),
    ],
)
def test_errors(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        pgest.row_threshold(rows(torch.float32, 9), **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_impossible_tokens_of_a_flat_row_are_never_collected(dtype: torch.dtype) -> None:
    """So hot that the bound of top_p lies below all finite numbers."""
    logits = rows(dtype, 4000)
    logits[..., ::2] = -math.inf
    for temperature in (1e30, 1e38):
        tau = pgest.row_threshold(logits, top_p=0.9, temperature=temperature)
        kept = (logits >= tau[..., None]).sum(-1)
        assert ((kept >= 1800) & (kept <= 1810)).all()
