"""token_stats in torch's library: schemas, what runs without a compiled kernel, fake kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pgest import reference
from pgest.ops.library import define, tell_once


def _outputs(logits: Tensor, tokens: Tensor | None, entropy: bool) -> tuple[Tensor, ...]:
    dtype, batch = reference.statistics_dtype(logits), logits.shape[:-1]
    return (
        logits.new_empty((0,) if tokens is None else tokens.shape, dtype=dtype),
        logits.new_empty(batch if entropy else (0,), dtype=dtype),
        logits.new_empty(batch, dtype=dtype),
        logits.new_empty((3, *batch), dtype=torch.float64),
    )


def _token_stats(
    logits: Tensor,
    tokens: Tensor | None,
    temperature: Tensor | None,
    mask: Tensor | None,
    entropy: bool,
) -> tuple[Tensor, ...]:
    tell_once()
    _check_values(logits, tokens, temperature, mask)
    with torch.no_grad():
        values = reference.token_stats(logits, tokens, temperature, mask)
    outputs = _outputs(logits, tokens, entropy)
    for output, value in zip(outputs, values, strict=False):
        if output.shape != (0,) and value is not None:
            output.copy_(value)
    outputs[3].zero_()  # the reference's backward starts from the logits
    return outputs


def _check_values(
    logits: Tensor, tokens: Tensor | None, temperature: Tensor | None, mask: Tensor | None
) -> None:
    """What the CPU kernels refuse; elsewhere a check would synchronise."""
    if logits.device.type != "cpu":
        return
    live = torch.ones(logits.shape[:-1], dtype=torch.bool) if mask is None else mask
    if temperature is not None:
        bad = live & ~((temperature > 0) & temperature.isfinite())
        if bad.any():
            row = int(bad.flatten().nonzero()[0])
            value = temperature.flatten()[row].item()
            raise ValueError(f"temperature must be positive and finite, got {value} in row {row}")
    if tokens is not None:
        bad = live & ((tokens < 0) | (tokens >= logits.shape[-1]))
        if bad.any():
            raise ValueError(
                f"tokens must be in [0, {logits.shape[-1]}) like the last dimension of logits, "
                f"got {tokens[bad][0].item()}"
            )


def _upstream(logits: Tensor, mask: Tensor | None, grads: tuple[Tensor | None, ...]) -> Tensor:
    """The rows [...] that are live and have a gradient."""
    read = torch.zeros(logits.shape[:-1], dtype=torch.bool, device=logits.device)
    for grad in grads:
        if grad is not None:
            read = read | ((grad != 0).any(0) if grad.dim() == logits.dim() else grad != 0)
    return read if mask is None else read & mask


def _token_stats_backward(
    logits: Tensor,
    tokens: Tensor | None,
    temperature: Tensor | None,
    mask: Tensor | None,
    state: Tensor,
    grad_logp: Tensor | None,
    grad_entropy: Tensor | None,
    grad_lse: Tensor | None,
    by_temperature: bool,
) -> tuple[Tensor, Tensor]:
    tell_once()
    with torch.no_grad():
        grads = (grad_logp, grad_entropy, grad_lse)
        # A row without a gradient stays 0 even where it holds a NaN, as in the kernels: a loss may
        # mask it afterwards. Not in the definition: the second order needs these rows.
        read = _upstream(logits, mask, grads)
        grad_logits, grad_temperature = reference.token_stats_backward(
            logits, tokens, temperature, read, *grads
        )
    if grad_temperature is None or not by_temperature:
        grad_temperature = logits.new_empty(0)
    return grad_logits.contiguous(), grad_temperature.to(torch.float64)


def _token_stats_backward_(logits: Tensor, *args: Any) -> Tensor:
    grad_logits, grad_temperature = _token_stats_backward(logits, *args)
    logits.copy_(grad_logits)
    return grad_temperature


def _fake(
    logits: Tensor,
    tokens: Tensor | None,
    temperature: Tensor | None,
    mask: Tensor | None,
    entropy: bool,
) -> tuple[Tensor, ...]:
    return _outputs(logits, tokens, entropy)


def _fake_grad_temperature(logits: Tensor, by_temperature: bool) -> Tensor:
    return logits.new_empty(logits.shape[:-1] if by_temperature else (0,), dtype=torch.float64)


def _fake_backward(logits: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    return logits.new_empty(logits.shape), _fake_grad_temperature(logits, args[-1])


def _fake_backward_(logits: Tensor, *args: Any) -> Tensor:
    return _fake_grad_temperature(logits, args[-1])


_ARGUMENTS = "Tensor? tokens, Tensor? temperature, Tensor? mask"
_GRADIENTS = (
    "Tensor state, Tensor? grad_logp, Tensor? grad_entropy, Tensor? grad_lse, bool by_temperature"
)
define(
    f"token_stats(Tensor logits, {_ARGUMENTS}, bool entropy)"
    " -> (Tensor logp, Tensor entropy, Tensor lse, Tensor state)",
    _token_stats,
    _fake,
)
define(
    f"token_stats_backward(Tensor logits, {_ARGUMENTS}, {_GRADIENTS})"
    " -> (Tensor grad_logits, Tensor grad_temperature)",
    _token_stats_backward,
    _fake_backward,
)
define(
    f"token_stats_backward_(Tensor(a!) logits, {_ARGUMENTS}, {_GRADIENTS})"
    " -> Tensor grad_temperature",
    _token_stats_backward_,
    _fake_backward_,
)
