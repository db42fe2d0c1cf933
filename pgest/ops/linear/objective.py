"""`linear_objective`: a loss of tokens from hidden states, at the cost of three products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from pgest.ops import scalars
from pgest.ops.checks import tensor
from pgest.ops.linear import checks
from pgest.ops.linear.gradients import Wanted
from pgest.ops.linear.kernel import LinearInput
from pgest.ops.linear.loss import HALF, Loss
from pgest.ops.linear.terms import Objective, Terms
from pgest.ops.stats.api import TokenStats, named
from pgest.reference import statistics_dtype


@overload
def linear_objective(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor | None,
    objective: Objective,
    *rows: Tensor,
    outputs: Sequence[str] = ...,
    bias: Tensor | None = ...,
    softcap: float | None = ...,
    temperature: float | Tensor = ...,
    threshold: float | Tensor | None = ...,
    mask: Tensor | None = ...,
    reference: tuple[Tensor, ...] | None = ...,
    normalizer: float | Tensor = ...,
    return_stats: Literal[False] = ...,
    chunk_rows: int | None = ...,
    accumulate: str = ...,
    check: bool = ...,
) -> Tensor: ...


@overload
def linear_objective(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor | None,
    objective: Objective,
    *rows: Tensor,
    outputs: Sequence[str] = ...,
    bias: Tensor | None = ...,
    softcap: float | None = ...,
    temperature: float | Tensor = ...,
    threshold: float | Tensor | None = ...,
    mask: Tensor | None = ...,
    reference: tuple[Tensor, ...] | None = ...,
    normalizer: float | Tensor = ...,
    return_stats: Literal[True],
    chunk_rows: int | None = ...,
    accumulate: str = ...,
    check: bool = ...,
) -> tuple[Tensor, TokenStats]: ...


@torch.compiler.disable
def linear_objective(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor | None,
    objective: Objective,
    *rows: Tensor,
    outputs: Sequence[str] = ("logp",),
    bias: Tensor | None = None,
    softcap: float | None = None,
    temperature: float | Tensor = 1.0,
    threshold: float | Tensor | None = None,
    mask: Tensor | None = None,
    reference: tuple[Tensor, ...] | None = None,
    normalizer: float | Tensor = 1.0,
    return_stats: bool = False,
    chunk_rows: int | None = None,
    accumulate: str = "full",
    check: bool = False,
) -> Tensor | tuple[Tensor, TokenStats]:
    """Any loss of tokens on top of a linear head, its gradients made with the loss itself.

        loss = (1 / normalizer) sum over tokens of mask objective(stats, *rows)

    A chunk of rows at a time: logits, statistics, the objective and its gradient, and from that the
    gradients of hidden and weight. Three products [N, D] x [D, V] in all, where
    `linear_token_stats` takes four; the backward only scales.

    Args:
        hidden, weight, tokens, bias, softcap, temperature, threshold, mask, reference: as in
            `linear_token_stats`.
        objective: `objective(stats, *rows)` gives one loss for each token, in plain PyTorch, as the
            functions of `pgest.objectives` do. It sees a chunk of the rows that are not masked,
            flat: `stats.logp` and rows are [R], or [S, R] for S tokens a row, `stats.entropy` and
            the like [R]; a term of these alone counts for each of a row's tokens. A token's loss
            must depend on its own row alone: anything across rows, a mean or a sequence's ratio,
            would depend on the chunks (see `check`). For that, take `linear_token_stats` and any
            loss.
        rows: what the objective needs beside the statistics, broadcastable to `tokens`: weights,
            old log-probabilities, masks. They may require gradients. Half types arrive in the
            statistics' dtype.
        outputs: the statistics that the objective reads.
        normalizer: what the sum is divided by, a number other than 0 or a tensor of one element
            without a gradient. Where all rows are masked the loss is 0, and so are its gradients,
            though the tensor be 0.
        return_stats: also return the statistics, detached, for logging.
        chunk_rows, accumulate: as in `linear_token_stats`.
        check: evaluate the objective a second time on each half of a chunk by itself (on a chunk of
            one row: on that row among others), and refuse one that gives other losses then.

    Returns:
        The loss, a scalar float32 (float64 for float64 inputs), or (loss, statistics). It is
        differentiable once in hidden, weight, bias, temperature and rows. Under `torch.no_grad()`,
        or if nothing requires a gradient, none is made.

    Raises:
        ValueError, TypeError: as `linear_token_stats`; for another normalizer; for an objective
            that returns another shape, a constant, or needs a gradient for a tensor that is not
            among `rows`; for `create_graph=True` and torch.func.

    Memory beyond inputs and returned gradients: that of `linear_token_stats`. From the loss to its
    backward, gradients of half types wait in float32 ([N, D], and [V, D] with "full"), are scaled
    there by what the loss is multiplied with, a loss scale for instance, and are rounded once.
    With accumulate="weight" the weight's own is rounded before. `torch.compile` breaks its graph
    here.

    Example:
        >>> hidden = torch.zeros(3, 2, requires_grad=True)
        >>> weight, tokens = torch.eye(4, 2), torch.tensor([0, 1, 2])
        >>> reward = torch.tensor([1.0, 0.0, -1.0])
        >>> loss = linear_objective(hidden, weight, tokens, lambda s, r: -r * s.logp, reward)
        >>> loss.backward()
        >>> hidden.grad[0].tolist()
        [-0.75, 0.25]
    """
    if torch._C._are_functorch_transforms_active():
        raise ValueError(
            "linear_objective does not support torch.func: its gradients are made in the forward; "
            "take linear_token_stats and the loss on top of it"
        )
    x = checks.arguments(
        hidden,
        weight,
        tokens,
        outputs,
        bias=bias,
        softcap=softcap,
        temperature=temperature,
        threshold=threshold,
        mask=mask,
        reference=reference,
        chunk_rows=chunk_rows,
        accumulate=accumulate,
    )
    extras = _extras(rows, x)
    divisor = _on_device(scalars.normalizer(normalizer), x.hidden.device)
    terms = Terms(
        objective,
        x.outputs,
        divisor,
        Wanted(*(_wanted(getattr(x, name)) for name in Wanted._fields)),
        tuple(_wanted(row) for row in extras),
        check,
    )
    loss, *results = Loss.apply(terms, *x, *extras)
    return (loss, named(results, x.outputs)) if return_stats else loss


def _on_device(x: float | Tensor, device: torch.device) -> Tensor:
    """In float64; a number gets there without a copy that waits for the device."""
    if isinstance(x, Tensor):
        return x.to(device, torch.float64)
    return torch.full((), x, dtype=torch.float64, device=device)


def _wanted(x: Tensor | None) -> bool:
    return x is not None and x.requires_grad and torch.is_grad_enabled()


def _extras(rows: tuple[Any, ...], x: LinearInput) -> list[Tensor]:
    """One value a token, flat over rows; half types wide, as their gradients are to be."""
    shape = x.hidden.shape[:-1] if x.tokens is None else x.tokens.shape
    extras = []
    for i, row in enumerate(rows):
        name = f"rows[{i}]"
        tensor(name, row)
        if row.device != x.hidden.device:
            raise ValueError(f"{name} must be on {x.hidden.device} like hidden, got {row.device}")
        try:
            row = row.expand(shape)
        except RuntimeError:
            raise ValueError(
                f"{name} must be broadcastable to {tuple(shape)}, one for each token, "
                f"got {tuple(row.shape)}"
            ) from None
        wide = statistics_dtype(x.hidden) if row.dtype in HALF else row.dtype
        extras.append(x.flat(row.to(wide)))
    return extras
