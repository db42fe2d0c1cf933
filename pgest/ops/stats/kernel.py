"""token_stats in torch's library: schemas, what runs without a compiled kernel, fake kernels.

`outputs` is a set of bits in the order of `OUTPUTS`; the op returns what they ask for, in that
order, and then its state, which only the backward reads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pgest import reference
from pgest.ops import checks
from pgest.ops.library import define, tell_once
from pgest.reference import StatsGrads, StatsInput

OUTPUTS = (*StatsGrads._fields, "argmax", "rank")
BITS = {name: 1 << i for i, name in enumerate(OUTPUTS)}
DIFFERENTIABLE = (1 << len(StatsGrads._fields)) - 1
BY_TOKEN = BITS["logp"] | BITS["rank"]
PAIR = BITS["kl"] | BITS["reverse_kl"] | BITS["value"]

# The bits of names in their usual order, looked up because tiny inputs feel a loop over them.
SETS = {tuple(n for n in OUTPUTS if bits & BITS[n]): bits for bits in range(1, 1 << len(OUTPUTS))}


def asked(outputs: int) -> list[str]:
    """The names that the bits stand for."""
    return [name for name in OUTPUTS if outputs & BITS[name]]


def _empty(x: StatsInput, outputs: int) -> list[Tensor]:
    """Fresh results."""
    batch, results = x.logits.shape[:-1], []
    for name in asked(outputs):
        shape = batch
        if name in ("logp", "rank"):
            assert x.tokens is not None
            shape = x.tokens.shape
        integer = name in ("argmax", "rank")
        dtype = torch.int64 if integer else reference.statistics_dtype(x.logits)
        results.append(x.logits.new_empty(shape, dtype=dtype))
    rows = 8 if outputs & PAIR else 3
    return [*results, x.logits.new_empty((rows, *batch), dtype=torch.float64)]


def _token_stats(*args: Any) -> list[Tensor]:
    tell_once()
    x, outputs = StatsInput(*args[:-1]), args[-1]
    check_values(x)
    with torch.no_grad():
        stats = reference.token_stats(x)
    results = _empty(x, outputs)
    for result, name in zip(results, asked(outputs), strict=False):
        result.copy_(getattr(stats, name))
    results[-1].zero_()  # the reference's backward starts from the logits
    return results


def check_values(x: StatsInput, of: checks.Words = checks.LOGITS) -> None:
    """What the CPU kernels refuse; elsewhere a check would synchronise."""
    if x.logits.device.type != "cpu":
        return
    vocab = x.logits.shape[-1]
    live = torch.ones(x.logits.shape[:-1], dtype=torch.bool) if x.mask is None else x.mask
    if x.temperature is not None:
        checks.temperature_values(x.temperature, x.logits, x.mask)
    for name in ("tokens", "value_tokens"):
        tokens = getattr(x, name)
        if tokens is not None:
            alive = live[..., None] if name == "value_tokens" else live
            bad = alive & ((tokens < 0) | (tokens >= vocab))
            if bad.any():
                raise ValueError(
                    f"{name} must be in [0, {vocab}) like {of.vocabulary}, "
                    f"got {tokens[bad][0].item()}"
                )


def _any(x: StatsInput, grads: tuple[Tensor | None, ...]) -> Tensor:
    """The rows [...] where a gradient is not 0."""
    found = torch.zeros(x.logits.shape[:-1], dtype=torch.bool, device=x.logits.device)
    for grad in grads:
        if grad is not None:
            found = found | ((grad != 0).any(0) if grad.dim() == x.logits.dim() else grad != 0)
    return found


def _token_stats_backward(*args: Any) -> tuple[Tensor, Tensor]:
    tell_once()
    n = len(StatsInput._fields)
    x, grads, by_temperature = StatsInput(*args[:n]), StatsGrads(*args[n + 1 : -1]), args[-1]
    with torch.no_grad():
        # What has no gradient stays 0 even where it holds a NaN, as in the kernels: a loss may mask
        # it afterwards. Not in the definition: the second order needs these rows.
        read = _any(x, grads) if x.mask is None else _any(x, grads) & x.mask
        if x.reference_logits is not None:
            compared = _any(x, (grads.kl, grads.reverse_kl))[..., None]
            x = x._replace(reference_logits=torch.where(compared, x.reference_logits, 0.0))
        grad_logits, grad_temperature = reference.token_stats_backward(x._replace(mask=read), grads)
    if grad_temperature is None or not by_temperature:
        grad_temperature = x.logits.new_empty(0)
    return grad_logits.contiguous(), grad_temperature.to(torch.float64)


def _token_stats_backward_(logits: Tensor, *args: Any) -> Tensor:
    grad_logits, grad_temperature = _token_stats_backward(logits, *args)
    logits.copy_(grad_logits)
    return grad_temperature


def _token_stats_gradient(*args: Any) -> list[Tensor]:
    n = len(StatsInput._fields)
    given, grads, (outputs, by_temperature) = args[:n], args[n:-2], args[-2:]
    *stats, state = _token_stats(*given, outputs)
    return [*stats, *_token_stats_backward(*given, state, *grads, by_temperature)]


def _token_stats_gradient_(logits: Tensor, *args: Any) -> list[Tensor]:
    *stats, grad_logits, grad_temperature = _token_stats_gradient(logits, *args)
    logits.copy_(grad_logits)
    return [*stats, grad_temperature]


def _fake(*args: Any) -> list[Tensor]:
    return _empty(StatsInput(*args[:-1]), args[-1])


def _fake_grad_temperature(logits: Tensor, by_temperature: bool) -> Tensor:
    return logits.new_empty(logits.shape[:-1] if by_temperature else (0,), dtype=torch.float64)


def _fake_backward(logits: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    return logits.new_empty(logits.shape), _fake_grad_temperature(logits, args[-1])


def _fake_backward_(logits: Tensor, *args: Any) -> Tensor:
    return _fake_grad_temperature(logits, args[-1])


def _fake_gradient(*args: Any) -> list[Tensor]:
    *stats, _ = _empty(StatsInput(*args[: len(StatsInput._fields)]), args[-2])
    return [*stats, *_fake_backward(args[0], args[-1])]


def _fake_gradient_(*args: Any) -> list[Tensor]:
    *stats, _, grad_temperature = _fake_gradient(*args)
    return [*stats, grad_temperature]


_ARGUMENTS = (
    "Tensor? tokens, Tensor? bias, float softcap, Tensor? temperature, Tensor? threshold, "
    "Tensor? mask, Tensor? reference_logits, Tensor? values, Tensor? value_tokens"
)
_GRADIENTS = ", ".join(f"Tensor? grad_{name}" for name in StatsGrads._fields)
define(f"token_stats(Tensor logits, {_ARGUMENTS}, int outputs) -> Tensor[]", _token_stats, _fake)
define(
    f"token_stats_backward(Tensor logits, {_ARGUMENTS}, Tensor state, {_GRADIENTS}, "
    "bool by_temperature) -> (Tensor grad_logits, Tensor grad_temperature)",
    _token_stats_backward,
    _fake_backward,
)
define(
    f"token_stats_backward_(Tensor(a!) logits, {_ARGUMENTS}, Tensor state, {_GRADIENTS}, "
    "bool by_temperature) -> Tensor grad_temperature",
    _token_stats_backward_,
    _fake_backward_,
)
# Upstream gradients that are known before: what outputs ask for, then grad_logits, if not in place,
# and grad_temperature.
define(
    f"token_stats_gradient(Tensor logits, {_ARGUMENTS}, {_GRADIENTS}, int outputs, "
    "bool by_temperature) -> Tensor[]",
    _token_stats_gradient,
    _fake_gradient,
)
define(
    f"token_stats_gradient_(Tensor(a!) logits, {_ARGUMENTS}, {_GRADIENTS}, int outputs, "
    "bool by_temperature) -> Tensor[]",
    _token_stats_gradient_,
    _fake_gradient_,
)
