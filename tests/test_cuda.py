"""The op table on a GPU: parity with float64 on the CPU, and what only a GPU can get wrong.

Skipped where there is none. PGEST_TEST_DEVICE=cpu runs what needs no CUDA on the CPU instead, so
that the checks themselves are checked.
"""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from op_row import HALF, Inputs, Op, Outputs, as_leaves, gradients, in_float64, largest
from op_table import rows, whole_rows
from torch import Tensor

import pgest

DEVICE = os.environ.get("PGEST_TEST_DEVICE", "cuda")
CUDA = DEVICE.startswith("cuda")

pytestmark = pytest.mark.skipif(CUDA and not torch.cuda.is_available(), reason="needs a GPU")
needs_cuda = pytest.mark.skipif(not CUDA, reason="checks streams and graphs of CUDA")
# On both sides of every choice of a team: a lane, 8 lanes, a warp, blocks of each size.
VOCABS = (1, 2, 10, 16, 17, 128, 129, 1000, 2049, 9001, 33003)


def moved(x: Inputs, device: str = DEVICE) -> Inputs:
    """The same arguments on another device, as leaves."""

    def move(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(move(v) for v in value)
        return value.to(device) if isinstance(value, Tensor) else value

    return as_leaves(Inputs(**{f.name: move(getattr(x, f.name)) for f in fields(Inputs)}))


def run(op: Op, x: Inputs) -> Outputs:
    with torch.device(x.logits.device):
        return op.run(x)


def differences(op: Op, x: Inputs) -> tuple[Tensor, ...]:
    outputs = run(op, x)
    with torch.device(x.logits.device):
        return (*outputs, *gradients(outputs, x))


@whole_rows
def test_the_kernel_is_ours(op: Op) -> None:
    for name in (op.raw, op.raw_backward):
        key = "CUDA" if CUDA else "CPU"
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"pgest::{name}", key)


@rows
@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF], ids=str)
def test_equals_float64_on_the_cpu(op: Op, vocab: int, dtype: torch.dtype) -> None:
    for masked in (False, True):
        x = op.inputs(dtype, batch=(5, 3), vocab=vocab, samples=2, masked=masked)
        exact = as_leaves(in_float64(x))
        x = as_leaves(x)
        plain = op.plain(x)
        truth = op.define(exact)
        found = differences(op, moved(x))
        theirs = (*plain, *gradients(plain, x))
        for i, (a, b, c) in enumerate(
            zip(found, theirs, (*truth, *gradients(truth, exact)), strict=True)
        ):
            # The linear ops' logits are rounded to the storage type on CUDA.
            statistic = i < len(plain) and not op.sample and not op.chunked
            eps = torch.finfo(torch.float32 if statistic and dtype in HALF else dtype).eps
            rounding = max(largest(c), 1.0) * eps  # of terms up to 1, even where they cancel
            roundings = 100 if dtype == torch.float64 else 4 * op.slack
            assert largest(a.cpu() - c) <= max(1.1 * largest(b - c), roundings * rounding)


@rows
def test_gradients(op: Op) -> None:
    x = moved(op.inputs(samples=2, vocab=4))

    def of(*values: Tensor) -> Outputs:
        return run(op, replace(x, logits=values[0], extras=tuple(values[1:])))

    values = (x.logits, *x.extras)
    assert op.surrogate or torch.autograd.gradcheck(of, values)
    assert not op.whole or torch.autograd.gradgradcheck(of, values)  # else refused


@rows
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_row_has_the_same_bits_in_every_batch_and_run(op: Op, dtype: torch.dtype) -> None:
    x = op.inputs(dtype, batch=(300, 3), vocab=5003, samples=2)
    first, again = differences(op, moved(x)), differences(op, moved(x))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@rows
def test_strides_reach_the_kernel(op: Op) -> None:
    x = op.inputs(torch.bfloat16, batch=(4, 3, 2, 3), vocab=1003, samples=2)
    moved_x = moved(x)
    z = moved_x.logits.detach()
    padded = z.new_full((*z.shape[:-2], z.shape[-2] + 2, z.shape[-1] + 5), torch.nan)
    padded[..., 1:-1, :-5] = z
    view = as_leaves(replace(moved_x, logits=padded[..., 1:-1, :-5]))
    for a, b in zip(differences(op, view), differences(op, moved_x), strict=True):
        # Products of the linear ops are another kernel's for other strides.
        assert torch.equal(a, b) if not op.chunked else torch.allclose(a, b, rtol=0.05, atol=0.05)


