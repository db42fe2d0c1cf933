"""Products with a head's weight: logits of a chunk of rows, and the gradients that flow back.

On the CPU all products are made in the statistics' dtype. Half types are converted slab by slab of
the vocabulary: without matrix instructions for them, products of half types are many times slower
than of float32, and a chunk's logits would be rounded before their statistics are taken. On CUDA
products are made in the storage dtype, which is what its matrix units are for: they sum in float32,
logits are rounded to the storage dtype, and gradients are summed in float32 by the products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pgest import reference
from pgest.ops.memory import fresh

SLAB_BYTES = 16 << 20

At = slice | Tensor  # which rows, counted over leading dimensions


@dataclass(frozen=True)
class Head:
    """hidden [..., D], weight [V, D] and bias [V], whose logits are hidden @ weight.T + bias.

    The bias is in the statistics' dtype.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None

    @property
    def on_matrix_units(self) -> bool:
        """Whether products of half types are fast, and add to a wider type by themselves."""
        return self.weight.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """What the logits are computed in."""
        return self.weight.dtype if self.on_matrix_units else self.wide

    @property
    def wide(self) -> torch.dtype:
        """What gradients are summed in."""
        return reference.statistics_dtype(self.weight)

    @property
    def late_bias(self) -> Tensor | None:
        """The bias where the row kernels add it, because logits are too short for it."""
        return None if self.dtype == self.wide else self.bias

    @property
    def vocab(self) -> int:
        """How many tokens there are."""
        return self.weight.shape[0]

    def rows(self, at: At) -> Tensor:
        """Rows `at` of `hidden`, counted over its leading dimensions: a view where one exists."""
        try:
            rows = self.hidden.view(-1, self.hidden.shape[-1])[at]
        except RuntimeError:  # leading dimensions that do not fuse, as in hidden[:, :-1]
            index = at if isinstance(at, Tensor) else _range(at, self.hidden.device)
            rows = self.hidden[torch.unravel_index(index, self.hidden.shape[:-1])]
        return rows.to(self.dtype)

    def workspace(self, size: int) -> Tensor:
        """Memory for the logits of `size` rows."""
        return fresh(self.weight, size, self.vocab, dtype=self.dtype)

    def logits(self, rows: Tensor, workspace: Tensor, late_bias: bool = True) -> Tensor:
        """The logits of `rows` [R, D], at the beginning of the workspace.

        They have the bias, but for a `late_bias` unless that is False.
        """
        out = workspace[: len(rows)]
        late = late_bias and self.late_bias is not None
        for at, weight in self.slabs():
            if self.bias is None or late:
                torch.mm(rows, weight.t(), out=out[:, at])
            else:
                torch.addmm(self.bias[at].to(out.dtype), rows, weight.t(), out=out[:, at])
        return out

    def slabs(self) -> Iterator[tuple[slice, Tensor]]:
        """Columns of the vocabulary that cover it, each with their weights in `dtype`."""
        if self.weight.dtype == self.dtype:
            yield slice(0, self.vocab), self.weight
            return
        buffer: Tensor | None = None
        for at in self.columns():
            part = self.weight[at]
            buffer = part.to(self.dtype) if buffer is None else buffer
            yield at, buffer[: len(part)].copy_(part)

    def columns(self) -> Iterator[slice]:
        """Columns of the vocabulary whose weights take about `SLAB_BYTES` in `dtype`."""
        size = max(1, SLAB_BYTES // (self.weight.shape[1] * self.dtype.itemsize))
        for begin in range(0, self.vocab, size):
            yield slice(begin, min(begin + size, self.vocab))


def add_product(out: Tensor, a: Tensor, b: Tensor, beta: int) -> None:
    """out = beta out + a b, summed in the dtype of `out`, which on CUDA may be the wider one.

    Into given memory, as every product here: autocast, which would round it, passes by.

    Example:
        >>> out = torch.ones(1, 1)
        >>> add_product(out, torch.ones(1, 2), torch.ones(2, 1), beta=1)
        >>> out.item()
        3.0
    """
    if out.dtype == a.dtype:
        out.addmm_(a, b, beta=beta)
    else:
        torch.addmm(out, a, b, out_dtype=out.dtype, beta=beta, out=out)


def _range(at: slice, device: torch.device) -> Tensor:
    return torch.arange(at.start, at.stop, device=device)
