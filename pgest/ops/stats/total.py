"""`token_stats_sum`: a weighted sum of statistics, its gradient made with the sum itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pgest.ops import checks, scalars
from pgest.ops.library import call
from pgest.ops.rules import any_need
from pgest.ops.stats import arguments
from pgest.ops.stats.api import TokenStats, named
from pgest.ops.stats.autograd import BIAS, TEMPERATURE
from pgest.ops.stats.inplace import check_inplace
from pgest.ops.stats.kernel import BITS
from pgest.ops.stats.ready import with_gradients
from pgest.reference import StatsGrads, StatsInput, statistics_dtype

_ops = torch.ops.pgest
_NAMES = StatsGrads._fields
_TOKENS, _MASK = (StatsInput._fields.index(name) for name in ("tokens", "mask"))

Weights = Mapping[str, float | Tensor]


@overload
def token_stats_sum(
    logits: Tensor,
    tokens: Tensor | None,
    weights: Weights,
    *,
    bias: Tensor | None = ...,
    softcap: float | None = ...,
    temperature: float | Tensor = ...,
    threshold: float | Tensor | None = ...,
    top_k: int | None = ...,
    top_p: float | None = ...,
    min_p: float | None = ...,
    mask: Tensor | None = ...,
    reference_logits: Tensor | None = ...,
    values: Tensor | None = ...,
    value_tokens: Tensor | None = ...,
    normalizer: float | Tensor = ...,
    return_stats: Literal[False] = ...,
    grad_inplace: bool = ...,
) -> Tensor: ...


@overload
def token_stats_sum(
    logits: Tensor,
    tokens: Tensor | None,
    weights: Weights,
    *,
    bias: Tensor | None = ...,
    softcap: float | None = ...,
    temperature: float | Tensor = ...,
    threshold: float | Tensor | None = ...,
    top_k: int | None = ...,
    top_p: float | None = ...,
    min_p: float | None = ...,
    mask: Tensor | None = ...,
    reference_logits: Tensor | None = ...,
    values: Tensor | None = ...,
    value_tokens: Tensor | None = ...,
    normalizer: float | Tensor = ...,
    return_stats: Literal[True],
    grad_inplace: bool = ...,
) -> tuple[Tensor, TokenStats]: ...


def token_stats_sum(
    logits: Tensor,
    tokens: Tensor | None,
    weights: Weights,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    temperature: float | Tensor = 1.0,
    threshold: float | Tensor | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    mask: Tensor | None = None,
    reference_logits: Tensor | None = None,
    values: Tensor | None = None,
    value_tokens: Tensor | None = None,
    normalizer: float | Tensor = 1.0,
    return_stats: bool = False,
    grad_inplace: bool = False,
) -> Tensor | tuple[Tensor, TokenStats]:
    """A weighted sum of the statistics of `token_stats`, its gradient made in the same pass.

        loss = (1 / normalizer) sum_k sum_n mask_n w_kn statistic_kn

    for weights that are known before the statistics are: REINFORCE with an entropy bonus and an
    exact KL penalty, distillation, a best-of-n likelihood. Each row is read from memory once, and
    its gradient written once, while the row is in a cache; the backward only scales. What weighs
    tokens by their own statistics (a clipped ratio) takes `token_stats` and any loss.

    Args:
        logits, tokens, bias, softcap, temperature, threshold, top_k, top_p, min_p, mask,
            reference_logits, values, value_tokens: as in `token_stats`.
        weights: by name ("logp", "entropy", "lse", "kl", "reverse_kl", "value"), what each
            statistic counts for: a number, or a real tensor broadcastable to the statistic,
            `tokens` for "logp" and [...] for the others. A term with weight 0 counts as 0, though
            the statistic be infinite. Tensors may require a gradient.
        normalizer: what the sum is divided by: a number other than 0, or a tensor of one element
            without a gradient. Where nothing counts the loss is 0, though the tensor be 0.
        return_stats: also return the statistics that have weights, detached, for logging.
        grad_inplace: write the gradient over the logits, **in the forward**: they are lost as soon
            as the loss is there, or if a value in an argument is refused. Otherwise as in
            `token_stats`.

    Returns:
        The loss, a scalar float32 (float64 for float64 logits), or (loss, statistics). It is
        differentiable once in logits, bias, temperature and weights, whose gradient is the
        statistic over the normalizer; to the bit as `token_stats` and its backward with the
        same weights. Under `torch.no_grad()`, or if none of the first three requires a gradient,
        none is made.

    Raises:
        ValueError, TypeError: as `token_stats`; for weights or a normalizer that do not fit; for
            `create_graph=True`, torch.func and forward mode.

    Memory: the gradient [..., V], in the dtype of the logits, **from the forward on**, until the
    backward gives it away; with a graph that is kept, another one for each backward. Nothing of
    that size with `grad_inplace`.

    Gradients of half types are rounded before a loss is multiplied by anything: what float16 loses
    there, a loss scale (`GradScaler`) does not find again. `normalizer=1 / scale` does.

    Source: gradients made in the forward are of the fused losses of Hsu et al. 2024, Liger Kernel
    (arXiv 2410.10989); for the gradients themselves see `token_stats`.

    Example:
        >>> logits = torch.zeros(2, 4, requires_grad=True)
        >>> advantage = torch.tensor([1.0, -0.5])
        >>> weights = {"logp": -advantage, "entropy": -0.01}
        >>> loss = token_stats_sum(logits, torch.tensor([0, 3]), weights, normalizer=2)
        >>> loss.backward()
        >>> logits.grad[0].tolist()
        [-0.375, 0.125, 0.125, 0.125]
    """
    _check_mode()
    checks.logits(logits)
    bits = _bits(weights)
    args = arguments.given(
        logits,
        tokens,
        bits,
        bias,
        softcap,
        temperature,
        threshold,
        top_k,
        top_p,
        min_p,
        mask,
        reference_logits,
        values,
        value_tokens,
    )
    shape = logits.shape[:-1] if args[_TOKENS] is None else args[_TOKENS].shape
    by = scalars.divisor(normalizer, logits.device, shape, mask)
    each = [_weight(name, weights, args, by) if name in weights else None for name in _NAMES]
    leaves = (logits, args[BIAS], args[TEMPERATURE])
    if torch.is_grad_enabled() and any_need(leaves):
        stats, ready = _forward(args, each, bits, grad_inplace and logits.requires_grad)
        loss = with_gradients(_total(each, stats, bits), *leaves, *ready)
    else:
        with torch.no_grad():
            *stats, _ = call(_ops.token_stats.default, *args, bits)
        loss = _total(each, stats, bits)
    return (loss, named(stats, bits)) if return_stats else loss


def _check_mode() -> None:
    """Refuse what would need a derivative of the gradients."""
    if torch.compiler.is_compiling():
        return
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        raise ValueError(
            "token_stats_sum does not support torch.func or forward mode: its gradients are made "
            "in the forward; take token_stats and the sum on top of it"
        )


def _forward(
    args: tuple[Any, ...], weights: list[Tensor | None], bits: int, inplace: bool
) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
    """The statistics, and the gradients for logits and temperature."""
    logits, temperature = args[0], args[TEMPERATURE]
    if inplace:
        check_inplace(logits, arguments.read(args))
    by_temperature = temperature is not None and temperature.requires_grad
    with torch.no_grad():
        constants = [x.detach() if isinstance(x, Tensor) else x for x in (*args, *weights)]
        if inplace:
            *stats, grad_temperature = call(
                _ops.token_stats_gradient_.default, *constants, bits, by_temperature
            )
            torch.autograd.graph.increment_version(logits)
            return stats, (constants[0], grad_temperature)
        *stats, grad_logits, grad_temperature = call(
            _ops.token_stats_gradient.default, *constants, bits, by_temperature
        )
    return stats, (grad_logits, grad_temperature)


def _total(weights: list[Tensor | None], stats: list[Tensor], bits: int) -> Tensor:
    """The sum, differentiable in the weights."""
    given = iter(stats)
    terms = []
    for weight in weights:
        if weight is not None:
            statistic = next(given)
            nothing = (weight == 0) & statistic.isinf()
            terms.append((weight * torch.where(nothing, 0.0, statistic)).sum())
    return torch.stack(terms).sum() if len(terms) > 1 else terms[0]


def _bits(weights: Any) -> int:
    """The statistics that have a weight."""
    if not isinstance(weights, Mapping):
        raise TypeError(
            f"weights must be a dict from names to numbers or tensors, got {type(weights).__name__}"
        )
    for name in weights:
        if name not in _NAMES:
            raise ValueError(f"weights must be of names from {_NAMES}, got {name!r}")
    if not weights:
        raise ValueError(f"weights must be of names from {_NAMES}, got none")
    return sum(BITS[name] for name in weights)


def _weight(name: str, weights: Weights, args: tuple[Any, ...], by: float | Tensor) -> Tensor:
    """One weight for each statistic of a name, over the normalizer; 0 where masked."""
    logits, tokens, mask = args[0], args[_TOKENS], args[_MASK]
    shape = tokens.shape if name == "logp" else logits.shape[:-1]
    label, x, dtype = f'weights["{name}"]', weights[name], statistics_dtype(logits)
    if not isinstance(x, Tensor):
        number = scalars.number(label, x, or_tensor=True)
        x = torch.full((), number, dtype=dtype, device=logits.device)
    if x.dtype == torch.bool or x.is_complex():
        raise TypeError(f"{label} must be of real numbers, got {x.dtype}")
    if x.device != logits.device:
        raise ValueError(f"{label} must be on {logits.device} like logits, got {x.device}")
    try:
        x = (x.to(dtype) / by).to(dtype).expand(shape)
    except RuntimeError:
        raise ValueError(
            f"{label} must be broadcastable to {tuple(shape)}, got {tuple(x.shape)}"
        ) from None
    return x if mask is None else torch.where(mask, x, 0.0)
