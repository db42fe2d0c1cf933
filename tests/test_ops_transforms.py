"""Every row of the op table under torch.compile, vmap, torch.func and forward mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch._functorch.config
import torch._inductor.config
from op_row import Inputs, Op, Outputs, as_leaves, differentiable, gradients, weighted
from op_table import func_rows, library_rows, refusing_rows, rows, whole_rows
from torch import Tensor


# The compiler's caches on disk do not know when an op's own shapes change.
@torch._inductor.config.patch(fx_graph_cache=False)
@torch._functorch.config.patch(enable_autograd_cache=False)
@library_rows
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiles_to_one_graph(op: Op, dtype: torch.dtype) -> None:
    """Inductor, which takes long, compiles each op in float32 and one op in a half type."""
    torch._dynamo.reset()
    full = dtype == torch.float32 or op.name == "token_stats"
    backend = op.compile_backend if full else "aot_eager"

    def loss(logits: Tensor, tokens: Tensor, *extras: Tensor) -> Tensor:
        return weighted(op.run(Inputs(logits * 1.5, tokens, extras)))

    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for batch in ((2, 3), (4, 3), (5, 6)):  # the second call makes shapes dynamic
        x = as_leaves(op.inputs(dtype, batch=batch))
        values = differentiable(x)
        ours = torch.autograd.grad(compiled(x.logits, x.tokens, *x.extras), values)
        eager = torch.autograd.grad(loss(x.logits, x.tokens, *x.extras), values)
        torch.testing.assert_close(ours, eager)
    frames = torch._dynamo.utils.counters["frames"]
    assert frames["total"] == frames["ok"] <= 2, "recompiled for every shape"


@whole_rows
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


@refusing_rows
def test_vmap_is_refused(op: Op) -> None:
    x = op.inputs()

    def run(logits: Tensor) -> Outputs:
        return op.run(replace(x, logits=logits))

    with pytest.raises(ValueError, match=f"^{op.name.split()[0]} does not support torch"):
        torch.vmap(run)(x.logits[None])


@func_rows
def test_torch_func_agrees_with_autograd(op: Op) -> None:
    x = as_leaves(op.inputs(batch=(3,), vocab=4))
    grads = torch.func.grad(_loss(op), argnums=0)(*_values(x))
    torch.testing.assert_close(grads, gradients(op.run(x), x)[0])


@whole_rows
def test_torch_func_maps_gradients_and_differentiates_twice(op: Op) -> None:
    x = op.inputs(batch=(3,), vocab=4)
    loss, values = _loss(op), _values(x)
    per_row = torch.vmap(torch.func.grad(loss))(*values)
    one_by_one = [torch.func.grad(loss)(*row) for row in zip(*values, strict=True)]
    torch.testing.assert_close(per_row, torch.stack(one_by_one))

    def define(logits: Tensor) -> Tensor:
        return weighted(op.define(replace(x, logits=logits)))

    hessian = torch.func.jacrev(torch.func.jacrev(loss))(*values)
    torch.testing.assert_close(hessian, torch.func.jacrev(torch.func.jacrev(define))(x.logits))


def _loss(op: Op) -> Callable[..., Tensor]:
    def loss(logits: Tensor, tokens: Tensor, *extras: Tensor) -> Tensor:
        return weighted(op.run(Inputs(logits, tokens, extras)))

    return loss


def _values(x: Inputs) -> tuple[Tensor, ...]:
    logits, *extras = (t.detach() for t in differentiable(x))
    return logits, x.tokens, *extras


@rows
def test_forward_mode_is_refused(op: Op) -> None:
    x = op.inputs()

    def run(logits: Tensor) -> Outputs:
        return op.run(replace(x, logits=logits))

    refused = op.once or not op.raw  # by name
    error, message = (ValueError, r"torch\.func") if refused else (NotImplementedError, "jvp")
    with pytest.raises(error, match=message):
        torch.func.jvp(run, (x.logits,), (x.logits,))
