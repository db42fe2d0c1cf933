"""Statistics of chosen tokens and of whole rows of logits, and their gradient."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pgest.reference import rows


class StatsInput(NamedTuple):
    """What `token_stats` reads, in the order of the op's schema.

    logits [..., V]; tokens [...] or [S, ...]; bias [V]; softcap, 0 for none; temperature, threshold
    and mask [...]; reference_logits [..., V]; values [..., V], or [..., K] for the K value_tokens
    of a row.
    """

    logits: Tensor
    tokens: Tensor | None = None
    bias: Tensor | None = None
    softcap: float = 0.0
    temperature: Tensor | None = None
    threshold: Tensor | None = None
    mask: Tensor | None = None
    reference_logits: Tensor | None = None
    values: Tensor | None = None
    value_tokens: Tensor | None = None


class Stats(NamedTuple):
    """Every statistic, in the order of the op's `outputs`; None where its input is missing."""

    logp: Tensor | None
    entropy: Tensor
    lse: Tensor
    kl: Tensor | None
    reverse_kl: Tensor | None
    value: Tensor | None
    argmax: Tensor
    rank: Tensor | None


class StatsGrads(NamedTuple):
    """Upstream gradients of the differentiable statistics."""

    logp: Tensor | None = None
    entropy: Tensor | None = None
    lse: Tensor | None = None
    kl: Tensor | None = None
    reverse_kl: Tensor | None = None
    value: Tensor | None = None


def token_stats(given: StatsInput) -> Stats:
    """Every statistic of rows of logits, with p = softmax(u) and q = softmax(reference_logits / T).

        logp = u_y - lse,  H = -sum_j p_j log p_j,  lse = log sum_j exp(u_j),
        kl = sum_j p_j (log p_j - log q_j),  reverse_kl = sum_j q_j (log q_j - log p_j),
        value = sum_j p_j r_j,  argmax = the first largest v,  rank = how many v_j exceed v_y

    u and v are those of `rows`: bias, softcap, threshold and temperature are in them.

    Returns:
        logp and rank shaped like the tokens, the rest [...]. Differentiable in logits, bias and
        temperature, to any order. Memory: some temporaries of the size of the logits.
    """
    x = _harmless(given)
    u, _ = _scaled(x)
    log_p = u.log_softmax(-1)
    p = log_p.exp()
    lse = u.logsumexp(-1)
    lse = torch.where(lse == torch.inf, torch.nan, lse)
    kl = reverse_kl = value = None
    if x.reference_logits is not None:
        log_q = _scaled_reference(x)[0].log_softmax(-1)
        kl, reverse_kl = _divergence(log_p, log_q), _divergence(log_q, log_p)
    if x.values is not None:
        value = (p * _rewards(x, u)).sum(-1)
    v = rows.values(x.logits, x.bias, x.softcap, x.threshold)
    stats = Stats(
        logp=None if x.tokens is None else _gather(log_p, x.tokens),
        entropy=-(p * torch.where(p == 0, 0.0, log_p)).sum(-1),
        lse=lse,
        kl=kl,
        reverse_kl=reverse_kl,
        value=value,
        argmax=v.argmax(-1),
        rank=None if x.tokens is None else _rank(v, x.tokens),
    )
    if x.mask is None:
        return stats
    there = {name: s for name, s in stats._asdict().items() if s is not None}
    return stats._replace(**{name: torch.where(x.mask, s, 0) for name, s in there.items()})


def token_stats_backward(given: StatsInput, grads: StatsGrads) -> tuple[Tensor, Tensor | None]:
    """Gradient of `token_stats` for logits and temperature, in closed form.

    With w_s the gradient for logp_s and h, l, k, b, e those for entropy, lse, kl, reverse_kl and
    value:

        c_j  = -h log p_j + k (log p_j - log q_j) + e r_j
        du_j = sum_s w_s (j == y_s) + p_j (c_j - cbar) - b q_j,
        cbar = sum_s w_s - l - b + sum_k p_k c_k
        dz_j = du_j / T dv_j/dz_j,   dT = -(1/T) [ sum_j u_j du_j + sum_j u'_j du'_j ]

    with u' = reference_logits / T, du'_j = k (q_j - p_j) + b q_j (log q_j - log p_j - reverse_kl).

    Returns:
        A gradient like `logits`, whose sum over the rows is that for bias, and one of shape [...],
        or None without a temperature. Both are differentiable in logits, bias, temperature and
        upstream gradients, to any order.
    """
    x = _harmless(given)
    u, finite = _scaled(x)
    log_p = u.log_softmax(-1)
    p = log_p.exp()
    c, du, by_reference = torch.zeros_like(p), torch.zeros_like(p), None
    if grads.entropy is not None:
        c = c - grads.entropy[..., None] * torch.where(p == 0, 0.0, log_p)
    if grads.value is not None:
        c = c + grads.value[..., None] * _rewards(x, u)
    if grads.lse is not None:
        du = du + grads.lse[..., None] * p
    if grads.kl is not None or grads.reverse_kl is not None:
        by_c, by_u, by_reference = _by_divergences(x, grads, log_p)
        c, du = c + by_c, du + by_u
    du = du + torch.where(p == 0, 0.0, p * (c - (p * c).sum(-1, keepdim=True)))
    if grads.logp is not None and x.tokens is not None:
        w = grads.logp if grads.logp.dim() == u.dim() else grads.logp[None]
        du = (du - w.sum(0)[..., None] * p).scatter_add(-1, _last(x.tokens, u), w.movedim(0, -1))
    dz = du * rows.slopes(x.logits, x.bias, x.softcap, x.threshold)
    if x.mask is not None:
        dz, du = (torch.where(x.mask[..., None], d, 0.0) for d in (dz, du))
    if x.temperature is None:
        return dz.to(x.logits.dtype), None
    inverse = 1 / x.temperature.to(u.dtype).expand(u.shape[:-1])
    total = (finite * du).sum(-1)
    if by_reference is not None:
        total = total + (by_reference if x.mask is None else torch.where(x.mask, by_reference, 0.0))
    return (dz * inverse[..., None]).to(x.logits.dtype), -total * inverse