@rows
def test_compiles(op: Op) -> None:
    x = moved(op.inputs(torch.float32, vocab=50, samples=2))
    torch._dynamo.reset()

    def of(logits: Tensor) -> Outputs:
        return op.run(replace(x, logits=logits))

    compiled = torch.compile(of, fullgraph=True, backend="aot_eager")
    torch.set_default_device(DEVICE)
    try:
        for a, b in zip(compiled(x.logits), of(x.logits), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    finally:
        torch.set_default_device(None)


@needs_cuda
@rows
def test_is_captured_in_a_graph(op: Op) -> None:
    x = moved(op.inputs(torch.float32, batch=(6, 2), vocab=5003, samples=2))

    def call() -> tuple[Tensor, ...]:
        return differences(op, x)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call()
    with torch.no_grad():
        x.logits.mul_(0.5)
    graph.replay()
    for a, b in zip(captured, call(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@needs_cuda
@rows
def test_runs_on_the_current_stream(op: Op) -> None:
    x = moved(op.inputs(torch.float32, batch=(6, 2), vocab=5003, samples=2))
    expected = differences(op, x)
    side = torch.cuda.Stream()
    logits = torch.zeros_like(x.logits)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # a kernel on another stream would read the zeros
        logits.copy_(x.logits.detach())
        late = differences(op, as_leaves(replace(x, logits=logits)))
    side.synchronize()
    for a, b in zip(late, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF], ids=str)
def test_gradients_in_the_forward_have_the_bits_of_those_after_it(
    vocab: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    z, q = (torch.randn(40, vocab, generator=generator).to(DEVICE, dtype) for _ in range(2))
    tokens = torch.randint(vocab, (2, 40), generator=generator).to(DEVICE)
    weights: dict[str, float | Tensor] = {"logp": torch.randn(2, 40, device=DEVICE)}
    weights |= {"entropy": -0.5, "lse": 0.25, "kl": 0.75}
    for names in (("logp", "entropy", "lse"), ("logp", "entropy", "lse", "kl")):
        options: dict[str, Any] = {"reference_logits": q} if "kl" in names else {}
        leaf, temperature = z.clone().requires_grad_(), z.new_full((40,), 0.8).requires_grad_()
        given = {name: weights[name] for name in names}
        ours = pgest.token_stats_sum(leaf, tokens, given, temperature=temperature, **options)
        stats = pgest.token_stats(leaf, tokens, outputs=names, temperature=temperature, **options)
        theirs = torch.stack([(weights[n] * getattr(stats, n)).sum() for n in names]).sum()
        for a, b in zip(
            torch.autograd.grad(ours, (leaf, temperature)),
            torch.autograd.grad(theirs, (leaf, temperature)),
            strict=True,
        ):
            assert torch.equal(a, b)


@needs_cuda
def test_more_elements_than_an_int_counts() -> None:
    vocab = 65_536
    z = torch.empty(32_768 + 64, vocab, dtype=torch.bfloat16, device=DEVICE)
    for rows_of in z.split(4096):
        rows_of.normal_()
    tokens = torch.randint(vocab, z.shape[:1], device=DEVICE)

    def scored(z: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        z = z.detach().requires_grad_()
        logp, entropy, _ = pgest.token_stats(z, tokens, outputs=("logp", "entropy"))[:3]
        assert logp is not None
        assert entropy is not None
        return logp, torch.autograd.grad((logp + entropy).sum(), z)[0]

    for all_rows, last in zip(scored(z, tokens), scored(z[-64:], tokens[-64:]), strict=True):
        assert torch.equal(all_rows[-64:], last)
    drawn = pgest.sample(z, 2).tokens
    assert ((drawn >= 0) & (drawn < vocab)).all()
    soft = pgest.gumbel_softmax(z)
    assert (soft[-64:].float().sum(-1) - 1).abs().max() < 0.02


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
def test_linear_objective_is_that_of_the_cpu(dtype: torch.dtype) -> None:
    """Under a loss scale that a half type does not hold."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 64, generator=generator) for n in (300, 1000))
    tokens = torch.randint(1000, (300,), generator=generator)
    advantages = torch.randn(300, generator=generator)

    def loss(device: str) -> list[Tensor]:
        h, w = (x.to(device, dtype).requires_grad_() for x in (hidden / 8, weight / 8))
        total = pgest.linear_objective(
            h, w, tokens.to(device), pgest.objectives.reinforce, advantages.to(device)
        )
        assert total.dtype == torch.float32
        grads = torch.autograd.grad(total, (h, w), total.new_tensor(2.0**17))
        return [total, *(g.float() / 2.0**17 for g in grads)]

    for a, b in zip(loss(DEVICE), loss("cpu"), strict=True):
        error = 20 * torch.finfo(dtype).eps * max(1.0, largest(b))
        assert largest(a.cpu() - b) <= error
