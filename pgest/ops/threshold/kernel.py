"""row_threshold in torch's library: schema, what runs without a compiled kernel, fake kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pgest import reference
from pgest.ops import checks
from pgest.ops.library import define, tell_once


def _row_threshold(
    logits: Tensor,
    bias: Tensor | None,
    softcap: float,
    temperature: Tensor | None,
    mask: Tensor | None,
    *restriction: Any,
) -> Tensor:
    tell_once()
    if temperature is not None:
        checks.temperature_values(temperature, logits, mask)
    with torch.no_grad():
        return reference.row_threshold(logits, bias, softcap, temperature, mask, *restriction)


def _fake(logits: Tensor, *args: Any) -> Tensor:
    return logits.new_empty(logits.shape[:-1], dtype=torch.float64)


def _vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    """One more leading dimension; a bias of its own for each element is added beforehand."""

    def front(i: int) -> Any:
        x, dim = args[i], in_dims[i]
        if x is None:
            return None
        return x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)

    logits, bias = front(0), args[1]
    if in_dims[1] is not None:
        raise NotImplementedError("bias is shared by all rows: it cannot be vmapped over")
    return _op(logits, bias, args[2], front(3), front(4), *args[5:]), 0


define(
    "row_threshold(Tensor logits, Tensor? bias, float softcap, Tensor? temperature, Tensor? mask,"
    " int top_k, float top_p, float min_p) -> Tensor threshold",
    _row_threshold,
    _fake,
)
_op = torch.ops.pgest.row_threshold.default
torch.library.register_vmap("pgest::row_threshold", _vmap)
