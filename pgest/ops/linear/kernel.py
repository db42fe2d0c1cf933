"""linear_token_stats in torch's library: schemas, the loop over chunks, fake kernels.

The loop is plain PyTorch on every device: the products are torch's, and the rows' own work is that
of `token_stats`, whose kernels run on one chunk after the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pgest.ops.library import define
from pgest.ops.linear.gradients import Gradients, Wanted
from pgest.ops.linear.head import Head
from pgest.ops.linear.rows import Chunk, Rows
from pgest.ops.stats import kernel  # noqa: F401  (defines what runs on the chunks)

_ops = torch.ops.pgest
ARGUMENTS = 9  # of the op; the backward takes more


def flat_rows(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tokens: Tensor | None,
    temperature: Tensor | None,
    mask: Tensor | None,
    entropy: bool,
    chunk_rows: int | None,
    full: bool,
) -> Rows:
    """The op's arguments, their leading dimensions flat."""
    tokens, temperature, mask = (
        None if x is None else flat(x, hidden.dim() - 1) for x in (tokens, temperature, mask)
    )
    head = Head(hidden, weight, bias)
    return Rows(head, tokens, temperature, mask, entropy, chunk_rows, full)


def flat(x: Tensor, batch_dims: int) -> Tensor:
    """[..., *batch] as [..., N]."""
    before = x.dim() - batch_dims
    return x.reshape(*x.shape[:before], x.shape[before:].numel())


def _like_logits(hidden: Tensor, weight: Tensor, *args: Any) -> tuple[Tensor, ...]:
    """The outputs of `token_stats` for the logits, as far as shapes and dtypes go."""
    logits = hidden.new_empty(()).expand(*hidden.shape[:-1], weight.shape[0])
    _, tokens, _, _, entropy, _, _ = args
    return _ops.token_stats.default(logits, tokens, None, None, entropy)


class Outputs:
    """What the op returns, in which chunks are put; 0 in the rows that get none."""

    def __init__(self, *args: Any) -> None:
        hidden = args[0]
        like = _like_logits(*(x.to("meta") if isinstance(x, Tensor) else x for x in args))
        self.tensors = tuple(torch.zeros_like(x, device=hidden.device) for x in like)
        self._flat = [flat(x, hidden.dim() - 1) for x in self.tensors if x.shape != (0,)]

    def put(self, chunk: Chunk, values: tuple[Tensor, ...]) -> None:
        """Put a chunk's statistics in their place."""
        given = (x for x in values if x.shape != (0,))
        for whole, of_chunk in zip(self._flat, given, strict=True):
            whole[..., chunk.at] = of_chunk


def _linear_token_stats(*args: Any) -> tuple[Tensor, ...]:
    rows, outputs = flat_rows(*args), Outputs(*args)
    for chunk in rows.chunks(rows.mask):
        outputs.put(chunk, rows.stats(chunk))
    return outputs.tensors


def _linear_token_stats_backward(*args: Any) -> tuple[Tensor, ...]:
    inputs, (state, *grads, wanted) = args[:ARGUMENTS], args[ARGUMENTS:]
    rows, batch_dims = flat_rows(*inputs), inputs[0].dim() - 1
    saved = flat(state, batch_dims)
    grads = [None if g is None else flat(g, batch_dims) for g in grads]
    live = _with_gradient(rows, grads)
    gradients = Gradients(rows.head, Wanted(*wanted), rows.full, partial=live is not None)
    for chunk in rows.chunks(live):
        of_chunk = [None if g is None else g[..., chunk.at] for g in grads]
        rows.backward(chunk, saved[..., chunk.at], of_chunk, gradients)
    return tuple(args[0].new_empty(0) if g is None else g for g in gradients.results())


def _with_gradient(rows: Rows, grads: list[Tensor | None]) -> Tensor | None:
    """The rows [N] that are not masked and whose statistics have a gradient; None for all."""
    live = torch.zeros(len(rows), dtype=torch.bool, device=rows.head.weight.device)
    for grad in grads:
        if grad is not None:
            live |= (grad != 0).any(0) if grad.dim() == 2 else grad != 0
    live = live if rows.mask is None else live & rows.mask
    return None if live.all() else live


def _fake_backward(*args: Any) -> tuple[Tensor, ...]:
    hidden, weight, bias, _, temperature = args[:5]
    like = (hidden, weight, bias, temperature)
    return tuple(
        x.new_empty(x.shape) if wanted else hidden.new_empty(0)
        for x, wanted in zip(like, args[-1], strict=True)
    )


_ARGUMENTS = (
    "Tensor hidden, Tensor weight, Tensor? bias, Tensor? tokens, Tensor? temperature, "
    "Tensor? mask, bool entropy, int? chunk_rows, bool full"
)
define(
    f"linear_token_stats({_ARGUMENTS}) -> (Tensor logp, Tensor entropy, Tensor lse, Tensor state)",
    _linear_token_stats,
    _like_logits,
)
define(
    f"linear_token_stats_backward({_ARGUMENTS}, Tensor state, Tensor? grad_logp, "
    "Tensor? grad_entropy, Tensor? grad_lse, bool[] wanted)"
    " -> (Tensor grad_hidden, Tensor grad_weight, Tensor grad_bias, Tensor grad_temperature)",
    _linear_token_stats_backward,
    _fake_backward,
)
