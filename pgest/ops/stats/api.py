"""`token_stats`, the op under every score-function estimator, and `token_logp` on top of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pgest.ops import checks
from pgest.ops.library import call
from pgest.ops.stats.autograd import EagerForward, Forward
from pgest.ops.stats.inplace import ForwardInplace

OUTPUTS = ("logp", "entropy", "lse")


class TokenStats(NamedTuple):
    """Statistics of rows of logits, in nats; None where `outputs` did not ask."""

    logp: Tensor | None = None
    entropy: Tensor | None = None
    lse: Tensor | None = None


def token_stats(
    logits: Tensor,
    tokens: Tensor | None,
    *,
    outputs: Sequence[str] = OUTPUTS,
    temperature: float | Tensor = 1.0,
    mask: Tensor | None = None,
    grad_inplace: bool = False,
) -> TokenStats:
    """Log-probability of tokens, entropy and log-sum-exp of each row of logits, in one pass.

    With u = logits / temperature and p = softmax(u):

        logp = u[token] - lse,   entropy = -sum_j p_j log p_j,   lse = log sum_j exp(u_j)

    Args:
        logits: [..., V], float32, float64, bfloat16 or float16. Leading dimensions are free and may
            be strided (`logits[:, :-1]` is read in place); -inf marks impossible tokens.
        tokens: integers [...], or [S, ...] for S tokens per row at the cost of one pass. None if
            `outputs` does not ask for "logp".
        outputs: any of "logp", "entropy", "lse"; only these are computed.
        temperature: a positive number, or a tensor broadcastable to [...], which may require a
            gradient.
        mask: bool [...], True counts. Masked rows are not read: statistics and gradients are 0,
            and their tokens may be anything.
        grad_inplace: write the gradient over the logits instead of into fresh memory. The logits
            are lost in the backward, so they must not be a leaf nor be used afterwards; not with
            `create_graph`, torch.func or torch.compile.

    Returns:
        TokenStats: logp shaped like `tokens`, entropy [...] and lse [...], float32 (float64 for
        float64 logits), in nats. All are differentiable, twice, in logits and temperature; nothing
        is detached. Forward mode raises.

    Raises:
        ValueError: a shape, name or value that does not fit, by argument name. Tokens outside
            [0, V) and temperatures <= 0 raise on the CPU (RuntimeError in compiled code).
        TypeError: a dtype that does not fit.

    A chosen -inf token has logp -inf; a row of -inf has lse -inf and NaN logp and entropy; a NaN or
    +inf row gives NaN in that row alone. Memory: three numbers a row; the backward makes the
    gradient of the logits and nothing else of that size, whatever S.

    Source: the gradient of log p_y is the score function of Williams (1992), REINFORCE.

    Example:
        >>> logits = torch.tensor([[0.0, 1.0, 2.0]], requires_grad=True)
        >>> stats = token_stats(logits, torch.tensor([2]))
        >>> [round(x.item(), 3) for x in stats]
        [-0.408, 0.832, 2.408]
        >>> stats.logp.sum().backward()
        >>> [round(x, 3) for x in logits.grad[0].tolist()]
        [-0.09, -0.245, 0.335]
    """
    checks.logits(logits)
    outputs = checks.outputs(outputs, OUTPUTS)
    tokens = checks.tokens(tokens, logits, needed="logp" in outputs)
    mask = checks.mask(mask, logits)
    scale = checks.temperature(temperature, logits)
    args = (logits, tokens if "logp" in outputs else None, scale, mask, "entropy" in outputs)
    if grad_inplace and logits.requires_grad:
        checks.grad_inplace(logits)
        results = ForwardInplace.apply(*args)
    else:
        results = _entry(logits, scale)(*args)
    logp, entropy, lse, _ = results
    return TokenStats(
        logp if "logp" in outputs else None,
        entropy if "entropy" in outputs else None,
        lse if "lse" in outputs else None,
    )


def token_logp(
    logits: Tensor,
    tokens: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    mask: Tensor | None = None,
    grad_inplace: bool = False,
) -> Tensor:
    """Log-probability of tokens under rows of logits, in nats: `token_stats(...).logp`.

    Args:
        logits: [..., V].
        tokens: [...] or [S, ...].
        temperature, mask, grad_inplace: as in `token_stats`.

    Returns:
        float32 (float64 for float64 logits), shaped like `tokens`; differentiable in logits and
        temperature. Raises as `token_stats` does.

    Example:
        >>> round(float(token_logp(torch.zeros(1, 4), torch.tensor([0]))), 3)
        -1.386
    """
    stats = token_stats(
        logits,
        tokens,
        outputs=("logp",),
        temperature=temperature,
        mask=mask,
        grad_inplace=grad_inplace,
    )
    assert stats.logp is not None
    return stats.logp


def _entry(logits: Tensor, temperature: Tensor | None) -> Callable[..., Any]:
    """The cheapest way into the op that keeps every promise: without a gradient the bare op.

    Compiled code takes the bare op too, which has the same rules registered. Forward mode takes a
    Function, because that refuses it and the bare op would not.
    """
    if torch.compiler.is_compiling():
        return _bare
    differentiated = torch.is_grad_enabled() and (
        logits.requires_grad or (temperature is not None and temperature.requires_grad)
    )
    if not differentiated and forward_ad._current_level < 0:
        return _bare
    return Forward.apply if torch._C._are_functorch_transforms_active() else EagerForward.apply


_bare = partial(call, torch.ops.pgest.token_stats.default)
