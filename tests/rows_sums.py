"""token_stats_sum in the op table: it sums the statistics of other rows."""

from __future__ import annotations

from typing import Any

import rows_stats
import torch
from op_row import Inputs, Op, Outputs, weight_of, weighted
from rows_stats import COMPARED, THREE, Options, _compared, _nothing, _temperature, _with_values
from torch import Tensor

import pgest
from pgest import reference

NORMALIZER = 64.0  # what sums of large terms lose is then small beside 1, as checks expect it


def _weights(x: Inputs, outputs: tuple[str, ...]) -> dict[str, Tensor]:
    """Those with which `weighted` sums."""
    rows = x.logits.shape[:-1]
    shapes = [x.tokens.shape if name == "logp" else rows for name in outputs]
    return {name: weight_of(i, shapes[i]) for i, name in enumerate(outputs)}


def _run(x: Inputs, outputs: tuple[str, ...], options: dict[str, Any]) -> Outputs:
    weights = _weights(x, outputs)
    given = {"mask": x.mask, "normalizer": NORMALIZER, **options}
    return (pgest.token_stats_sum(x.logits, x.tokens, weights, **given),)


def _raw_args(x: Inputs, outputs: tuple[str, ...], options: dict[str, Any]) -> tuple[Any, ...]:
    *given, bits = rows_stats._raw_args(x, outputs, options)
    constants = (a.detach() if isinstance(a, Tensor) else a for a in given)
    weights = _weights(x, outputs)
    grads = (weights.get(name) for name in reference.StatsGrads._fields)
    return (*constants, *grads, bits, "temperature" in options)


def _row(
    name: str,
    outputs: tuple[str, ...],
    options: Options,
    extras: Any = _temperature,
    compile_backend: str = "aot_eager",
) -> Op:
    def plain(x: Inputs) -> Outputs:
        stats = rows_stats._plain(x, outputs, options(x))
        if x.mask is not None:
            stats = tuple(torch.where(x.mask, s, 0) for s in stats)
        return (weighted(stats) / NORMALIZER,)

    return Op(
        name=name,
        run=lambda x: _run(x, outputs, options(x)),
        define=lambda x: (weighted(rows_stats._define(x, outputs, options(x))) / NORMALIZER,),
        plain=plain,
        extras=extras,
        raw="token_stats_gradient",
        raw_args=lambda x: _raw_args(x, outputs, options(x)),
        raw_backward="token_stats_gradient",
        raw_backward_args=lambda x: _raw_args(x, outputs, options(x)),
        compile_backend=compile_backend,
        inplace=False,  # no backward; and a list beside what is overwritten is not for the compiler
        once=True,
    )


ROWS = (
    _row("token_stats_sum", THREE, _nothing, lambda batch, dtype: (), "inductor"),
    _row("token_stats_sum with bias, softcap and threshold", THREE, _with_values),
    _row("token_stats_sum with divergences and values", ("logp", *COMPARED), _compared),
)
