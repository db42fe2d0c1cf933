"""Every check that every row of the op table passes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from op_row import (
    HALF,
    Inputs,
    Op,
    Outputs,
    as_leaves,
    assert_same,
    differentiable,
    gradients,
    in_float64,
    largest,
    weighted,
    with_values,
)
from op_table import library_rows, refusing_rows, rows, stats_rows, whole_rows
from torch import Tensor

import pgest

BATCHES: tuple[tuple[int, ...], ...] = ((), (1,), (5,), (2, 3), (2, 1, 3))


@library_rows
def test_the_native_kernel_runs(op: Op) -> None:
    native = pgest.backend() == "native"
    assert native or os.environ.get("PGEST_REQUIRE_KERNELS") != "1"
    for name in (op.raw, op.raw_backward):
        has = torch._C._dispatch_has_kernel_for_dispatch_key(f"pgest::{name}", "CPU")
        assert has == (native and not op.chunked)


@rows
@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("vocab", [1, 2, 7, 2048, 4099])
@pytest.mark.parametrize("samples", [None, 3])
def test_equals_its_definition(
    op: Op, batch: tuple[int, ...], vocab: int, samples: int | None
) -> None:
    for masked in (False, True):
        x = as_leaves(op.inputs(batch=batch, vocab=vocab, samples=samples, masked=masked))
        ours, theirs = op.run(x), op.define(x)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        for a, b in zip(gradients(ours, x), gradients(theirs, x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@rows
@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
@pytest.mark.parametrize("scale", [1.0, 80.0])
def test_is_closer_to_float64_than_plain_pytorch(op: Op, dtype: torch.dtype, scale: float) -> None:
    x = as_leaves(op.inputs(dtype, batch=(8, 16), vocab=3001, samples=2, scale=scale))
    exact = as_leaves(in_float64(x))
    ours, plain, truth = op.run(x), op.plain(x), op.define(exact)
    assert all(out.dtype == (dtype if op.sample else torch.float32) for out in ours)
    for a, b, c in zip(ours, plain, truth, strict=True):
        rounding = largest(c) * torch.finfo(a.dtype).eps
        assert largest(a - c) <= max(1.1 * largest(b - c), 2 * op.slack * rounding)
    triples = (gradients(ours, x), gradients(plain, x), gradients(truth, exact))
    for a, b, c in zip(*triples, strict=True):
        rounding = largest(c) * torch.finfo(a.dtype).eps
        if op.sample:  # of g - E[g], whose terms are up to 1 whatever their difference is
            rounding = max(rounding, 2 * torch.finfo(torch.float32).eps)
        assert a.dtype == b.dtype
        assert largest(a - c) <= max(1.1 * largest(b - c), op.slack * rounding)


@rows
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_first_and_second_order(op: Op, masked: bool) -> None:
    x = as_leaves(op.inputs(samples=2, vocab=4, masked=masked))

    def run(*values: Tensor) -> Outputs:
        return op.run(with_values(x, values))

    assert op.surrogate or torch.autograd.gradcheck(run, differentiable(x))
    assert not op.whole or torch.autograd.gradgradcheck(run, differentiable(x))


@refusing_rows
def test_a_second_derivative_is_refused(op: Op) -> None:
    x = as_leaves(op.inputs())
    loss = weighted(op.run(x))
    for leaf in differentiable(x):
        with pytest.raises(ValueError, match=rf"^{op.name.split()[0]} .*create_graph=True"):
            torch.autograd.grad(loss, leaf, create_graph=True)[0].sum().backward()


@whole_rows
def test_second_order_past_impossible_tokens(op: Op) -> None:
    x = op.inputs(vocab=6)
    possible = torch.ones_like(x.logits, dtype=torch.bool)
    possible[..., ::3] = False
    x = as_leaves(replace(x, tokens=torch.full_like(x.tokens, 2)))

    def run(*values: Tensor) -> Outputs:
        logits = torch.where(possible, values[0], -math.inf)
        return op.run(with_values(x, (logits, *values[1:])))

    assert op.surrogate or torch.autograd.gradcheck(run, differentiable(x))
    assert torch.autograd.gradgradcheck(run, differentiable(x))


@whole_rows
def test_second_order_where_the_upstream_gradient_is_zero(op: Op) -> None:
    x = as_leaves(op.inputs(batch=(3,), vocab=4, samples=2))

    def hessian(run: Callable[[Inputs], Outputs]) -> Tensor:
        outputs = run(x)
        loss = torch.stack([0.5 * (o - o.detach()).square().sum() for o in outputs]).sum()
        (grad,) = torch.autograd.grad(loss, x.logits, create_graph=True)
        assert (grad == 0).all()
        basis = torch.eye(grad.numel(), dtype=grad.dtype).view(-1, *grad.shape)
        pull = [torch.autograd.grad(grad, x.logits, b, retain_graph=True)[0] for b in basis]
        return torch.stack(pull)

    expected = hessian(op.define)
    assert largest(expected) > 0.01
    torch.testing.assert_close(hessian(op.run), expected)


@stats_rows
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF], ids=str)
def test_rows_tied_at_a_large_number(op: Op, dtype: torch.dtype) -> None:
    x = op.inputs(dtype, batch=(4,), vocab=10)
    x = replace(x, extras=tuple(torch.ones_like(e) for e in x.extras))
    lowest = torch.finfo(dtype).min
    rows = [lowest, -lowest, lowest / 4, 1e4]
    logits = torch.tensor(rows, dtype=dtype)[:, None].repeat(1, 10)
    x = as_leaves(replace(x, logits=logits))
    logp, entropy, _ = op.run(x)
    torch.testing.assert_close(logp, torch.full_like(logp, -math.log(10)))
    torch.testing.assert_close(entropy, torch.full_like(entropy, math.log(10)))
    (grad,) = torch.autograd.grad(logp.sum(), x.logits)
    expected = torch.full_like(grad, -0.1).scatter(-1, x.tokens[:, None], 0.9)
    torch.testing.assert_close(grad, expected)


@library_rows
def test_opcheck(op: Op) -> None:
    x = as_leaves(op.inputs(samples=2, masked=True))
    forward = getattr(torch.ops.pgest, op.raw).default
    backward = getattr(torch.ops.pgest, op.raw_backward).default
    torch.library.opcheck(forward, op.raw_args(x))
    torch.library.opcheck(backward, op.raw_backward_args(x))
    if not op.inplace:
        return
    inplace = getattr(torch.ops.pgest, op.raw_backward + "_").default
    detach = (a.detach() if isinstance(a, Tensor) else a for a in op.raw_backward_args(x))
    torch.library.opcheck(inplace, tuple(detach))


@stats_rows
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF], ids=str)
def test_extreme_rows_stay_in_their_row(op: Op, dtype: torch.dtype) -> None:
    x = op.inputs(dtype, batch=(6,), vocab=5000)
    logits = x.logits.clone()
    logits[0, ::2] = -math.inf
    logits[1] = -math.inf
    logits[2, 17] = math.nan
    logits[3, 4321] = math.inf
    logits[4, :4999] = -math.inf
    tokens = torch.tensor([0, 3, 1, 4321, 4999, 2])
    x = as_leaves(replace(x, logits=logits, tokens=tokens))
    logp, entropy, lse = op.run(x)[:3]
    assert logp[0] == -math.inf
    assert entropy[0] > 0
    assert lse[1] == -math.inf
    assert logp[[1, 2, 3]].isnan().all()
    assert entropy[[1, 2, 3]].isnan().all()
    assert lse[[2, 3]].isnan().all()
    assert logp[4] == 0
    assert entropy[4] == 0
    finite = torch.tensor([0, 4, 5])
    (grad,) = torch.autograd.grad(entropy[finite].sum() + lse[finite].sum(), x.logits)
    assert grad.isfinite().all()
    assert (grad[0, ::2] == 0).all()
    (grad,) = torch.autograd.grad(op.run(x)[0].sum(), x.logits)
    assert grad[finite].isfinite().all()
    assert grad[[1, 2, 3]].isnan().all()


@rows
@pytest.mark.parametrize("batch", [(0,), (2, 0), (0, 3)], ids=str)
def test_no_rows(op: Op, batch: tuple[int, ...]) -> None:
    x = as_leaves(op.inputs(batch=batch))
    ours, theirs = op.run(x), op.define(x)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradients(ours, x), gradients(theirs, x))


def strided(x: Tensor) -> dict[str, Tensor]:
    """The same values under layouts that callers really pass."""
    padded = torch.full((*x.shape[:-2], x.shape[-2] + 2, x.shape[-1] + 5), math.nan, dtype=x.dtype)
    padded[..., 1:-1, :-5] = x
    return {
        "inner slice": padded[..., 1:-1, :-5],
        "transposed rows": x.transpose(0, 1).contiguous().transpose(0, 1),
        "strided vocabulary": x.movedim(-1, 0).contiguous().movedim(0, -1),
        "every second row": x.repeat_interleave(2, dim=0)[::2],
    }


@rows
@pytest.mark.parametrize(
    "layout", ["inner slice", "transposed rows", "strided vocabulary", "every second row"]
)
def test_strides_reach_the_kernel(op: Op, layout: str) -> None:
    x = as_leaves(op.inputs(batch=(4, 3, 2, 3), samples=2))
    view = as_leaves(replace(x, logits=strided(x.logits.detach())[layout]))
    assert_same(op, op.run(view), op.run(x))
    torch.testing.assert_close(gradients(op.run(view), view), gradients(op.run(x), x))


@rows
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF], ids=str)
def test_the_same_bits_for_any_number_of_threads(op: Op, dtype: torch.dtype) -> None:
    x = as_leaves(op.inputs(dtype, batch=(37, 3), vocab=5003, samples=2))
    before = torch.get_num_threads()
    results: list[tuple[Any, ...]] = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs = op.run(x)
            results.append((*outputs, *gradients(outputs, x)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert_same(op, results[0], other)


@rows
def test_autocast_changes_nothing(op: Op) -> None:
    x = op.inputs(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = op.run(x)
    torch.testing.assert_close(inside, op.run(x), rtol=0, atol=0)
    assert inside[0].dtype == (torch.bfloat16 if op.sample else torch.float32)
