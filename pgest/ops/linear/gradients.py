"""The gradients of a head, summed over chunks of rows straight into what is returned."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pgest.ops.linear.head import At, Head, add_product
from pgest.ops.memory import fresh


class Wanted(NamedTuple):
    """Which gradients are made; the others cost nothing."""

    hidden: bool
    weight: bool
    bias: bool
    temperature: bool


class Gradients:
    """d hidden = dz W, d weight = dz^T h, d bias = sum dz, each made only where it is wanted.

    Args:
        head: what made the logits.
        wanted: which gradients to make.
        full: sum the weight's in the statistics' dtype and round once; else in the weight's own.
        partial: some rows get no chunk, and a hidden gradient of 0.
        rounded: give them in the dtypes of hidden and weight; else in what they are summed in,
            hidden's in the statistics' dtype.
    """

    def __init__(
        self, head: Head, wanted: Wanted, full: bool, partial: bool, rounded: bool = True
    ) -> None:
        self.head, self.wanted, self.rounded = head, wanted, rounded
        self.first = True
        self.hidden = self.weight = self.bias = self.temperature = None
        hidden, weight = head.hidden, head.weight
        num_rows = hidden.shape[:-1].numel()
        if wanted.hidden:
            make = torch.zeros if partial else torch.empty
            dtype = hidden.dtype if rounded else head.wide
            self.hidden = make(num_rows, hidden.shape[-1], dtype=dtype, device=hidden.device)
        if wanted.weight:
            dtype = head.wide if full else weight.dtype
            self.weight = fresh(weight, *weight.shape, dtype=dtype)
        if wanted.bias:
            self.bias = weight.new_zeros(head.vocab, dtype=head.wide)
        if wanted.temperature:
            self.temperature = hidden.new_zeros(num_rows, dtype=torch.float64)

    def add(self, at: At, rows: Tensor, dz: Tensor, by_temperature: Tensor) -> None:
        """Add what rows `at`, `rows` of hidden [R, D], contribute by the logits' gradient `dz`."""
        if self.hidden is not None:
            self._add_hidden(self.hidden, at, dz)
        if self.weight is not None:
            self._add_weight(self.weight, rows, dz)
        if self.bias is not None:
            self.bias += dz.sum(0, dtype=self.bias.dtype)
        if self.temperature is not None:
            self.temperature[at] = by_temperature
        self.first = False

    def _add_hidden(self, hidden: Tensor, at: At, dz: Tensor) -> None:
        dtype = hidden.dtype if self.head.on_matrix_units else dz.dtype
        straight = isinstance(at, slice) and hidden.dtype == dtype
        out = hidden[at] if straight else dz.new_empty(len(dz), hidden.shape[1], dtype=dtype)
        for columns, weight in self.head.slabs():
            add_product(out, dz[:, columns], weight, beta=int(columns.start > 0))
        if not straight:
            hidden[at] = out.to(hidden.dtype)

    def _add_weight(self, weight: Tensor, rows: Tensor, dz: Tensor) -> None:
        beta = 0 if self.first else 1  # the first chunk writes: nothing is zeroed before
        if weight.dtype == dz.dtype or self.head.on_matrix_units:
            return add_product(weight, dz.t(), rows, beta)
        buffer: Tensor | None = None
        for columns in self.head.columns():
            of_slab = dz[:, columns].t()
            if buffer is None:
                buffer = dz.new_empty(len(of_slab), rows.shape[1])
            product = torch.mm(of_slab, rows, out=buffer[: len(of_slab)])
            weight[columns] = product if self.first else product.add_(weight[columns])

    def results(self) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """The gradients of hidden, weight, bias and temperature."""
        head, weight = self.head, self.weight
        if self.first and weight is not None:
            weight.zero_()
        if self.rounded and weight is not None:
            weight = weight.to(head.weight.dtype)
        batch = head.hidden.shape[:-1]
        return (
            None if self.hidden is None else self.hidden.view(head.hidden.shape),
            weight,
            self.bias,
            None if self.temperature is None else self.temperature.view(batch),
        )
