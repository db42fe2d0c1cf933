"""linear_token_stats in torch's library: schemas, the loop over chunks, fake kernels.

The loop is plain PyTorch on every device: the products are torch's, and the rows' own work is that
of `token_stats`, whose kernels run on one chunk after the other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgest.ops.checks import HEAD
from pgest.ops.library import define
from pgest.ops.linear.gradients import Gradients, Wanted
from pgest.ops.linear.head import Head
from pgest.ops.linear.rows import Chunk, Rows
from pgest.ops.stats.kernel import check_values
from pgest.reference import StatsGrads, StatsInput, statistics_dtype

_ops = torch.ops.pgest


class LinearInput(NamedTuple):
    """What the op reads, in the order of its schema; `outputs` are the bits of `token_stats`."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    tokens: Tensor | None
    softcap: float
    temperature: Tensor | None
    threshold: Tensor | None
    mask: Tensor | None
    reference_hidden: Tensor | None
    reference_weight: Tensor | None
    reference_bias: Tensor | None
    outputs: int
    chunk_rows: int | None
    full: bool

    def like_logits(self) -> Tensor:
        """The logits [..., V] as far as shape, dtype and device go: one number, expanded."""
        number = self.hidden.new_empty((), dtype=statistics_dtype(self.weight))
        return number.expand(*self.hidden.shape[:-1], len(self.weight))

    def rows(self) -> Rows:
        """The same with leading dimensions flat."""
        reference = None
        if self.reference_hidden is not None and self.reference_weight is not None:
            reference = Head(self.reference_hidden, self.reference_weight, self.reference_bias)
        tokens, temperature, threshold, mask = (
            None if x is None else self.flat(x)
            for x in (self.tokens, self.temperature, self.threshold, self.mask)
        )
        return Rows(
            Head(self.hidden, self.weight, self.bias),
            reference,
            tokens,
            self.softcap,
            temperature,
            threshold,
            mask,
            *self[-3:],
        )

    def flat(self, x: Tensor) -> Tensor:
        """[..., *batch] as [..., N]."""
        before = x.dim() - self.hidden.dim() + 1
        return x.reshape(*x.shape[:before], x.shape[before:].numel())


class Results:
    """What the op returns, in which chunks are put; 0 in the rows that get none."""

    def __init__(self, x: LinearInput) -> None:
        # Refused before the products, and by the row that the caller knows.
        logits = x.like_logits()
        given = StatsInput(logits, x.tokens, temperature=x.temperature, mask=x.mask)
        check_values(given, of=HEAD)
        tokens = None if x.tokens is None else x.tokens.to("meta")
        like = _results_like(logits.to("meta"), tokens, x.outputs)
        self.tensors = [torch.zeros_like(result, device=logits.device) for result in like]
        self._flat = [x.flat(result) for result in self.tensors]

    def put(self, chunk: Chunk, results: list[Tensor]) -> None:
        """Put a chunk's results in their place."""
        for whole, of_chunk in zip(self._flat, results, strict=True):
            whole[..., chunk.at] = of_chunk


def _results_like(logits: Tensor, tokens: Tensor | None, outputs: int) -> list[Tensor]:
    row = (tokens, None, 0.0, None, None, None)
    return _ops.token_stats.default(logits, *row, None, None, None, outputs)


def _linear_token_stats(*args: Any) -> list[Tensor]:
    x = LinearInput(*args)
    rows, results = x.rows(), Results(x)
    for chunk in rows.chunks(rows.mask):
        results.put(chunk, rows.stats(chunk))
    return results.tensors


def _linear_token_stats_backward(*args: Any) -> tuple[Tensor, ...]:
    n = len(LinearInput._fields)
    x, (state, *grads, wanted) = LinearInput(*args[:n]), args[n:]
    rows, state = x.rows(), x.flat(state)
    grads = [None if g is None else x.flat(g) for g in grads]
    live = _with_gradient(rows, grads)
    gradients = Gradients(rows.head, Wanted(*wanted), rows.full, partial=live is not None)
    for chunk in rows.chunks(live):
        of_chunk = [None if g is None else g[..., chunk.at] for g in grads]
        rows.backward(chunk, state[..., chunk.at], of_chunk, gradients)
    return tuple(x.hidden.new_empty(0) if g is None else g for g in gradients.results())


def _with_gradient(rows: Rows, grads: list[Tensor | None]) -> Tensor | None:
    """The rows [N] that are not masked and whose statistics have a gradient; None for all.

    On CUDA those that are not masked: to count the others would wait for the device.
    """
    if rows.head.on_matrix_units:
        return rows.mask
    live = torch.zeros(len(rows), dtype=torch.bool, device=rows.head.weight.device)
    for grad in grads:
        if grad is not None:
            live |= (grad != 0).any(0) if grad.dim() == 2 else grad != 0
    live = live if rows.mask is None else live & rows.mask
    return None if live.all() else live


def _fake(*args: Any) -> list[Tensor]:
    x = LinearInput(*args)
    return _results_like(x.like_logits(), x.tokens, x.outputs)


def _fake_backward(*args: Any) -> tuple[Tensor, ...]:
    x = LinearInput(*args[: len(LinearInput._fields)])
    like = (x.hidden, x.weight, x.bias, x.temperature)
    return tuple(
        t.new_empty(t.shape) if wanted and t is not None else x.hidden.new_empty(0)
        for t, wanted in zip(like, args[-1], strict=True)
    )


_ARGUMENTS = (
    "Tensor hidden, Tensor weight, Tensor? bias, Tensor? tokens, float softcap, "
    "Tensor? temperature, Tensor? threshold, Tensor? mask, Tensor? reference_hidden, "
    "Tensor? reference_weight, Tensor? reference_bias, int outputs, int? chunk_rows, bool full"
)
_GRADIENTS = ", ".join(f"Tensor? grad_{name}" for name in StatsGrads._fields)
define(f"linear_token_stats({_ARGUMENTS}) -> Tensor[]", _linear_token_stats, _fake)
define(
    f"linear_token_stats_backward({_ARGUMENTS}, Tensor state, {_GRADIENTS}, bool[] wanted)"
    " -> (Tensor grad_hidden, Tensor grad_weight, Tensor grad_bias, Tensor grad_temperature)",
    _linear_token_stats_backward,
    _fake_backward,
)
