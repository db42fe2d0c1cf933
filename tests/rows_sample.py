"""sample in the op table: the uniforms come from the row and its tokens: all draw the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from op_row import Inputs, Op, Outputs
from rows_stats import _bias, _temperature
from torch import Tensor

import pgest
from pgest import reference
from pgest.reference import METHODS, StatsInput
from pgest.reference.rows import scaled

Options = Callable[[Inputs], dict[str, Any]]


def _nothing(x: Inputs) -> dict[str, Any]:
    return {}


def _with_temperature(x: Inputs) -> dict[str, Any]:
    return {"temperature": x.extras[0]}


def _with_values(x: Inputs) -> dict[str, Any]:
    """Bias and softcap."""
    return {"bias": _bias(x), "softcap": 30.0}


def _noise(x: Inputs, options: dict[str, Any]) -> Tensor:
    """[S, ...]: each in the middle of its token's interval, so that no rounding draws another."""
    tokens = x.tokens if x.tokens.dim() == x.logits.dim() else x.tokens[None]
    noise = ((tokens.double() + 0.37).sin() * 7919).remainder(1)
    policy = (options.get("bias"), options.get("softcap", 0.0))
    u, _, _ = scaled(x.logits.double(), None, options.get("temperature"), x.mask, *policy)
    upper = u.detach().softmax(-1).cumsum(-1)
    at = noise[..., None] * upper[..., -1:]
    above = torch.where(upper > at, upper, torch.inf).amin(-1)
    below = torch.where(upper > at, 0.0, upper).amax(-1)
    return (above + below) / (2 * upper[..., -1])


def _shaped(x: Inputs, logp: Tensor, entropy: Tensor) -> Outputs:
    return (logp if x.tokens.dim() == x.logits.dim() else logp[0]), entropy


def _run(x: Inputs, options: dict[str, Any]) -> Outputs:
    outputs, noise = ("logp", "entropy"), _noise(x, options)
    drawn = pgest.sample(x.logits, len(noise), outputs=outputs, mask=x.mask, noise=noise, **options)
    assert drawn.logp is not None
    assert drawn.entropy is not None
    return _shaped(x, drawn.logp, drawn.entropy)


def _tokens(x: Inputs, options: dict[str, Any]) -> Tensor:
    """What the definition draws from logits in float64, so that all dtypes score the same."""
    noise = _noise(x, options)
    bias, softcap = options.get("bias"), options.get("softcap", 0.0)
    with torch.no_grad():
        policy = (bias, softcap, options.get("temperature"), None, x.mask)
        logits, count = x.logits.double(), len(noise)
        return reference.sample(logits, *policy, noise, "independent", count)[0]


def _define(x: Inputs, options: dict[str, Any]) -> Outputs:
    given = StatsInput(x.logits, _tokens(x, options), mask=x.mask, **options)
    stats = reference.token_stats(given)
    assert stats.logp is not None
    return _shaped(x, stats.logp, stats.entropy)


def _plain(x: Inputs, options: dict[str, Any]) -> Outputs:
    """What people write today, in the dtype of the logits."""
    u = x.logits
    if "softcap" in options:
        u = 30.0 * torch.tanh((u + options["bias"].to(u.dtype)) / 30.0)
    if "temperature" in options:
        u = u / options["temperature"].to(u.dtype)[..., None]
    log_p = u.log_softmax(-1)
    logp = log_p.gather(-1, _tokens(x, options).movedim(0, -1)).movedim(-1, 0)
    surprise = torch.where(log_p == -torch.inf, 0.0, log_p)
    return _shaped(x, logp, -(log_p.exp() * surprise).sum(-1))


def _raw_args(x: Inputs, options: dict[str, Any]) -> tuple[Any, ...]:
    noise = _noise(x, options)
    temperature = options.get("temperature")
    if temperature is not None:
        temperature = temperature.double()
    bias = options.get("bias")
    if bias is not None:
        bias = bias.detach().requires_grad_()
    policy = (bias, options.get("softcap", 0.0), temperature, None, x.mask)
    return (x.logits, *policy, noise, METHODS.index("independent"), len(noise), True)


def _raw_backward_args(x: Inputs, options: dict[str, Any]) -> tuple[Any, ...]:
    args = _raw_args(x, options)
    results = [r.detach() for r in torch.ops.pgest.sample(*args)]
    given = StatsInput(args[0], results[2], *args[1:6])
    logp, entropy = (torch.ones_like(r, requires_grad=True) for r in results[:2])
    grads = reference.StatsGrads(logp, entropy)
    return (*given, results[4], *grads, "temperature" in options)


def _row(name: str, options: Options, extras: Any, compile_backend: str) -> Op:
    return Op(
        name=name,
        run=lambda x: _run(x, options(x)),
        define=lambda x: _define(x, options(x)),
        plain=lambda x: _plain(x, options(x)),
        extras=extras,
        raw="sample",
        raw_args=lambda x: _raw_args(x, options(x)),
        raw_backward="token_stats_backward",
        raw_backward_args=lambda x: _raw_backward_args(x, options(x)),
        compile_backend=compile_backend,
        slack=2.0,  # what is drawn is likely: results are small next to what is rounded
    )


ROWS = (
    _row("sample", _nothing, lambda batch, dtype: (), "inductor"),
    _row("sample with temperature", _with_temperature, _temperature, "aot_eager"),
    _row("sample with bias and softcap", _with_values, _temperature, "aot_eager"),
)
