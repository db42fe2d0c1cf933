"""From the arguments of `token_stats` to the op's: what is rare, checked and brought into form."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pgest.ops import checks, scalars
from pgest.ops.stats.kernel import BITS, BY_TOKEN, PAIR
from pgest.ops.threshold import row_threshold
from pgest.reference import StatsInput

Beside = tuple[Tensor | None, Tensor | None, Tensor | None]
NOTHING_BESIDE: Beside = (None, None, None)


def given(
    logits: Tensor,
    tokens: Tensor | None,
    bits: int,
    bias: Tensor | None,
    softcap: float | None,
    temperature: float | Tensor,
    threshold: float | Tensor | None,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    mask: Tensor | None,
    reference_logits: Tensor | None,
    values: Tensor | None,
    value_tokens: Tensor | None,
) -> tuple[Any, ...]:
    """The fields of StatsInput, for outputs as bits. Of logits that have been checked."""
    by_token = bits & BY_TOKEN != 0
    tokens = checks.tokens(tokens, logits, needed=by_token)
    limit = None
    if not (threshold is None and top_k is None and top_p is None and min_p is None):
        rows = (logits, bias, softcap, temperature, threshold, mask)
        limit = restriction(*rows, top_k=top_k, top_p=top_p, min_p=min_p)
    others = NOTHING_BESIDE
    if bits & PAIR or not (reference_logits is values is value_tokens is None):
        others = beside(logits, bits, reference_logits, values, value_tokens)
    bias = None if bias is None else checks.bias(bias, logits)
    scale = checks.temperature(temperature, logits)
    return (
        logits,
        tokens if by_token else None,
        bias,
        0.0 if softcap is None else scalars.softcap(softcap),
        scale,
        limit,
        None if mask is None else checks.mask(mask, logits),
        *others,
    )


def read(args: tuple[Any, ...]) -> dict[str, Tensor | None]:
    """What the kernels read beside the logits while a gradient is written, by name."""
    x = StatsInput(*args)
    names = ("reference_logits", "values", "bias", "temperature", "threshold")
    return {name: getattr(x, name) for name in names}


def beside(
    logits: Tensor,
    outputs: int,
    reference_logits: Tensor | None,
    values: Tensor | None,
    value_tokens: Tensor | None,
) -> Beside:
    """What kl, reverse_kl and value read beside the logits, and nothing that none of them reads."""
    if outputs & (BITS["kl"] | BITS["reverse_kl"]):
        reference_logits = checks.reference_logits(reference_logits, logits)
    else:
        _unread("reference_logits", reference_logits, '"kl" or "reverse_kl"')
    if outputs & BITS["value"]:
        return reference_logits, *checks.values(values, value_tokens, logits)
    _unread("values", values, '"value"')
    _unread("value_tokens", value_tokens, '"value"')
    return reference_logits, None, None


def _unread(name: str, x: Tensor | None, names: str) -> None:
    """Refuse what no output reads: whoever gives it misses a term of the loss."""
    if x is not None:
        raise ValueError(f"{name} must be None unless outputs ask for {names}, which reads it")


def restriction(
    logits: Tensor,
    bias: Tensor | None,
    softcap: float | None,
    temperature: float | Tensor,
    threshold: float | Tensor | None,
    mask: Tensor | None,
    *,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
) -> Tensor | None:
    """The threshold of each row that top_k, top_p and min_p amount to, or the one given."""
    if top_k is None and top_p is None and min_p is None:
        return checks.threshold(threshold, logits)
    if threshold is not None:
        raise ValueError("threshold and top_k, top_p or min_p exclude each other, got both")
    return row_threshold(
        logits,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        temperature=temperature,
        bias=bias,
        softcap=softcap,
        mask=mask,
    )
