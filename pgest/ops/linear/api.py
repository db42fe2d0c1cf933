"""`linear_token_stats`: statistics of tokens from hidden states, without their logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pgest.ops.library import call
from pgest.ops.linear import checks
from pgest.ops.linear.autograd import Forward
from pgest.ops.stats.api import TokenStats, named


def linear_token_stats(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor | None,
    *,
    outputs: Sequence[str] = ("logp", "entropy", "lse"),
    bias: Tensor | None = None,
    softcap: float | None = None,
    temperature: float | Tensor = 1.0,
    threshold: float | Tensor | None = None,
    mask: Tensor | None = None,
    reference: tuple[Tensor, ...] | None = None,
    chunk_rows: int | None = None,
    accumulate: str = "full",
) -> TokenStats:
    """`token_stats` of the logits of a linear head, which are never held at once.

        logits = hidden @ weight.T + bias

    A chunk of rows at a time is multiplied out, in one memory that is reused. The backward does it
    again: four products [N, D] x [D, V] in all, and whatever loss stands on the statistics.

    Args:
        hidden: [..., D], float32, float64, bfloat16 or float16; leading dimensions are free and
            may be strided.
        weight: [V, D], as in `torch.nn.Linear`; a tied embedding or any result of a computation
            (W + B @ A) will do. Its dtype is that of `hidden`; under `torch.autocast` both are
            cast as by `F.linear`.
        tokens: integers [...], or [S, ...] for S tokens per row.
        outputs: any statistics of `token_stats` but "value"; only these are computed.
        bias: [V], floating point.
        softcap, temperature, threshold: as in `token_stats`.
        mask: bool [...], True counts. Masked rows are left out before the products: statistics and
            gradients are 0 there, whatever `hidden` holds. So are, in the backward, rows whose
            statistics have no gradient.
        reference: (hidden, weight) or (hidden, weight, bias) of the policy with which "kl" and
            "reverse_kl" compare, over the full vocabulary; its own width, the same softcap and
            temperature, no gradient.
        chunk_rows: rows of a chunk; by default what fits into 64 MiB, but at least 128.
        accumulate: "full" sums the weight's gradient in the statistics' dtype and rounds it once;
            "weight" sums in the weight's own dtype, which for half types takes a third of the
            memory and loses accuracy with every chunk.

    Returns:
        TokenStats: as `token_stats`, float32 (float64 for float64 inputs), differentiable once in
        hidden, weight, bias and temperature; what requires no gradient costs no product. The
        reference is detached, forward mode raises.

    Raises:
        ValueError, TypeError: as `token_stats`; for a second derivative, and for `torch.vmap`.

    Half types are converted and multiplied in float32: logits are not rounded, and a CPU without
    instructions for them is not slowed down. Errors are those of torch's product; what
    `token_stats` adds is small beside them.

    Memory beyond inputs and returned gradients: the chunk's logits, once more for a reference;
    16 MiB for half types' weights, and float32 [V, D] for a half type's weight gradient with
    "full". Rows are independent of each other up to how torch rounds a product of another size.
    `torch.compile` sees one op.

    Example:
        >>> hidden = torch.tensor([[1.0, 2.0]], requires_grad=True)
        >>> weight = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> stats = linear_token_stats(hidden, weight, torch.tensor([2]))
        >>> [round(x.item(), 3) for x in (stats.logp, stats.entropy, stats.lse)]
        [-0.408, 0.832, 2.408]
        >>> stats.logp.sum().backward()
        >>> [round(x, 3) for x in hidden.grad[0].tolist()]
        [-0.245, 0.335]
    """
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
    return named(_entry()(*x), x.outputs)


def _entry() -> Any:
    """Compiled code takes the op, which is opaque to it; eager code refuses forward mode too."""
    return _bare if torch.compiler.is_compiling() else Forward.apply


def _bare(*args: Any) -> Any:
    return call(torch.ops.pgest.linear_token_stats.default, *args)
