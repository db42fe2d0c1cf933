"""row_threshold in torch's library: schema, what runs without a compiled kernel, fake kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pgest import reference
from pgest.ops import checks
from pgest.ops.library import define, tell_once
from pgest.ops.rules import biased, fronts


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
    logits, bias, *rest = fronts(info, in_dims, args)
    if in_dims[1] is None:
        return _op(logits, args[1], *rest), 0
    return _op(biased(logits, bias), None, *rest), 0


define(
    "row_threshold(Tensor logits, Tensor? bias, float softcap, Tensor? temperature, Tensor? mask,"
    " int top_k, float top_p, float min_p) -> Tensor threshold",
    _row_threshold,
    _fake,
)
_op = torch.ops.pgest.row_threshold.default
torch.library.register_vmap("pgest::row_threshold", _vmap)
