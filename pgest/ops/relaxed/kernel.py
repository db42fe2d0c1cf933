"""Relaxed and straight-through samples in torch's library: schemas, fallbacks, fake kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from pgest import reference
from pgest.ops import checks
from pgest.ops.library import define, tell_once


def _gumbel(logits: Tensor, seed: Tensor | None, noise: Tensor | None) -> Tensor:
    if noise is None:
        assert seed is not None
        return reference.gumbel_noise(seed, logits.shape[:-1], logits.shape[-1])
    if noise.device.type == "cpu":
        bad = ~((noise >= 0) & (noise < 1))
        if bad.any():
            row = int(bad.flatten(end_dim=-2).any(-1).nonzero()[0]) if noise.dim() > 1 else 0
            raise ValueError(f"noise must be uniforms in [0, 1), got others in row {row}")
    return reference.gumbel_of(noise)


def _gumbel_softmax(
    logits: Tensor,
    temperature: Tensor | None,
    seed: Tensor | None,
    noise: Tensor | None,
    hard: bool,
) -> Tensor:
    tell_once()
    checks.temperature_values(temperature, logits, name="tau")
    with torch.no_grad():
        gumbel = _gumbel(logits, seed, noise)
        return reference.gumbel_softmax(logits, temperature, gumbel, hard).contiguous()


def _gumbel_softmax_backward(
    soft: Tensor, grad: Tensor, temperature: Tensor | None, by_temperature: bool
) -> tuple[Tensor, Tensor]:
    tell_once()
    with torch.no_grad():
        grad_logits, by_t = reference.softmax_backward(soft, grad, temperature)
        # A row without a gradient stays 0 even where it holds a NaN, as in the kernels: a loss may
        # mask it afterwards.
        silent = (grad == 0).all(-1)
        grad_logits = torch.where(silent[..., None], 0.0, grad_logits)
        by_t = None if by_t is None else torch.where(silent, 0.0, by_t)
    if by_t is None or not by_temperature:
        by_t = soft.new_empty(0)
    return grad_logits.contiguous(), by_t.to(torch.float64)


def _gumbel_softmax_hard_backward(
    logits: Tensor,
    temperature: Tensor | None,
    seed: Tensor | None,
    noise: Tensor | None,
    grad: Tensor,
    by_temperature: bool,
) -> tuple[Tensor, Tensor]:
    soft = _gumbel_softmax(logits, temperature, seed, noise, False)
    return _gumbel_softmax_backward(soft, grad, temperature, by_temperature)


def _like(logits: Tensor, *args: object) -> Tensor:
    return logits.new_empty(logits.shape)


def _fake_backward(logits: Tensor, *args: object) -> tuple[Tensor, Tensor]:
    shape = logits.shape[:-1] if args[-1] else (0,)
    return _like(logits), logits.new_empty(shape, dtype=torch.float64)


def _straight_through(
    logits: Tensor, sample: Tensor, temperature: Tensor | None, jacobian: str
) -> tuple[Tensor, Tensor]:
    tell_once()
    checks.temperature_values(temperature, logits)
    vocab = logits.shape[-1]
    tokens = sample if sample.dtype == torch.int64 else sample.argmax(-1)
    if sample.device.type == "cpu":
        _check_sample(sample, tokens, vocab)
    return reference.one_hot(tokens, vocab, logits.dtype), tokens.clone().contiguous()


def _check_sample(sample: Tensor, tokens: Tensor, vocab: int) -> None:
    if sample.dtype == torch.int64:
        bad = (tokens < 0) | (tokens >= vocab)
        rule = f"have tokens in [0, {vocab}), got another"
    else:
        bad = (sample != reference.one_hot(tokens, vocab, sample.dtype)).any(-1)
        rule = "be one-hot, zeros but for a single 1, got another row"
    if bad.any():
        row = int(bad.flatten().nonzero()[0])
        where = f" in row {row}" if sample.dtype == torch.int64 else f" {row}"
        raise ValueError(f"sample must {rule}{where}")


def _fake_straight_through(logits: Tensor, *args: object) -> tuple[Tensor, Tensor]:
    return _like(logits), logits.new_empty(logits.shape[:-1], dtype=torch.int64)


def _straight_through_backward(
    logits: Tensor, tokens: Tensor, temperature: Tensor | None, grad: Tensor, jacobian: str
) -> Tensor:
    tell_once()
    with torch.no_grad():
        silent = (grad == 0).all(-1, keepdim=True)
        logits = torch.where(silent, 0.0, logits)
        args = (logits, tokens, temperature, grad, jacobian)
        return reference.straight_through_backward(*args).contiguous()


_NOISY = "Tensor logits, Tensor? temperature, Tensor? seed, Tensor? noise"
define(f"gumbel_softmax({_NOISY}, bool hard) -> Tensor", _gumbel_softmax, _like)
define(
    "gumbel_softmax_backward(Tensor soft, Tensor grad, Tensor? temperature, bool by_temperature)"
    " -> (Tensor grad_logits, Tensor grad_temperature)",
    _gumbel_softmax_backward,
    _fake_backward,
)
define(
    f"gumbel_softmax_hard_backward({_NOISY}, Tensor grad, bool by_temperature)"
    " -> (Tensor grad_logits, Tensor grad_temperature)",
    _gumbel_softmax_hard_backward,
    _fake_backward,
)
define(
    "straight_through(Tensor logits, Tensor sample, Tensor? temperature, str jacobian)"
    " -> (Tensor one_hot, Tensor tokens)",
    _straight_through,
    _fake_straight_through,
)
define(
    "straight_through_backward(Tensor logits, Tensor tokens, Tensor? temperature, Tensor grad,"
    " str jacobian) -> Tensor grad_logits",
    _straight_through_backward,
    _like,
)
