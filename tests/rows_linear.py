"""The linear ops in the op table: logits are hidden states [..., D], a head comes as extras."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import rows_stats
import torch
from op_row import Inputs, Op, Outputs
from rows_stats import THREE, _temperature
from torch import Tensor
from torch.nn.functional import linear

import pgest
from pgest import TokenStats, reference
from pgest.ops.linear import checks
from pgest.reference import StatsInput

WIDTH = 5
COMPARED = ("logp", "entropy", "kl", "reverse_kl")
Options = dict[str, Any]


@dataclass(frozen=True)
class _Linear(Op):
    """A row whose first extras are weight [V, D] and bias [V]."""

    def inputs(self, *args: Any, **options: Any) -> Inputs:
        x = super().inputs(*args, **options)
        vocab, hidden = x.logits.shape[-1], x.logits[..., :WIDTH].contiguous()
        generator = torch.Generator().manual_seed(1)
        head = torch.randn(vocab, hidden.shape[-1] + 1, generator=generator, dtype=torch.float64)
        weight, bias = (t.contiguous().to(hidden.dtype) for t in (head[:, 1:], head[:, 0]))
        return replace(x, logits=hidden, extras=(weight, bias, *x.extras))


def _nothing(x: Inputs) -> Options:
    return {}


def _compared(x: Inputs) -> Options:
    """Whatever restricts or compares, exact in every dtype, in chunks of 4 rows."""
    place = torch.arange(len(x.extras[0]))
    hidden = torch.tensor([1.0, -0.5]).expand(*x.logits.shape[:-1], 2)
    weight = torch.stack([(7 * place) % 5 / 2 - 1, (3 * place) % 4 / 2], dim=-1)
    policy = (hidden.to(x.logits.dtype), weight.to(x.logits.dtype))
    return {
        "temperature": x.extras[2],
        "softcap": 30.0,
        "threshold": -31.0,  # below whatever the softcap leaves
        "reference": policy,
        "chunk_rows": 4,
    }


def _picked(stats: Any, outputs: tuple[str, ...]) -> Outputs:
    return tuple(getattr(stats, name) for name in outputs)


def _run(x: Inputs, outputs: tuple[str, ...], options: Options) -> Outputs:
    weight, bias = x.extras[:2]
    given: Options = {"outputs": outputs, "bias": bias, "mask": x.mask, **options}
    return _picked(pgest.linear_token_stats(x.logits, weight, x.tokens, **given), outputs)


def _define(x: Inputs, outputs: tuple[str, ...], options: Options) -> Outputs:
    weight, bias = x.extras[:2]
    softcap, temperature = options.get("softcap", 0.0), options.get("temperature")
    given = StatsInput(x.logits, x.tokens, None, softcap, temperature, mask=x.mask)
    stats = reference.linear_token_stats(x.logits, weight, given, bias, options.get("reference"))
    return _picked(stats, outputs)


def _plain(x: Inputs, outputs: tuple[str, ...], options: Options) -> Outputs:
    """What people write today, in the dtype of the hidden states."""

    def logits(*head: Tensor) -> Tensor:
        softcap = options.get("softcap")
        return softcap * torch.tanh(linear(*head) / softcap) if softcap else linear(*head)

    given: Options = {}
    if options:
        given["temperature"] = options["temperature"]
        given["reference_logits"] = logits(*options["reference"])
    z = logits(x.logits, *x.extras[:2])
    return rows_stats._plain(replace(x, logits=z), outputs, given)


def _raw_args(x: Inputs, options: Options) -> tuple[Any, ...]:
    """Leaves, and every statistic that the options allow."""
    weight, bias = x.extras[:2]
    given: Options = {
        "temperature": 1.0,
        "softcap": None,
        "threshold": None,
        "reference": None,
        "chunk_rows": None,
        "accumulate": "full",
        **options,
    }
    outputs = checks.OUTPUTS if options else THREE
    args = checks.arguments(x.logits, weight, x.tokens, outputs, bias=bias, mask=x.mask, **given)
    return tuple(
        a.detach().requires_grad_(a.requires_grad) if isinstance(a, Tensor) else a for a in args
    )


def _raw_backward_args(x: Inputs, options: Options) -> tuple[Any, ...]:
    """Without gradients of their own, which are refused; with the options some are not wanted."""
    args = tuple(a.detach() if isinstance(a, Tensor) else a for a in _raw_args(x, options))
    *results, state = torch.ops.pgest.linear_token_stats(*args)
    grads = [torch.ones_like(r) for r in results if r.is_floating_point()]
    missing = [None] * (len(reference.StatsGrads._fields) - len(grads))
    wanted = [True, False, False, True] if options else [True, True, True, False]
    return (*args, state, *grads, *missing, wanted)


def _row(name: str, outputs: tuple[str, ...], options: Any, extras: Any, backend: str) -> Op:
    return _Linear(
        name=name,
        run=lambda x: _run(x, outputs, options(x)),
        define=lambda x: _define(x, outputs, options(x)),
        plain=lambda x: _plain(x, outputs, options(x)),
        extras=extras,
        raw="linear_token_stats",
        raw_args=lambda x: _raw_args(x, options(x)),
        raw_backward="linear_token_stats_backward",
        raw_backward_args=lambda x: _raw_backward_args(x, options(x)),
        compile_backend=backend,
        inplace=False,
        chunked=True,
    )


def _loss(stats: TokenStats, gain: Tensor) -> Tensor:
    assert stats.logp is not None
    assert stats.entropy is not None
    return -gain * stats.logp - 0.1 * stats.entropy


def _objective(x: Inputs) -> Outputs:
    weight, bias, gain = x.extras
    given: Options = {"outputs": ("logp", "entropy"), "bias": bias, "mask": x.mask}
    return (
        pgest.linear_objective(
            x.logits, weight, x.tokens, _loss, gain, normalizer=7.0, chunk_rows=4, **given
        ),
    )


def _sum(x: Inputs, stats: Outputs) -> Outputs:
    """The definition of the loss, on top of any statistics."""
    gain = x.extras[2].to(stats[0].dtype).expand(x.tokens.shape)
    given = TokenStats(stats[0], stats[1])
    return (reference.linear_objective(given, _loss, gain, mask=x.mask, normalizer=7.0),)


ROWS = (
    _row("linear_token_stats", THREE, _nothing, lambda batch, dtype: (), "inductor"),
    _row("linear_token_stats with divergences", COMPARED, _compared, _temperature, "aot_eager"),
    _Linear(
        name="linear_objective",
        run=_objective,
        define=lambda x: _sum(x, _define(x, THREE, {})),
        plain=lambda x: _sum(x, _plain(x, THREE, {})),
        extras=_temperature,
        raw="",  # an objective is Python, which no op of torch's library takes
        raw_args=lambda x: (),
        raw_backward="",
        raw_backward_args=lambda x: (),
        chunked=True,
    ),
)
