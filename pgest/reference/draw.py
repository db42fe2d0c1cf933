"""Draws of rows of logits from uniforms."""

from __future__ import annotations

import torch
from torch import Tensor

from pgest.reference.rows import scaled

METHODS = ("independent", "antithetic", "stratified", "without_replacement")
BELOW_ONE = 1 - 2.0**-53  # the largest uniform


def sample(
    logits: Tensor,
    bias: Tensor | None,
    softcap: float,
    temperature: Tensor | None,
    threshold: Tensor | None,
    mask: Tensor | None,
    noise: Tensor,
    method: str,
    num_samples: int,
) -> tuple[Tensor, Tensor | None]:
    """S tokens of each row, and without replacement their log p + Gumbel noise.

    With replacement, the token of a uniform x is the first whose cumulative probability exceeds x,
    where x is `noise` itself if independent and else `coupled`. Without: see `distinct`.

    Args:
        logits, bias, softcap, temperature, threshold, mask: as in `token_stats`.
        noise: uniforms in [0, 1), float64 [S, ...]; antithetic [ceil(S / 2), ...]; without
            replacement [2, S, ...].

    Returns:
        tokens int64 [S, ...], 0 in masked rows, and perturbed float64 [S, ...] or None. Rows must
        have a finite largest value.
    """
    u, _, _ = scaled(logits, None, temperature, mask, bias, softcap, threshold)
    u = u.double()
    if method == "without_replacement":
        tokens, perturbed = distinct(u, noise)
        return _live(tokens, mask), _live(perturbed, mask)
    x = noise if method == "independent" else coupled(noise, method, num_samples)
    return _live(invert(u, x), mask), None


def coupled(noise: Tensor, method: str, num_samples: int) -> Tensor:
    """Uniforms [S, ...] that depend on each other, each uniform in [0, 1) by itself.

    Antithetic: sample ceil(S / 2) + s is 1 - 2^-53 - u_s. Stratified: sample s lies in part
    (r + s) mod S of [0, 1), where r is the part in which u_0, sample 0, happens to be.
    """
    if method == "antithetic":
        return torch.cat([noise, BELOW_ONE - noise])[:num_samples]
    turn = torch.arange(num_samples, device=noise.device).view(-1, *[1] * (noise.dim() - 1))
    part = ((noise[:1] * num_samples).long() + turn) % num_samples
    x = ((part + noise) / num_samples).clamp_max(1 - torch.finfo(noise.dtype).eps / 2)
    return torch.where(turn == 0, noise, x)


def invert(u: Tensor, x: Tensor) -> Tensor:
    """The first token whose cumulative probability exceeds x [S, ...], in rows u [..., V]."""
    cumulative = (u - u.amax(-1, keepdim=True)).exp().cumsum(-1)
    total = cumulative[..., -1:]
    # Rounding must not carry a uniform to the total: behind it no token has a probability.
    below = torch.minimum(x.movedim(0, -1) * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, below.contiguous(), right=True).movedim(-1, 0)


def distinct(u: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """S different tokens of rows u [..., V] in the order of log p + Gumbel noise, from the top.

    The largest of those of tokens of total probability r is a Gumbel at log r, whichever token
    attains it, and that one is token j with probability p_j / r. The next is the same among the
    rest, given that it is smaller:

        exp(-g_s) = exp(-g_{s-1}) + E_s / r_s,   E_s = -log(1 - noise[0, s]),   g_0 = inf

    and noise[1, s] picks the token. The joint law is that of the S largest of log p + Gumbel noise.
    """
    log_p = u.log_softmax(-1)
    previous = log_p.new_full(log_p.shape[:-1], torch.inf)
    tokens: list[Tensor] = []
    perturbed: list[Tensor] = []
    for for_value, for_token in zip(*noise, strict=True):
        log_rest = log_p.logsumexp(-1) if tokens else torch.zeros_like(previous)
        arrival = (-torch.log1p(-for_value.clamp_min(2.0**-54))).log() - log_rest
        previous = -torch.logaddexp(-previous, arrival)
        token = invert(log_p, for_token[None])[0]
        log_p = log_p.scatter(-1, token[..., None], -torch.inf)
        tokens.append(token)
        perturbed.append(previous)
    return torch.stack(tokens), torch.stack(perturbed)


def _live(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else torch.where(mask, x, 0)
