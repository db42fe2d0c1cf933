"""linear_objective: the loss and the gradients of its definition, for three products."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from linear_inputs import STATS, Example, example, hidden_and_weight, products
from op_row import HALF, largest
from torch import Tensor

import pgest
from pgest import TokenStats, reference


def some_loss(stats: TokenStats, weight: Tensor, old: Tensor) -> Tensor:
    """A clipped ratio, an entropy bonus and a z-loss: something of everything."""
    assert stats.logp is not None
    assert stats.entropy is not None
    assert stats.lse is not None
    ratio = (stats.logp - old).exp()
    gain = torch.minimum(ratio * weight, ratio.clamp(0.8, 1.2) * weight)
    return -gain - 0.1 * stats.entropy + 0.01 * stats.lse**2


def rows_for(x: Example) -> tuple[Tensor, Tensor]:
    """A weight for each token, and one old log-probability for each row, both with gradients."""
    g = torch.Generator().manual_seed(1)
    weight = torch.randn(x.tokens.shape, generator=g, dtype=torch.float64)
    old = -torch.rand(x.hidden.shape[:-1], generator=g, dtype=torch.float64) - 1
    dtype = torch.float64 if x.hidden.dtype == torch.float64 else torch.float32
    return weight.to(dtype).requires_grad_(), old.to(dtype).requires_grad_()


def run(x: Example, *rows: Tensor, objective: Callable[..., Tensor] = some_loss, **o: Any) -> Any:
    options = {"bias": x.bias, "temperature": x.temperature, "mask": x.mask, "outputs": STATS, **o}
    return pgest.linear_objective(x.hidden, x.weight, x.tokens, objective, *rows, **options)


def define(x: Example, *rows: Tensor, objective: Callable[..., Tensor] = some_loss) -> Tensor:
    expanded = [r.expand(x.tokens.shape) for r in rows]
    return reference.linear_objective(
        TokenStats(*x.define()), objective, *expanded, mask=x.mask, normalizer=3.0
    )


@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("chunk_rows", [None, 1, 4])
def test_equals_its_definition(
    batch: tuple[int, ...], samples: int | None, chunk_rows: int | None
) -> None:
    for masked in (False, True):
        x = example(batch, samples=samples, masked=masked)
        rows = rows_for(x)
        leaves = (*x.leaves(), *rows)
        ours = run(x, *rows, normalizer=3.0, chunk_rows=chunk_rows, check=True)
        theirs = define(x, *rows)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        expected = torch.autograd.grad(theirs, leaves)
        for a, b in zip(torch.autograd.grad(ours, leaves), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_the_chunks_size_changes_nothing() -> None:
    x = example((37,), samples=2, dtype=torch.float32)
    rows = rows_for(x)
    leaves = (*x.leaves(), *rows)
    found = []
    for chunk_rows in (1, 8, 36, None):
        loss = run(x, *rows, chunk_rows=chunk_rows)
        found.append((loss, *torch.autograd.grad(loss, leaves)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
def test_is_close_to_float64(dtype: torch.dtype) -> None:
    x = hidden_and_weight(example((64,), width=96, vocab=3001, dtype=dtype))
    exact = x.to(torch.float64)
    rows = rows_for(x)
    loss = run(x, *rows, chunk_rows=24, normalizer=3.0)
    assert loss.dtype == torch.float32
    truth = define(exact, *(r.double() for r in rows))
    assert largest(loss - truth) <= 1e-6 * largest(truth)
    ours = torch.autograd.grad(loss, (x.hidden, x.weight))
    for a, b in zip(ours, torch.autograd.grad(truth, (exact.hidden, exact.weight)), strict=True):
        assert a.dtype == dtype
        assert largest(a - b) <= max(torch.finfo(dtype).eps, 4e-6) * largest(b)


def test_the_upstream_gradient_scales_and_a_kept_graph_runs_again() -> None:
    x = example()
    rows = rows_for(x)
    leaves = (*x.leaves(), *rows)
    loss = run(x, *rows)
    once = torch.autograd.grad(loss, leaves, retain_graph=True)
    for grad in once:
        grad.zero_()  # what was returned belongs to the caller
    once = torch.autograd.grad(loss, leaves, retain_graph=True)
    thrice = torch.autograd.grad(3 * loss, leaves, retain_graph=True)
    last = torch.autograd.grad(loss, leaves)
    for a, b, c in zip(once, thrice, last, strict=True):
        assert largest(a) > 0
        torch.testing.assert_close(3 * a, b)
        assert torch.equal(a, c)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_a_parameter_takes_the_gradient_without_a_copy() -> None:
    x = example()
    run(x, *rows_for(x)).backward()
    first = x.weight.grad
    assert first is not None
    pointer, before = first.data_ptr(), first.clone()
    run(x, *rows_for(x)).backward()  # accumulates like any other
    assert x.weight.grad is first
    assert first.data_ptr() == pointer
    torch.testing.assert_close(first, 2 * before)


@pytest.mark.parametrize(
    ("needs", "expected"),
    [((), 1), (("hidden",), 2), (("weight",), 2), (("hidden", "weight"), 3), (("rows",), 1)],
    ids=str,
)
def test_three_products_and_only_those_needed(needs: tuple[str, ...], expected: int) -> None:
    x = example((12,))
    rows = [r.detach().requires_grad_("rows" in needs) for r in rows_for(x)]
    for name in ("hidden", "weight", "bias", "temperature"):
        getattr(x, name).requires_grad_(name in needs)

    def both() -> None:
        loss = run(x, *rows, chunk_rows=5)
        assert loss.requires_grad == bool(needs)
        if needs:
            loss.backward()

    assert products(both, 12 * 5 * 7) == expected
    assert all((r.grad is not None) == ("rows" in needs) for r in rows)
    for name in ("hidden", "weight", "bias", "temperature"):
        assert (getattr(x, name).grad is not None) == (name in needs)


def test_no_grad_makes_no_gradient() -> None:
    x = example()
    rows = rows_for(x)
    expected = run(x, *rows)
    with torch.no_grad():
        assert products(lambda: run(x, *rows), 6 * 5 * 7) == 1
        loss = run(x, *rows)
    assert not loss.requires_grad
    assert torch.equal(loss, expected)


def test_masked_rows_are_not_read() -> None:
    x = example((10,), vocab=6)
    mask = torch.arange(10) % 5 < 2
    hidden = torch.where(mask[:, None], x.hidden.detach(), math.nan).requires_grad_()
    x = replace(x, mask=mask, hidden=hidden, tokens=torch.where(mask, x.tokens, 99))
    rows = [torch.where(mask, r, math.nan) for r in rows_for(x)]
    leaves = [r.detach().requires_grad_() for r in rows]

    def both() -> tuple[Tensor, ...]:
        loss = run(x, *leaves)
        return (loss, *torch.autograd.grad(loss, (*x.leaves(), *leaves)))

    assert products(both, 4 * 5 * 6) == 3
    loss, *grads = both()
    assert all(g.isfinite().all() for g in (loss, *grads))
    for grad in (grads[0], *grads[-2:]):
        assert (grad[~mask] == 0).all()
        assert (grad[mask] != 0).any()


def test_statistics_come_back_detached() -> None:
    x = example(samples=2, masked=True)
    rows = rows_for(x)
    loss, stats = run(x, *rows, outputs=("logp", "entropy", "lse"), return_stats=True)
    assert torch.equal(loss, run(x, *rows))
    for a, b in zip(stats, x.run(), strict=False):
        assert not a.requires_grad
        torch.testing.assert_close(a, b)
    options: Any = {"outputs": ("entropy",), "return_stats": True}
    _, stats = pgest.linear_objective(x.hidden, x.weight, None, lambda s: s.entropy, **options)
    assert stats.logp is None
    assert stats.lse is None


def test_rows_of_any_type_reach_the_objective() -> None:
    x = example(samples=2)
    keep = torch.rand(2, 1, 3) > 0.5
    count = torch.arange(3)

    def objective(stats: TokenStats, keep: Tensor, count: Tensor) -> Tensor:
        assert keep.dtype == torch.bool
        assert count.dtype == torch.int64
        return torch.where(keep, stats.logp, 0.0) * count  # type: ignore[arg-type]

    logp = x.define()[0]
    expected = (torch.where(keep, logp, 0.0) * count).sum() / 7
    for normalizer in (7, torch.tensor([7]), torch.tensor(7.0)):
        loss = run(x, keep, count, objective=objective, normalizer=normalizer)
        torch.testing.assert_close(loss, expected)


def test_the_normalizer_divides_before_a_half_type_overflows() -> None:
    hidden = torch.full((4096, 1), 32.0, dtype=torch.float16)
    weight = torch.zeros(2, 1, dtype=torch.float16, requires_grad=True)
    tokens = torch.zeros(4096, dtype=torch.long)
    loss = pgest.linear_objective(hidden, weight, tokens, lambda s: -s.logp, normalizer=4096)
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == [-16.0, 16.0]


def test_sequence_ratios_take_two_passes() -> None:
    """GSPO's ratio couples a sequence's tokens: linear_token_stats and the loss on top of it."""
    x = example((4, 6), masked=True)
    old = -torch.rand(4, 6, dtype=torch.float64) - 1
    advantage = torch.randn(4, dtype=torch.float64)

    def gspo(logp: Tensor) -> Tensor:
        assert x.mask is not None
        ratio = ((logp - old) * x.mask).sum(-1).div(x.mask.sum(-1)).exp()
        return -torch.minimum(ratio * advantage, ratio.clamp(0.9, 1.1) * advantage).sum()

    ours, theirs = gspo(x.run(chunk_rows=5)[0]), gspo(x.define()[0])
    torch.testing.assert_close(ours, theirs)
    found = [torch.autograd.grad(loss, x.leaves()) for loss in (ours, theirs)]
    torch.testing.assert_close(*found)


def test_autocast_reaches_head_and_objective() -> None:
    x = hidden_and_weight(example((6,), width=16, vocab=33, dtype=torch.float32))
    rounded = x.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = run(x, *rows_for(x))
    torch.testing.assert_close(loss, run(rounded, *rows_for(x)), rtol=0, atol=0)
    ours = torch.autograd.grad(loss, (x.hidden, x.weight))
    assert all(g.dtype == torch.float32 for g in ours)


# torch's compiler looks at the loss, which is no leaf, where it goes on after the call.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_code_calls_it_between_two_graphs() -> None:
    torch._dynamo.reset()
    x = example(dtype=torch.float32)
    rows, leaves = rows_for(x), (x.hidden, x.weight)

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        objective = pgest.linear_objective(
            hidden * 1.5, weight, x.tokens, some_loss, *rows, outputs=STATS
        )
        return 2 * objective

    compiled = torch.compile(loss, backend="aot_eager")
    ours, theirs = compiled(*leaves), loss(*leaves)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves)
    )
