"""Which tokens of a row a restriction keeps, as one number a row."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pgest.reference.rows import statistics_dtype, values


def row_threshold(
    logits: Tensor,
    bias: Tensor | None = None,
    softcap: float = 0.0,
    temperature: Tensor | None = None,
    mask: Tensor | None = None,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Tensor:
    """The value tau of each row such that exactly the tokens with v >= tau are kept.

        tau_k = the smallest of the top_k largest v that are possible
        tau_p = min { w >= tau_k : sum_{v_j > w} p_j < top_p },  p = softmax(v / T) over v >= tau_k
        tau_m = max v + T log(min_p)

    and tau is the largest of the three; top_k 0, top_p 1 and min_p 0 restrict nothing.

    Args:
        logits: [..., V].
        bias: [V].
        temperature, mask: [...].

    Returns:
        float64 [...], representable in the dtype of the statistics; -inf where all is kept and in
        masked rows, NaN in rows with NaN or +inf.
    """
    if mask is not None:
        logits = torch.where(mask[..., None], logits, 0.0)
    v = values(logits, bias, softcap).double()
    batch = v.shape[:-1]
    t = v.new_ones(batch) if temperature is None else temperature.double().expand(batch)
    t = t if mask is None else torch.where(mask, t, 1.0)
    largest = v.amax(-1)
    tau = torch.full_like(largest, -torch.inf)
    if 0 < top_k <= v.shape[-1]:
        best = v.topk(top_k).values
        tau = torch.where(best == -torch.inf, torch.inf, best).amin(-1)
    if top_p < 1:
        tau = torch.maximum(tau, _nucleus(v, tau, t, top_p))
    if min_p > 0:
        tau = torch.maximum(tau, _round_up(largest + t * math.log(min_p), logits))
    tau = torch.where(largest.isfinite(), tau, largest)  # -inf where nothing is possible
    tau = torch.where(largest == torch.inf, torch.nan, tau)
    return tau if mask is None else torch.where(mask, tau, -torch.inf)


def _nucleus(v: Tensor, tau: Tensor, temperature: Tensor, top_p: float) -> Tensor:
    """tau_p, by sorting. Equal values are kept together, so only those larger are counted."""
    order = v.sort(-1, descending=True).values
    u = torch.where(order >= tau[..., None], order, -torch.inf) / temperature[..., None]
    p = u.softmax(-1)
    larger = torch.searchsorted(-order.contiguous(), -order.contiguous())  # of each, how many
    larger = larger.clamp_max(v.shape[-1] - 1)  # NaN has no place in the order
    before = (p.cumsum(-1) - p).gather(-1, larger)
    kept = (before < top_p) & (p > 0)
    return torch.where(kept, order, torch.inf).amin(-1)


def _round_up(x: Tensor, logits: Tensor) -> Tensor:
    """To the statistics' dtype, where `v >= x` then says the same as in float64."""
    rounded = x.to(statistics_dtype(logits))
    above = torch.nextafter(rounded, torch.full_like(rounded, torch.inf))
    return torch.where(rounded.double() < x, above, rounded).double()
