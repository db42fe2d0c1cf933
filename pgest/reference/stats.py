"""Log-probability, entropy and log-sum-exp of rows of logits, and their gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from pgest.reference.rows import scaled


def token_stats(
    logits: Tensor,
    tokens: Tensor | None = None,
    temperature: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Log-probability of `tokens`, entropy and log-sum-exp of each row of `logits`.

    logp = z_y / T - lse, H = -sum_j p_j log p_j, lse = log sum_j exp(z_j / T).

    Args:
        logits: [..., V].
        tokens: [...] or [S, ...], or None for no logp.
        temperature: broadcastable to [...]; None means 1.
        mask: [...], True counts.

    Returns:
        logp shaped like `tokens` (or None), entropy [...] and lse [...]. Differentiable in logits
        and temperature, to any order. Memory: a few temporaries of the size of `logits`.
    """
    u, tokens, _ = scaled(logits, tokens, temperature, mask)
    log_p = u.log_softmax(-1)
    p = log_p.exp()
    entropy = -(p * torch.where(p == 0, 0.0, log_p)).sum(-1)
    lse = u.logsumexp(-1)
    lse = torch.where(lse == torch.inf, torch.nan, lse)
    logp = None if tokens is None else _gather(log_p, tokens)
    if mask is not None:
        entropy, lse = torch.where(mask, entropy, 0.0), torch.where(mask, lse, 0.0)
        logp = None if logp is None else torch.where(mask, logp, 0.0)
    return logp, entropy, lse


def token_stats_backward(
    logits: Tensor,
    tokens: Tensor | None,
    temperature: Tensor | None,
    mask: Tensor | None,
    grad_logp: Tensor | None,
    grad_entropy: Tensor | None,
    grad_lse: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Gradient of `token_stats` for logits and temperature, in closed form.

    With w_s the gradient for logp_s, h for H and l for lse:

        dz_j = (1/T) [ sum_s w_s (j == y_s) + p_j (-h log p_j - cbar) ],  cbar = sum_s w_s - l + h H
        dT   = -(1/T) sum_j z_j dz_j

    Returns:
        A gradient like `logits`, and one of shape [...], or None without a temperature. Both are
        differentiable in everything but tokens and mask, to any order.
    """
    u, tokens, finite = scaled(logits, tokens, temperature, mask)
    log_p = u.log_softmax(-1)
    p = log_p.exp()
    du = torch.zeros_like(p)
    if grad_entropy is not None:
        log_p = torch.where(p == 0, 0.0, log_p)
        entropy = -(p * log_p).sum(-1, keepdim=True)
        du = du - grad_entropy[..., None] * p * (log_p + entropy)
    if grad_lse is not None:
        du = du + grad_lse[..., None] * p
    if grad_logp is not None and tokens is not None:
        w = grad_logp if grad_logp.dim() == u.dim() else grad_logp[None]
        du = (du - w.sum(0)[..., None] * p).scatter_add(-1, _last(tokens, u), w.movedim(0, -1))
    if mask is not None:
        du = torch.where(mask[..., None], du, 0.0)
    if temperature is None:
        return du.to(logits.dtype), None
    inverse = 1 / temperature.to(u.dtype).expand(u.shape[:-1])
    return (du * inverse[..., None]).to(logits.dtype), -(finite * du).sum(-1) * inverse


def _last(tokens: Tensor, u: Tensor) -> Tensor:
    """Tokens [...] or [S, ...] as [..., S], the layout of gather and scatter."""
    return (tokens if tokens.dim() == u.dim() else tokens[None]).movedim(0, -1)


def _gather(log_p: Tensor, tokens: Tensor) -> Tensor:
    chosen = log_p.gather(-1, _last(tokens, log_p)).movedim(-1, 0)
    return chosen if tokens.dim() == log_p.dim() else chosen[0]
