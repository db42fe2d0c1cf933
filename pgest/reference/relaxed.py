"""Relaxed and straight-through samples: Gumbel-softmax, and the Jacobians of hard samples."""

from __future__ import annotations

import torch
from torch import Tensor

from pgest.reference.rows import scaled, statistics_dtype


def gumbel_softmax(
    logits: Tensor, temperature: Tensor | None, gumbel: Tensor, hard: bool = False
) -> Tensor:
    """y = softmax((z + g) / T), or where `hard` the one-hot vector of the largest z + g.

    Args:
        logits: [..., V].
        temperature: [...]; None means 1.
        gumbel: the noise g, like logits.
        hard: with the derivative of the soft one.

    Returns:
        Like logits. A row without a possible token, or with NaN or +inf, is NaN. Differentiable in
        logits and temperature, to any order.
    """
    z = logits.to(statistics_dtype(logits))
    top = z.detach().amax(-1, keepdim=True)
    # Differences of logits, which are small where it matters, keep the noise's digits.
    noisy = (z - torch.where(top.isfinite(), top, 0.0)) + gumbel.to(z.dtype)
    u, _, _ = scaled(noisy, None, temperature, None)
    soft = u.softmax(-1)
    if hard:
        chosen = one_hot(noisy.argmax(-1), logits.shape[-1], soft.dtype)
        chosen = torch.where(soft.isnan().any(-1, keepdim=True), torch.nan, chosen)
        soft = chosen.detach() + (soft - soft.detach()).nan_to_num(0.0)
    return soft.to(logits.dtype)


def softmax_backward(
    soft: Tensor, grad: Tensor, temperature: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Gradient of y = softmax(u / T) for u and T, from y and the gradient for it.

        du_j = y_j (dy_j - <y, dy>) / T,   dT = - sum_j du_j (log y_j - <y, log y>)

    Where y_j is 0 nothing counts, whatever dy_j is. Means <y, .> are divided by the sum of y, which
    is 1 but for rounding: where one y_j is nearly 1 the difference would be all rounding.

    Returns:
        A gradient like `soft`, and one of shape [...], or None without a temperature. Both are
        differentiable in all arguments.
    """
    y = soft.to(statistics_dtype(soft))
    none = y == 0
    g = torch.where(none, 0.0, grad.to(y.dtype))
    total = y.sum(-1, keepdim=True)
    du = y * (g - (y * g).sum(-1, keepdim=True) / total)
    if temperature is None:
        return du.to(soft.dtype), None
    t = temperature.to(y.dtype).expand(y.shape[:-1])[..., None]
    log_y = torch.where(none, 1.0, y).log()
    by_t = -(du * (log_y - (y * log_y).sum(-1, keepdim=True) / total) / t).sum(-1)
    return (du / t).to(soft.dtype), by_t


def one_hot(tokens: Tensor, vocab: int, dtype: torch.dtype) -> Tensor:
    """[..., V] of 0 and 1 from tokens [...]."""
    return (tokens[..., None] == torch.arange(vocab, device=tokens.device)).to(dtype)


def straight_through_backward(
    logits: Tensor,
    tokens: Tensor,
    temperature: Tensor | None,
    grad: Tensor,
    jacobian: str,
) -> Tensor:
    """J g for the one-hot samples x of `tokens`, with q = softmax(z / T) and p = softmax(z).

        straight_through:  J = J_q / T,   J_q = diag(q) - q q^T
        reinmax:           J = J_q + 1/2 (x - q) (x - q)^T - 1/2 J_p

    Args:
        logits: [..., V].
        tokens: [...].
        temperature: [...]; None means 1.
        grad: the gradient g for the samples, like logits.
        jacobian: one of the names above.

    Returns:
        Like logits; differentiable in logits, temperature and grad.
    """
    u, _, _ = scaled(logits, None, temperature, None)
    z, _, _ = scaled(logits, None, None, None)
    q, p, g = u.softmax(-1), z.softmax(-1), grad.to(u.dtype)
    of_q, _ = softmax_backward(q, g, temperature if jacobian == "straight_through" else None)
    if jacobian == "straight_through":
        return of_q.to(logits.dtype)
    of_p, _ = softmax_backward(p, g, None)
    x = one_hot(tokens, logits.shape[-1], u.dtype)
    counted = torch.where((q == 0) & (x == 0), 0.0, g)
    along = ((x - q) * counted).sum(-1, keepdim=True)
    return (of_q + 0.5 * (x - q) * along - 0.5 * of_p).to(logits.dtype)
