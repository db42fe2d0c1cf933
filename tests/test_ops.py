"""Every check that every row of the op table passes."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from op_table import TABLE, Inputs, Op, Outputs
from torch import Tensor

import pgest

HALF = (torch.bfloat16, torch.float16)
BATCHES: tuple[tuple[int, ...], ...] = ((), (1,), (5,), (2, 3), (2, 1, 3))

rows = pytest.mark.parametrize("op", TABLE, ids=[op.name for op in TABLE])


def differentiable(x: Inputs) -> tuple[Tensor, ...]:
    return x.logits, *x.extras


def with_values(x: Inputs, values: tuple[Tensor, ...]) -> Inputs:
    return replace(x, logits=values[0], extras=tuple(values[1:]))


def as_leaves(x: Inputs) -> Inputs:
    return with_values(x, tuple(t.detach().requires_grad_() for t in differentiable(x)))


def weighted(outputs: Outputs) -> Tensor:
    """A scalar that gives every entry of every output its own upstream gradient."""
    total = outputs[0].new_zeros(())
    for i, out in enumerate(outputs):
        weight = torch.linspace(-1 + 0.1 * i, 1, out.numel(), dtype=out.dtype).view(out.shape)
        total = total + (weight * out).sum()
    return total


def gradients(outputs: Outputs, x: Inputs) -> tuple[Tensor, ...]:
    return torch.autograd.grad(weighted(outputs), differentiable(x))


def in_float64(x: Inputs) -> Inputs:
    return with_values(x, tuple(t.double() for t in differentiable(x)))


def largest(x: Tensor) -> float:
    return float(x.detach().double().abs().max())


@rows
def test_the_native_kernel_runs(op: Op) -> None:
    native = pgest.backend() == "native"
    assert native or os.environ.get("PGEST_REQUIRE_KERNELS") != "1"
    for name in (op.raw, op.raw_backward):
        has = torch._C._dispatch_has_kernel_for_dispatch_key(f"pgest::{name}", "CPU")
        assert has == native


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
    assert all(out.dtype == torch.float32 for out in ours)
    for a, b, c in zip(ours, plain, truth, strict=True):
        rounding = largest(c) * torch.finfo(torch.float32).eps
        assert largest(a - c) <= max(1.1 * largest(b - c), 2 * rounding)
    triples = (gradients(ours, x), gradients(plain, x), gradients(truth, exact))
    for a, b, c in zip(*triples, strict=True):
        rounding = largest(c) * torch.finfo(a.dtype).eps
        assert a.dtype == b.dtype
        assert largest(a - c) <= max(1.1 * largest(b - c), rounding)


@rows
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_first_and_second_order(op: Op, masked: bool) -> None:
    x = as_leaves(op.inputs(samples=2, vocab=4, masked=masked))

    def run(*values: Tensor) -> Outputs:
        return op.run(with_values(x, values))

    assert torch.autograd.gradcheck(run, differentiable(x))
    assert torch.autograd.gradgradcheck(run, differentiable(x))


@rows
def test_second_order_past_impossible_tokens(op: Op) -> None:
    x = op.inputs(vocab=6)
    possible = torch.ones_like(x.logits, dtype=torch.bool)
    possible[..., ::3] = False
    x = as_leaves(replace(x, tokens=torch.full_like(x.tokens, 2)))

    def run(*values: Tensor) -> Outputs:
        logits = torch.where(possible, values[0], -math.inf)
        return op.run(with_values(x, (logits, *values[1:])))

    assert torch.autograd.gradcheck(run, differentiable(x))
    assert torch.autograd.gradgradcheck(run, differentiable(x))


@rows
def test_opcheck(op: Op) -> None:
    x = as_leaves(op.inputs(samples=2, masked=True))
    forward = getattr(torch.ops.pgest, op.raw).default
    backward = getattr(torch.ops.pgest, op.raw_backward).default
    torch.library.opcheck(forward, op.raw_args(x))
    torch.library.opcheck(backward, op.raw_backward_args(x))
    inplace = getattr(torch.ops.pgest, op.raw_backward + "_").default
    detach = (a.detach() if isinstance(a, Tensor) else a for a in op.raw_backward_args(x))
    torch.library.opcheck(inplace, tuple(detach))


@rows
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiles_to_one_graph(op: Op, dtype: torch.dtype) -> None:
    torch._dynamo.reset()

    def loss(logits: Tensor, tokens: Tensor, *extras: Tensor) -> Tensor:
        return weighted(op.run(Inputs(logits * 1.5, tokens, extras)))

    compiled = torch.compile(loss, fullgraph=True, backend=op.compile_backend)
    for batch in ((2, 3), (4, 3), (5, 6)):  # the second call makes shapes dynamic
        x = as_leaves(op.inputs(dtype, batch=batch))
        values = differentiable(x)
        ours = torch.autograd.grad(compiled(x.logits, x.tokens, *x.extras), values)
        eager = torch.autograd.grad(loss(x.logits, x.tokens, *x.extras), values)
        torch.testing.assert_close(ours, eager)
    frames = torch._dynamo.utils.counters["frames"]
    assert frames["total"] == frames["ok"] <= 2, "recompiled for every shape"


@rows
def test_vmap_over_any_argument(op: Op) -> None:
    x = op.inputs(batch=(4, 3), samples=2)
    values = differentiable(x)

    def run(logits: Tensor, tokens: Tensor, *extras: Tensor) -> Outputs:
        return op.run(Inputs(logits, tokens, extras))

    every = torch.vmap(run, in_dims=(0, 1, *(0 for _ in x.extras)))(x.logits, x.tokens, *x.extras)
    one_by_one = [run(x.logits[i], x.tokens[:, i], *(e[i] for e in x.extras)) for i in range(4)]
    for i, out in enumerate(every):
        torch.testing.assert_close(out, torch.stack([o[i] for o in one_by_one]))
    tokens = torch.stack([x.tokens, 6 - x.tokens])
    shared = torch.vmap(run, in_dims=(None, 0, *(None for _ in x.extras)))(
        x.logits, tokens, *x.extras
    )
    for i, out in enumerate(shared):
        torch.testing.assert_close(
            out, torch.stack([run(values[0], t, *x.extras)[i] for t in tokens])
        )


@rows
def test_torch_func_agrees_with_autograd(op: Op) -> None:
    x = as_leaves(op.inputs(batch=(3,), vocab=4))

    def loss(logits: Tensor, tokens: Tensor, *extras: Tensor) -> Tensor:
        return weighted(op.run(Inputs(logits, tokens, extras)))

    plain = tuple(t.detach() for t in differentiable(x))
    grads = torch.func.grad(loss, argnums=0)(plain[0], x.tokens, *plain[1:])
    torch.testing.assert_close(grads, gradients(op.run(x), x)[0])
    per_row = torch.vmap(torch.func.grad(loss))(plain[0], x.tokens, *plain[1:])
    assert per_row.shape == plain[0].shape

    def define(logits: Tensor) -> Tensor:
        return weighted(op.define(Inputs(logits, x.tokens, plain[1:])))

    hessian = torch.func.jacrev(torch.func.jacrev(loss))(plain[0], x.tokens, *plain[1:])
    torch.testing.assert_close(hessian, torch.func.jacrev(torch.func.jacrev(define))(plain[0]))


@rows
def test_forward_mode_is_refused(op: Op) -> None:
    x = op.inputs()

    def run(logits: Tensor) -> Outputs:
        return op.run(replace(x, logits=logits))

    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(run, (x.logits,), (x.logits,))


@rows
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
    outputs = op.run(x)
    assert outputs[0].shape == torch.Size(batch)
    assert gradients(outputs, x)[0].shape == x.logits.shape


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
    torch.testing.assert_close(op.run(view), op.run(x), rtol=0, atol=0)
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
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@rows
def test_autocast_changes_nothing(op: Op) -> None:
    x = op.inputs(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = op.run(x)
    torch.testing.assert_close(inside, op.run(x), rtol=0, atol=0)
    assert inside[0].dtype == torch.float32
