"""bit_stats and sample_bits: values at the edges, frequencies, pairs, and what they refuse."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from op_row import HALF
from test_noise_words import seed_of, seeded
from torch import Tensor

import pgest
from pgest import reference
from pgest.ops.bits import kernel
from pgest.reference.noise import words

DTYPES = (torch.float64, torch.float32, *HALF)
INF = math.inf


def test_logp_sums_to_one_and_entropy_is_its_mean() -> None:
    logits = torch.randn(3, 5, generator=seeded(0), dtype=torch.float64)
    support = torch.tensor(list(itertools.product((False, True), repeat=5)))
    bits = support[:, None].expand(-1, 3, -1)
    logp, entropy = pgest.bit_stats(logits, bits)
    assert logp is not None
    torch.testing.assert_close(logp.exp().sum(0), torch.ones(3).double())
    torch.testing.assert_close(-(logp.exp() * logp).sum(0), entropy)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_extreme_logits(dtype: torch.dtype) -> None:
    large = torch.finfo(dtype).max
    logits = torch.tensor([INF, -INF, large, -large, 0.0], dtype=dtype, requires_grad=True)
    likely = torch.tensor([1, 0, 1, 0, 1], dtype=torch.uint8)
    stats = pgest.bit_stats(logits, torch.stack([likely, 1 - likely]), event_dims=0)
    logp, entropy = stats.logp, stats.entropy
    assert logp is not None
    assert entropy is not None
    assert (logp[0, :4] == 0).all()
    assert (logp[1, :2] == -INF).all()
    assert (logp[1, 2:4] == -large).all()
    assert (entropy[:4] == 0).all()
    half = torch.tensor(math.log(2), dtype=logp.dtype)
    torch.testing.assert_close(torch.stack([-logp[0, 4], -logp[1, 4], entropy[4]]), half.expand(3))
    (grad,) = torch.autograd.grad(logp[0].sum() + entropy.sum(), logits, retain_graph=True)
    assert torch.equal(grad, torch.tensor([0, 0, 0, 0, 0.5], dtype=dtype))
    (grad,) = torch.autograd.grad(logp[1].sum(), logits)
    assert torch.equal(grad, torch.tensor([-1, 1, -1, 1, -0.5], dtype=dtype))


def test_likely_bits_keep_their_digits() -> None:
    """log p of a bit with p = 1 - 1e-9 is -1e-9, not 0; its gradient too."""
    logits = torch.tensor([20.7, -30.0], requires_grad=True)
    logp = pgest.bit_stats(logits, torch.tensor([1.0, 0.0]), event_dims=0).logp
    assert logp is not None
    (grad,) = torch.autograd.grad(logp.sum(), logits)
    exact = torch.tensor([20.7, 30.0]).double().neg().exp().log1p()
    torch.testing.assert_close(logp.double(), -exact, rtol=3e-6, atol=0)
    torch.testing.assert_close(grad.double(), exact * torch.tensor([1, -1]), rtol=3e-6, atol=0)


def test_bad_rows_stay_alone_and_silent_rows_are_not_read() -> None:
    logits = torch.randn(3, 4500, generator=seeded(0))
    logits[1, 4400] = math.nan
    logits.requires_grad_()
    bits = torch.rand(2, 3, 4500, generator=seeded(1)) < 0.5
    logp, entropy = pgest.bit_stats(logits, bits)
    assert logp is not None
    assert entropy is not None
    assert logp[:, 1].isnan().all()
    assert entropy[1].isnan()
    assert logp[:, [0, 2]].isfinite().all()
    keep = torch.tensor([True, False, True])
    loss = torch.where(keep, logp + entropy, 0.0).sum()
    (grad,) = torch.autograd.grad(loss, logits)
    assert grad.isfinite().all()
    assert (grad[1] == 0).all()
    alone = pgest.bit_stats(logits, bits, event_dims=0).logp
    assert alone is not None
    assert alone.isnan().sum() == 2


def test_event_dimensions() -> None:
    logits = torch.randn(2, 3, 4, generator=seeded(0), dtype=torch.float64)
    bits = torch.rand(5, 2, 3, 4, generator=seeded(1)) < 0.5
    each, _ = pgest.bit_stats(logits, bits, event_dims=0)
    assert each is not None
    for n in (1, 2, 3):
        axes = tuple(range(-n, 0))
        found, entropy = pgest.bit_stats(logits, bits, event_dims=n)
        assert entropy is not None
        torch.testing.assert_close(found, each.sum(axes))
        assert entropy.shape == logits.shape[: 3 - n]
    one = pgest.bit_stats(torch.tensor(0.5), torch.tensor(True), event_dims=0)
    torch.testing.assert_close(one.logp, torch.tensor(0.5).sigmoid().log())
    for shape in ((0, 3), (3, 0)):
        empty = pgest.bit_stats(torch.zeros(shape), torch.zeros(2, *shape))
        assert torch.equal(empty.logp, torch.zeros(2, shape[0]))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, None])
@pytest.mark.parametrize("antithetic", [False, True])
def test_draws_are_those_of_the_definition(
    dtype: torch.dtype, kind: torch.dtype | None, antithetic: bool
) -> None:
    logits = (3 * torch.randn(7, 201, generator=seeded(0))).to(dtype)
    logits[0, :4] = torch.tensor([INF, -INF, 0.0, 20.0])
    options: dict[str, Any] = {"antithetic": antithetic, "dtype": kind}
    found = pgest.sample_bits(logits, 6, generator=seeded(1), **options)
    assert found.dtype == (kind or dtype)
    expected = reference.sample_bits(logits, 6, antithetic, seed_of(seeded(1)), None)
    assert torch.equal(found.bool(), expected)
    noise = torch.rand(3 if antithetic else 6, 7, 201, generator=seeded(2))
    found = pgest.sample_bits(logits, 6, noise=noise, **options)
    expected = reference.sample_bits(logits, 6, antithetic, None, noise.to(expected_of(dtype)))
    assert torch.equal(found.bool(), expected)
    assert (found[:, 0, 0] == 1).all()
    assert (found[:, 0, 1] == 0).all()


def expected_of(dtype: torch.dtype) -> torch.dtype:
    return reference.statistics_dtype(torch.empty(0, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_frequencies(dtype: torch.dtype) -> None:
    """Of 100,000 draws of each; a probability of 0.5 off by 2 % would be seen."""
    logits = torch.linspace(-4, 4, 100).to(dtype)
    n = 1000
    bits = pgest.sample_bits(logits.expand(100, 100), n, dtype=torch.bool, generator=seeded(0))
    p = logits.double().sigmoid()
    mean = bits.flatten(0, 1).double().mean(0)
    z = (mean - p) / (p * (1 - p) / (100 * n)).sqrt()
    assert z.abs().max() < 4.5
    assert abs(z.square().mean() - 1) < 0.7


def test_antithetic_pairs() -> None:
    """Each half is distributed as it should be, and the pair as u and 1 - u: P(1, 1) = 2p - 1."""
    logits = torch.tensor([-2.0, 0.0, 0.5, 2.0]).expand(50_000, 4)
    first, second = pgest.sample_bits(logits, 2, antithetic=True, generator=seeded(0))
    p = logits[0].double().sigmoid()
    for half in (first, second):
        z = (half.double().mean(0) - p) / (p * (1 - p) / 50_000).sqrt()
        assert z.abs().max() < 4.5
    both = (first * second).double().mean(0)
    expected = (2 * p - 1).clamp_min(0)
    assert ((both - expected).abs() < 4.5 * 0.5 / math.sqrt(50_000)).all()
    assert ((first + second)[:, 1] == 1).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_uniforms_are_fine_at_both_ends(dtype: torch.dtype) -> None:
    """The smallest of 500,000 uniforms, and the largest, decide as finely as elsewhere."""
    places = torch.arange(1)[:, None], torch.arange(1 << 19)
    high, low = words(seed_of(seeded(0)), *places)
    whole = ((high << 24) | low)[0]
    first, last = int(whole.argmin()), int(whole.argmax())
    ends = torch.stack([whole[first], 2**56 - 1 - whole[last]]).double() * 2.0**-56
    assert (ends < 2.0**-16).all()
    for factor in (0.99, 1.01):
        logits = torch.zeros(1 << 19, dtype=dtype)
        logits[first], logits[last] = (ends * factor).logit().to(dtype) * torch.tensor([1, -1])
        (bits,) = pgest.sample_bits(logits, dtype=torch.bool, generator=seeded(0))
        assert bits[[first, last]].tolist() == [factor > 1, factor < 1]


def test_draws_do_not_depend_on_layout_or_threads() -> None:
    logits = torch.randn(60, 501, generator=seeded(0))
    expected = pgest.sample_bits(logits, 3, generator=seeded(1))
    assert torch.equal(pgest.sample_bits(logits.T.contiguous().T, 3, generator=seeded(1)), expected)
    assert torch.equal(pgest.sample_bits(logits, 5, generator=seeded(1))[:3], expected)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(pgest.sample_bits(logits, 3, generator=seeded(1)), expected)
    finally:
        torch.set_num_threads(threads)


def test_draws_under_vmap_and_compile() -> None:
    logits = torch.randn(4, 6, generator=seeded(0))
    noise = torch.rand(4, 3, 6, generator=seeded(1))

    def run(z: Tensor, u: Tensor) -> Tensor:
        return pgest.sample_bits(z, 3, noise=u)

    found = torch.vmap(run)(logits, noise)
    one_by_one = torch.stack([run(z, u) for z, u in zip(logits, noise, strict=True)])
    assert torch.equal(found, one_by_one)
    same = torch.vmap(lambda z: pgest.sample_bits(z, 3), randomness="same")(torch.zeros(4, 50))
    assert torch.equal(same[0], same[1])
    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(logits[0], noise[0]), one_by_one[0])


Z = torch.zeros(2, 5)
STATS: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
    ({"logits": [0.0]}, TypeError, "^logits must be a tensor"),
    ({"logits": Z.long()}, TypeError, "^logits must be float32"),
    ({"bits": None}, ValueError, '^bits must be a tensor when outputs ask for "logp"'),
    ({"bits": Z.long()}, TypeError, "^bits must be bool, uint8 or torch.float32 like logits"),
    ({"bits": torch.zeros(5)}, ValueError, r"^bits must have shape \(2, 5\) like logits"),
    ({"bits": torch.zeros(3, 2, 4)}, ValueError, r"^bits must have shape \(2, 5\) like logits"),
    ({"bits": Z + 2}, ValueError, "^bits must be from 0 to 1, got others"),
    ({"bits": Z - 0.5}, ValueError, "^bits must be from 0 to 1, got others"),
    ({"bits": Z + math.nan}, ValueError, "^bits must be from 0 to 1, got others"),
    ({"bits": Z.to(torch.uint8) + 2}, ValueError, "^bits must be from 0 to 1, got others"),
    ({"bits": Z.clone().requires_grad_()}, ValueError, "^bits must not require a gradient"),
    ({"event_dims": 3}, ValueError, "^event_dims must be between 0 and 2"),
    ({"event_dims": 1.0}, TypeError, "^event_dims must be an integer"),
    ({"outputs": ("lse",)}, ValueError, "^outputs must be names from"),
)


@pytest.mark.parametrize(("options", "kind", "message"), STATS)
def test_bad_arguments_of_bit_stats(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    arguments: dict[str, Any] = {"logits": Z, "bits": Z, **options}
    with pytest.raises(kind, match=message):
        pgest.bit_stats(arguments.pop("logits"), arguments.pop("bits"), **arguments)


DRAWS: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
    ({"logits": Z.long()}, TypeError, "^logits must be float32"),
    ({"logits": Z + math.nan}, ValueError, "^logits must not be NaN"),
    ({"num_samples": 0}, ValueError, "^num_samples must be at least 1, got 0"),
    ({"num_samples": 2.0}, TypeError, "^num_samples must be an integer, got float"),
    ({"antithetic": True, "num_samples": 3}, ValueError, "^num_samples must be even for"),
    ({"antithetic": 1}, TypeError, "^antithetic must be a bool, got int"),
    ({"dtype": torch.int64}, TypeError, "^dtype must be bool, uint8 or torch.float32 like logits"),
    ({"noise": torch.zeros(2, 5)}, ValueError, r"^noise must have shape \(1, 2, 5\)"),
    ({"noise": torch.ones(1, 2, 5)}, ValueError, r"^noise must be uniforms in \[0, 1\), got"),
    ({"noise": torch.zeros(1, 2, 5).long()}, TypeError, "^noise must be a floating-point"),
)


@pytest.mark.parametrize(("options", "kind", "message"), DRAWS)
def test_bad_arguments_of_sample_bits(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    arguments: dict[str, Any] = {"logits": Z, **options}
    with pytest.raises(kind, match=message):
        pgest.sample_bits(arguments.pop("logits"), **arguments)


@pytest.mark.parametrize("compiled", [True, False])
def test_lone_bits_without_a_gradient_are_not_read(compiled: bool) -> None:
    logits = torch.tensor([math.nan, 0.5])
    bits = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    weights, entropy = torch.tensor([[0.0, 1.0], [0.0, 2.0]]), torch.tensor([0.0, 1.0])
    run = torch.ops.pgest.bit_stats_backward if compiled else kernel._bit_stats_backward
    for w, h in ((weights, entropy), (weights, None), (None, entropy), (weights, 0 * entropy)):
        grad = run(logits, bits, w, h, False)
        assert grad[0] == 0
        assert grad[1] != 0
        assert grad[1].isfinite()


def test_no_samples() -> None:
    for event_dims, shape in ((0, (0, 3, 4)), (1, (0, 3)), (2, (0,))):
        logits = torch.randn(3, 4, requires_grad=True)
        stats = pgest.bit_stats(logits, torch.zeros(0, 3, 4), event_dims=event_dims)
        assert stats.logp is not None
        assert stats.logp.shape == shape
        (grad,) = torch.autograd.grad(stats.logp.sum(), logits)
        assert torch.equal(grad, torch.zeros(3, 4))


def test_raw_ops_refuse_what_they_cannot_read() -> None:
    ops, z = torch.ops.pgest, torch.zeros(4, 5)
    seed, grad, noise = torch.tensor([1]), torch.zeros(3, 4, 5), torch.rand(2, 4).double()
    with pytest.raises(RuntimeError, match="pgest: sample_bits needs a seed or noise"):
        ops.sample_bits(z, 2, False, None, None, torch.bool)
    with pytest.raises(RuntimeError, match="pgest: num_samples must be even"):
        ops.sample_bits(z, 3, True, seed, None, torch.bool)
    with pytest.raises(RuntimeError, match="pgest: grad_logp needs bits"):
        ops.bit_stats_backward(z, None, grad, None, False)
    with pytest.raises(RuntimeError, match="pgest: gumbel_softmax needs a seed or noise"):
        ops.gumbel_softmax(z, None, None, None, False)
    with pytest.raises(RuntimeError, match=r"pgest: jacobian must be .* got other"):
        ops.straight_through(z, torch.zeros(4, dtype=torch.long), None, "other")
    with pytest.raises(RuntimeError, match=r"pgest: jacobian must be .* got other"):
        ops.straight_through_backward(z, torch.zeros(4, dtype=torch.long), None, z, "other")
    with pytest.raises(RuntimeError, match="pgest: method must be from 0 to 3, got 7"):
        ops.sample(z, None, 0.0, None, None, None, noise, 7, 2, False)
