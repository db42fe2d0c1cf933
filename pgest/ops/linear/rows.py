"""Rows of hidden states in chunks: their logits in one workspace, statistics, and gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgest.ops.library import call
from pgest.ops.linear.gradients import Gradients
from pgest.ops.linear.head import At, Head

_ops = torch.ops.pgest
WORKSPACE_BYTES = 64 << 20
LEAST_ROWS = (
    128  # with fewer, reading and writing the weight's gradient costs as much as the product
)


class Chunk(NamedTuple):
    """Some rows: which, their hidden states [R, D], and logits [R, V] in memory that is reused."""

    at: At
    hidden: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Rows:
    """All rows of a call. Per-row arguments are flat: tokens [N] or [S, N], the others [N]."""

    head: Head
    tokens: Tensor | None
    temperature: Tensor | None
    mask: Tensor | None
    entropy: bool
    chunk_rows: int | None
    full: bool  # sum the weight's gradient in the statistics' dtype

    def __len__(self) -> int:
        return self.head.hidden.shape[:-1].numel()

    def chunks(self, live: Tensor | None) -> Iterator[Chunk]:
        """The rows that `live` [N] marks, all without it, in chunks of about equal size."""
        index = None if live is None else live.nonzero()[:, 0]
        count = len(self) if index is None else len(index)
        fits = WORKSPACE_BYTES // (self.head.vocab * self.head.dtype.itemsize)
        chunks = -(-count // (self.chunk_rows or max(LEAST_ROWS, fits)))
        size = -(-count // max(1, chunks))
        workspace = self.head.weight.new_empty(size, self.head.vocab, dtype=self.head.dtype)
        for begin in range(0, count, max(1, size)):
            part = slice(begin, min(begin + size, count))
            at = part if index is None else index[part]
            hidden = self.head.rows(at)
            logits = workspace[: len(hidden)]
            self.head.logits(hidden, logits)
            yield Chunk(at, hidden, logits)

    def stats(self, chunk: Chunk) -> tuple[Tensor, ...]:
        """The outputs of `token_stats` for a chunk."""
        return call(_ops.token_stats.default, chunk.logits, *self._arguments(chunk), self.entropy)

    def backward(
        self,
        chunk: Chunk,
        state: Tensor,
        grads: Sequence[Tensor | None],
        gradients: Gradients,
    ) -> None:
        """Turn the chunk's logits into their gradient, and add what follows from it."""
        by_temperature = call(
            _ops.token_stats_backward_.default,
            chunk.logits,
            *self._arguments(chunk),
            state,
            *grads,
            gradients.wanted.temperature,
        )
        gradients.add(chunk.at, chunk.hidden, chunk.logits, by_temperature)

    def _arguments(self, chunk: Chunk) -> tuple[Any, ...]:
        per_row = (self.tokens, self.temperature)
        return (*(None if x is None else x[..., chunk.at] for x in per_row), None)