def _by_divergences(
    x: StatsInput, grads: StatsGrads, log_p: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What kl and reverse_kl add to c and to du, and sum_j u'_j du'_j."""
    w, finite = _scaled_reference(x)
    log_q = w.log_softmax(-1)
    p, q = log_p.exp(), log_q.exp()
    none = torch.zeros(x.logits.shape[:-1], dtype=p.dtype, device=p.device)
    k = (none if grads.kl is None else grads.kl)[..., None]
    b = (none if grads.reverse_kl is None else grads.reverse_kl)[..., None]
    by_kl = _log_ratio(log_p, log_q, k)
    by_reverse = _log_ratio(log_q, log_p, b)
    by_reverse = by_reverse - (q * by_reverse).sum(-1, keepdim=True)
    dw = k * (q - p) + torch.where(q == 0, 0.0, b * q * by_reverse)
    return k * by_kl, b * (p - q), (finite * dw).sum(-1)


def _log_ratio(log_a: Tensor, log_b: Tensor, weight: Tensor) -> Tensor:
    """log a - log b; 0 where a = 0, and where an infinite one has no weight."""
    ratio = torch.where(log_a.exp() == 0, 0.0, log_a - log_b)
    return torch.where(ratio.isinf() & (weight == 0), 0.0, ratio)


def _harmless(x: StatsInput) -> StatsInput:
    """The same with masked rows that harm nothing."""
    if x.mask is None:
        return x
    mask = x.mask

    def fill(t: Tensor | None, value: float, columns: bool = False) -> Tensor | None:
        keep = mask[..., None] if columns else mask
        return None if t is None else torch.where(keep, t, value)

    return x._replace(
        logits=torch.where(mask[..., None], x.logits, 0.0),
        tokens=fill(x.tokens, 0),
        temperature=fill(x.temperature, 1.0),
        threshold=fill(x.threshold, -torch.inf),
        reference_logits=fill(x.reference_logits, 0.0, columns=True),
        values=fill(x.values, 0.0, columns=True),
        value_tokens=fill(x.value_tokens, 0, columns=True),
    )


def _scaled(x: StatsInput) -> tuple[Tensor, Tensor]:
    """u, and u with 0 for -inf."""
    u, _, finite = rows.scaled(x.logits, None, x.temperature, None, x.bias, x.softcap, x.threshold)
    return u, finite


def _scaled_reference(x: StatsInput) -> tuple[Tensor, Tensor]:
    assert x.reference_logits is not None
    u, _, finite = rows.scaled(x.reference_logits, None, x.temperature, None)
    return u, finite


def _divergence(log_a: Tensor, log_b: Tensor) -> Tensor:
    """KL(a||b); a term with a_j = 0 is 0."""
    a = log_a.exp()
    return (a * torch.where(a == 0, 0.0, log_a - log_b)).sum(-1)


def _rewards(x: StatsInput, u: Tensor) -> Tensor:
    """Rewards [..., V], 0 of what is impossible; NaN in a row where one is not finite otherwise.

    Those of value_tokens add up, all others are 0.
    """
    assert x.values is not None
    values = x.values.to(u.dtype)
    if x.value_tokens is not None:
        values = torch.zeros_like(u).scatter_add(-1, x.value_tokens, values)
    values = torch.where(u == -torch.inf, 0.0, values)
    return torch.where(values.isfinite().all(-1, keepdim=True), values, torch.nan)


def _rank(v: Tensor, tokens: Tensor) -> Tensor:
    """How many values exceed those of the tokens; NaN exceeds everything."""
    chosen = v.gather(-1, _last(tokens, v))
    larger = torch.stack([(~(v <= c)).sum(-1) for c in chosen.split(1, -1)])
    return larger if tokens.dim() == v.dim() else larger[0]


def _last(tokens: Tensor, u: Tensor) -> Tensor:
    """Tokens [...] or [S, ...] as [..., S], the layout of gather and scatter."""
    return (tokens if tokens.dim() == u.dim() else tokens[None]).movedim(0, -1)


def _gather(log_p: Tensor, tokens: Tensor) -> Tensor:
    chosen = log_p.gather(-1, _last(tokens, log_p)).movedim(-1, 0)
    return chosen if tokens.dim() == log_p.dim() else chosen[0]
