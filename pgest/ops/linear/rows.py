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
from pgest.ops.stats.kernel import BY_TOKEN
from pgest.reference.rows import values

_ops = torch.ops.pgest
WORKSPACE_BYTES = 64 << 20
# The weight's gradient is read and written once a chunk, which shows beside smaller products.
LEAST_ROWS = 128
CUDA_ROWS = (1024, 4096)  # least and most; more no longer shows
SQUASHED_BYTES = 2 << 20  # at a time, which bounds the temporaries
CUDA_SQUASHED_BYTES = 256 << 20


class Chunk(NamedTuple):
    """Some rows: which, their hidden states [R, D], and logits [R, V] in memory that is reused."""

    at: At
    hidden: Tensor
    logits: Tensor
    reference_logits: Tensor | None


@dataclass(frozen=True)
class Rows:
    """All rows of a call. Per-row arguments are flat: tokens [N] or [S, N], the others [N]."""

    head: Head
    reference: Head | None
    tokens: Tensor | None
    softcap: float
    temperature: Tensor | None
    threshold: Tensor | None
    mask: Tensor | None
    outputs: int
    chunk_rows: int | None
    full: bool  # sum the weight's gradient in the statistics' dtype

    def __len__(self) -> int:
        return self.head.hidden.shape[:-1].numel()

    def chunks(self, live: Tensor | None) -> Iterator[Chunk]:
        """The rows that `live` [N] marks, all without it, in chunks of about equal size."""
        index = None if live is None else live.nonzero()[:, 0]
        count = len(self) if index is None else len(index)
        chunks = -(-count // (self.chunk_rows or rows_that_fit(self.head)))
        size = -(-count // max(1, chunks))
        workspace = self.head.workspace(size)
        other = None if self.reference is None else self.reference.workspace(size)
        for begin in range(0, count, max(1, size)):
            part = slice(begin, min(begin + size, count))
            at = part if index is None else index[part]
            hidden = self.head.rows(at)
            logits = self.head.logits(hidden, workspace)
            yield Chunk(at, hidden, logits, self._reference_logits(at, other))

    def _reference_logits(self, at: At, workspace: Tensor | None) -> Tensor | None:
        if self.reference is None or workspace is None:
            return None
        logits = self.reference.logits(self.reference.rows(at), workspace, late_bias=False)
        if self.softcap:
            size = CUDA_SQUASHED_BYTES if self.head.on_matrix_units else SQUASHED_BYTES
            for rows in logits.split(max(1, size // (4 * self.head.vocab))):
                rows.copy_(values(rows, softcap=self.softcap))
        return logits

    def stats(self, chunk: Chunk) -> list[Tensor]:
        """The results of `token_stats` for a chunk."""
        return call(_ops.token_stats.default, *self._arguments(chunk), self.outputs)

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
            *self._arguments(chunk),
            state,
            *grads,
            gradients.wanted.temperature,
        )
        gradients.add(chunk.at, chunk.hidden, chunk.logits, by_temperature)

    def _arguments(self, chunk: Chunk) -> tuple[Any, ...]:
        """The fields of StatsInput. No row is masked."""
        tokens = self.tokens if self.outputs & BY_TOKEN else None
        tokens, temperature, threshold = (
            None if x is None else x[..., chunk.at]
            for x in (tokens, self.temperature, self.threshold)
        )
        row = (tokens, self.head.late_bias, self.softcap, temperature, threshold, None)
        return (chunk.logits, *row, chunk.reference_logits, None, None)


def rows_that_fit(head: Head) -> int:
    """Rows of a chunk: enough for the products to run at full speed, in little memory.

    On CUDA the most, as long as their logits take a quarter of the free memory.
    """
    row_bytes = head.vocab * head.dtype.itemsize
    device = head.weight.device
    if device.type != "cuda":
        return max(LEAST_ROWS, WORKSPACE_BYTES // row_bytes)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + cached
    least, most = CUDA_ROWS
    return min(most, max(least, free // 4 // row_bytes))
