"""`token_stats`, the op under every score-function estimator, and `token_logp` on top of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pgest.ops import checks
from pgest.ops.library import call
from pgest.ops.rules import entry
from pgest.ops.stats import arguments
from pgest.ops.stats.autograd import BIAS, TEMPERATURE, EagerForward, Forward
from pgest.ops.stats.inplace import ForwardInplace, check_inplace
from pgest.ops.stats.kernel import BITS, OUTPUTS, SETS


class TokenStats(NamedTuple):
    """Statistics of rows of logits, in nats; None where `outputs` did not ask."""

    logp: Tensor | None = None
    entropy: Tensor | None = None
    lse: Tensor | None = None
    kl: Tensor | None = None
    reverse_kl: Tensor | None = None
    value: Tensor | None = None
    argmax: Tensor | None = None
    rank: Tensor | None = None


def token_stats(
    logits: Tensor,
    tokens: Tensor | None,
    *,
    outputs: Sequence[str] = ("logp", "entropy", "lse"),
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
    grad_inplace: bool = False,
) -> TokenStats:
    """Any statistics of chosen tokens and of rows of logits, in one pass over them.

    v = logits + bias;  v = softcap * tanh(v / softcap);  v = -inf where v < threshold;
    u = v / temperature;  p = softmax(u);  q = softmax(reference_logits / temperature):

        logp = u[token] - lse,   entropy = -sum_j p_j log p_j,   lse = log sum_j exp(u_j),
        kl = sum_j p_j (log p_j - log q_j),   reverse_kl = sum_j q_j (log q_j - log p_j),
        value = sum_j p_j r_j,   argmax = the first of the largest v,
        rank = how many v_j exceed v[token]: 0 for the largest, and in masked rows

    Args:
        logits: [..., V], float32, float64, bfloat16 or float16. Leading dimensions are free and may
            be strided (`logits[:, :-1]` is read in place); -inf marks impossible tokens.
        tokens: integers [...], or [S, ...] for S tokens per row at the cost of one pass. Read for
            "logp" and "rank" alone; None will do if `outputs` asks for neither.
        outputs: any of "logp", "entropy", "lse", "kl", "reverse_kl", "value", "argmax", "rank";
            one pass forward and one backward, whatever is asked.
        bias: floating point [V].
        softcap: a positive number; infinite logits are not squashed.
        temperature: a positive number, or a tensor broadcastable to [...].
        threshold: a number, or a tensor broadcastable to [...]: restricts each row to v >= it.
        top_k, top_p, min_p: restrict each row as `row_threshold` says, at the cost of its passes;
            not together with `threshold`.
        mask: bool [...], True counts. Masked rows are not read: statistics and gradients are 0,
            and their tokens may be anything.
        reference_logits: like `logits`, for "kl" and "reverse_kl"; **neither biased nor squashed
            here**, only divided by the temperature. Beside `bias` or `softcap` give them with the
            reference's own bias already added, and squashed, `softcap * tanh(x / softcap)`: without
            that kl is the divergence from another policy. (`linear_token_stats` squashes both.)
        values: the rewards r for "value": [..., V], or [..., K] for `value_tokens`. In the dtype of
            the logits or of the statistics. Finite, or the row's value and gradient are NaN; those
            of tokens at -inf or below the threshold may be anything.
        value_tokens: integers [..., K]: the tokens that `values` belong to, where all others have
            reward 0. The values of equal ones add up.
        grad_inplace: write the gradient over the logits instead of into fresh memory. The logits
            are lost in the backward, so they must not be a leaf nor be used afterwards; not with
            `create_graph`, torch.func or torch.compile.

    Returns:
        TokenStats: logp and rank shaped like `tokens`, all others [...]; float32 (float64 for
        float64 logits), in nats, but int64 argmax and rank. All but these two are differentiable,
        twice, in logits, bias and temperature; the gradient for "value" is that over all actions,
        p_j (r_j - value) / temperature. reference_logits, values and threshold are constants and
        refused if they require a gradient. Forward mode raises.

    Raises:
        ValueError: a shape, name or value that does not fit, by argument name; reference_logits,
            values and value_tokens that no output asks for. Tokens outside [0, V) and
            temperatures <= 0 raise on the CPU (RuntimeError in compiled code).
        TypeError: a dtype that does not fit.

    A term with p_j = 0 counts as 0. A chosen token that is -inf or below the threshold has logp
    -inf, and finite gradients; a row of -inf has lse -inf and all else NaN; a NaN or +inf row gives
    NaN in that row alone. Where q_j = 0 < p_j, kl is inf and its gradient not finite unless its
    upstream gradient is 0; where p_j = 0 < q_j, reverse_kl is inf and its gradient for the logits
    finite. NaN counts as larger than all: it is argmax, and no token of its row has rank 0.

    Error: sums are float32 in blocks, float64 across them. At V = 32,000, against float64: 5e-7 for
    logp, lse and entropy, 2e-7 absolute for kl and reverse_kl, which may so come out slightly
    negative, and 3e-8 for gradients (float32), or a rounding of a half type.

    Memory: at most eight numbers a row; the backward makes the gradient of the logits and nothing
    else of that size, whatever S.

    Source: the gradient of log p_y is the score function of Williams (1992), REINFORCE; that over
    all actions is of Sutton, McAllester, Singh and Mansour (1999).

    Example:
        >>> logits = torch.tensor([[0.0, 1.0, 2.0]], requires_grad=True)
        >>> stats = token_stats(logits, torch.tensor([2]))
        >>> [round(x.item(), 3) for x in (stats.logp, stats.entropy, stats.lse)]
        [-0.408, 0.832, 2.408]
        >>> stats.logp.sum().backward()
        >>> [round(x, 3) for x in logits.grad[0].tolist()]
        [-0.09, -0.245, 0.335]
        >>> reward = torch.tensor([[0.0, 0.0, 1.0]])
        >>> more = token_stats(logits, torch.tensor([1]), outputs=("value", "rank"), values=reward)
        >>> round(more.value.item(), 3), more.rank.item()
        (0.665, 1)
    """
    checks.logits(logits)
    bits = _bits(outputs)
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
    if grad_inplace and logits.requires_grad:
        check_inplace(logits, arguments.read(args))
        results = ForwardInplace.apply(*args, bits)
    else:
        run = entry(_bare, Forward, EagerForward, logits, args[TEMPERATURE], args[BIAS])
        results = run(*args, bits)
    if bits & (bits + 1) == 0:  # the first fields, and no others
        return TokenStats(*results[:-1])
    return named(results, bits)


def named(results: Sequence[Tensor], outputs: int) -> TokenStats:
    """Results of the op under the names of the bits in `outputs`."""
    given = iter(results)
    return TokenStats(*[next(given) if outputs & bit else None for bit in BITS.values()])


def token_logp(
    logits: Tensor,
    tokens: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    temperature: float | Tensor = 1.0,
    threshold: float | Tensor | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    mask: Tensor | None = None,
    grad_inplace: bool = False,
) -> Tensor:
    """Log-probability of tokens under rows of logits, in nats: `token_stats(...).logp`.

    Args:
        logits: [..., V].
        tokens: [...] or [S, ...].
        bias, softcap, temperature, threshold, top_k, top_p, min_p, mask, grad_inplace: as in
            `token_stats`.

    Returns:
        float32 (float64 for float64 logits), shaped like `tokens`; differentiable in logits, bias
        and temperature. Raises as `token_stats` does.

    Example:
        >>> round(float(token_logp(torch.zeros(1, 4), torch.tensor([0]))), 3)
        -1.386
    """
    stats = token_stats(
        logits,
        tokens,
        outputs=("logp",),
        bias=bias,
        softcap=softcap,
        temperature=temperature,
        threshold=threshold,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        mask=mask,
        grad_inplace=grad_inplace,
    )
    assert stats.logp is not None
    return stats.logp


def _bits(outputs: Sequence[str]) -> int:
    """The set of names that a user gave, as bits."""
    if type(outputs) is tuple:
        try:
            bits = SETS.get(outputs)
        except TypeError:  # something in it is not hashable, so no name
            bits = None
        if bits is not None:
            return bits
    return sum({BITS[name] for name in checks.outputs(outputs, OUTPUTS)})


_bare = partial(call, torch.ops.pgest.token_stats.default)
