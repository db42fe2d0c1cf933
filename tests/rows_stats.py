"""token_stats in the op table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from op_row import Inputs, Op, Outputs
from torch import Tensor

import pgest
from pgest import reference
from pgest.ops.stats.kernel import BITS
from pgest.reference import StatsInput, rows, statistics_dtype

Options = Callable[[Inputs], dict[str, Any]]
THREE = ("logp", "entropy", "lse")
COMPARED = ("entropy", "kl", "reverse_kl", "value")


def _temperature(batch: torch.Size, dtype: torch.dtype) -> tuple[Tensor, ...]:
    rows = torch.arange(1, batch.numel() + 1, dtype=torch.float64).view(batch)
    return (0.5 + rows / max(1, batch.numel()),)


def _nothing(x: Inputs) -> dict[str, Any]:
    return {}


def _with_temperature(x: Inputs) -> dict[str, Any]:
    return {"temperature": x.extras[0]}


def _bias(x: Inputs) -> Tensor:
    """A number for each token: those of the rows and 1, over and over."""
    vocab, few = x.logits.shape[-1], torch.cat([x.extras[0].flatten(), torch.ones(1).double()])
    return few.to(statistics_dtype(x.logits)).repeat(vocab // len(few) + 1)[:vocab]


def _with_values(x: Inputs) -> dict[str, Any]:
    """Bias, softcap and a threshold below every chosen token."""
    bias = _bias(x)
    many = x.tokens.dim() == x.logits.dim()
    index = x.tokens.movedim(0, -1) if many else x.tokens[..., None]
    if x.mask is not None:
        index = torch.where(x.mask[..., None], index, 0)
    v = rows.values(x.logits.detach(), bias.detach(), 30.0)
    lowest = v.gather(-1, index).amin(-1).double() - 0.25
    return {"bias": bias, "softcap": 30.0, "threshold": lowest}


def _compared(x: Inputs) -> dict[str, Any]:
    """A reference policy and dense rewards, exact in every dtype, beside a temperature."""
    z, place = x.logits.detach(), torch.arange(x.logits.shape[-1])
    theirs = ((7 * place) % 5 / 2 - 1).to(z.dtype)
    rewards = torch.cos(place.double()).to(statistics_dtype(z)).expand(z.shape)
    return {
        "temperature": x.extras[0],
        "reference_logits": torch.where(z == -torch.inf, z, theirs),
        "values": rewards,
    }


def _few_values(x: Inputs) -> dict[str, Any]:
    """Rewards of three tokens a row, two of which are the same."""
    vocab, shape = x.logits.shape[-1], (*x.logits.shape[:-1], 3)
    few = torch.tensor([0.5, -1.0, 2.0], dtype=statistics_dtype(x.logits))
    tokens = torch.tensor([2 % vocab, vocab // 2, 2 % vocab])
    return {
        "temperature": x.extras[0],
        "values": few.expand(shape),
        "value_tokens": tokens.expand(shape),
    }


def _given(x: Inputs, options: dict[str, Any]) -> StatsInput:
    return StatsInput(x.logits, x.tokens, mask=x.mask, **options)


def _run(x: Inputs, outputs: tuple[str, ...], options: dict[str, Any]) -> Outputs:
    stats = pgest.token_stats(x.logits, x.tokens, outputs=outputs, mask=x.mask, **options)
    return tuple(getattr(stats, name) for name in outputs)


def _define(x: Inputs, outputs: tuple[str, ...], options: dict[str, Any]) -> Outputs:
    stats = reference.token_stats(_given(x, options))
    return tuple(getattr(stats, name) for name in outputs)


def _plain(x: Inputs, outputs: tuple[str, ...], options: dict[str, Any]) -> Outputs:
    """What people write today, in the dtype of the logits."""
    dtype = x.logits.dtype
    scale = options.get("temperature", torch.ones(())).to(dtype)
    u = x.logits
    if "softcap" in options:
        u = 30.0 * torch.tanh((u + options["bias"].to(dtype)) / 30.0)
        u = u.masked_fill(u < options["threshold"][..., None], -torch.inf)
    u = u / scale[..., None]
    log_p = u.log_softmax(-1)
    many = x.tokens.dim() == u.dim()
    index = x.tokens.movedim(0, -1) if many else x.tokens[..., None]
    logp = log_p.gather(-1, index)
    surprise = torch.where(log_p == -torch.inf, 0.0, log_p)
    stats = {
        "logp": logp.movedim(-1, 0) if many else logp[..., 0],
        "entropy": -(log_p.exp() * surprise).sum(-1),
        "lse": u.logsumexp(-1),
    }
    if "reference_logits" in options:
        log_q = (options["reference_logits"] / scale[..., None]).log_softmax(-1)
        stats["kl"] = (log_p.exp() * (log_p - log_q)).sum(-1)
        stats["reverse_kl"] = (log_q.exp() * (log_q - log_p)).sum(-1)
    if "value_tokens" in options:
        p = log_p.exp().gather(-1, options["value_tokens"])
        stats["value"] = (p * options["values"].to(dtype)).sum(-1)
    elif "values" in options:
        stats["value"] = (log_p.exp() * options["values"].to(dtype)).sum(-1)
    return tuple(stats[name] for name in outputs)


def _raw_args(x: Inputs, outputs: tuple[str, ...], options: dict[str, Any]) -> tuple[Any, ...]:
    given = _given(x, options)
    if given.temperature is not None:
        given = given._replace(temperature=given.temperature.double())
    if given.bias is not None:
        given = given._replace(bias=given.bias.detach().requires_grad_())
    return (*given, sum(BITS[name] for name in outputs))


def _raw_backward_args(
    x: Inputs, outputs: tuple[str, ...], options: dict[str, Any]
) -> tuple[Any, ...]:
    args = _raw_args(x, outputs, options)
    *stats, state = (r.detach() for r in torch.ops.pgest.token_stats(*args))
    ones = {n: torch.ones_like(s, requires_grad=True) for n, s in zip(outputs, stats, strict=True)}
    grads = [ones.get(name) for name in reference.StatsGrads._fields]
    return (*args[:-1], state, *grads, "temperature" in options)


def _row(
    name: str,
    outputs: tuple[str, ...],
    options: Options,
    extras: Callable[[torch.Size, torch.dtype], tuple[Tensor, ...]] = _temperature,
    compile_backend: str = "aot_eager",
) -> Op:
    return Op(
        name=name,
        run=lambda x: _run(x, outputs, options(x)),
        define=lambda x: _define(x, outputs, options(x)),
        plain=lambda x: _plain(x, outputs, options(x)),
        extras=extras,
        raw="token_stats",
        raw_args=lambda x: _raw_args(x, outputs, options(x)),
        raw_backward="token_stats_backward",
        raw_backward_args=lambda x: _raw_backward_args(x, outputs, options(x)),
        compile_backend=compile_backend,
    )


# Logits as they are, whose first outputs are logp, entropy and lse.
PLAIN = (
    _row("token_stats", THREE, _nothing, lambda batch, dtype: (), "inductor"),
    _row("token_stats with temperature", THREE, _with_temperature),
)
ROWS = (
    *PLAIN,
    _row("token_stats with bias, softcap and threshold", THREE, _with_values),
    _row("token_stats with divergences and values", ("logp", *COMPARED), _compared),
    _row("token_stats with values of tokens", ("logp", "value"), _few_values),
)
