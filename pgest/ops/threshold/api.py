"""`row_threshold`: from top-k, top-p and min-p to the one number a row that other ops take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pgest.ops import checks, scalars
from pgest.ops.library import call
from pgest.ops.threshold import kernel  # noqa: F401  (defines the op)


def row_threshold(
    logits: Tensor,
    *,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    temperature: float | Tensor = 1.0,
    bias: Tensor | None = None,
    softcap: float | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The number tau of each row such that top-k, top-p and min-p keep the tokens with v >= tau.

    With v = logits + bias, squashed to softcap * tanh(v / softcap), and p = softmax(v / T):

        tau_k = the top_k-th largest v
        tau_p = the smallest w >= tau_k for which the tokens with v > w have less than top_p of the
                probability of those with v >= tau_k
        tau_m = max v + T log(min_p), which is where p = min_p * max p

    and tau is the largest of them. Ties are kept together, and so is the token that crosses top_p.

    Args:
        logits: [..., V], float32, float64, bfloat16 or float16; outer dimensions may be strided.
        top_k: an integer >= 1; None, or V and more, restricts nothing.
        top_p: a number in (0, 1]; 1 restricts nothing.
        min_p: a number in (0, 1].
        temperature: a positive number, or a tensor broadcastable to [...].
        bias: [V], floating point.
        softcap: a positive number, in logits; None squashes nothing.
        mask: bool [...], True counts; masked rows are not read.

    Returns:
        float64 [...], in the units of v, detached: which tokens are kept is a constant to every
        gradient. It is representable in the dtype of the statistics (float32, or float64 for
        float64 logits), so that `v >= tau` means the same to all. -inf where all is kept, in
        masked rows and in rows of -inf, where nothing is possible; NaN in rows with NaN or +inf.

    Raises:
        ValueError, TypeError: an argument that does not fit, by name. Temperatures <= 0 in a tensor
            raise on the CPU (RuntimeError in compiled code).

    Memory: one row a thread, in the dtype of the statistics; no row is sorted and nothing of the
    size of the logits is made. Error: top_k is exact. Probabilities are summed in float64 from
    float32 terms (float64 for float64 logits), so that a row whose sum passes top_p within about
    1e-6 may keep one value more or less. The result does not depend on the number of threads.

    Source: top-p sampling, Holtzman et al. (2020), arXiv 1904.09751; min-p, Nguyen et al. (2024),
    arXiv 2407.01082.

    Example:
        >>> logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()
        >>> tau = row_threshold(logits, top_p=0.6)
        >>> (logits >= tau).tolist()
        [True, True, False, False]
    """
    checks.logits(logits)
    k, p, m = _restriction(top_k, top_p, min_p)
    scale = checks.temperature(temperature, logits)
    rows = checks.mask(mask, logits)
    if scale is not None:
        scale = scale.detach()
    shift = checks.bias(bias, logits)
    if shift is not None:
        shift = shift.detach()
    cap = scalars.softcap(softcap)
    op = torch.ops.pgest.row_threshold.default
    return call(op, logits.detach(), shift, cap, scale, rows, k, p, m)


def _restriction(top_k: Any, top_p: Any, min_p: Any) -> tuple[int, float, float]:
    """The three as the op takes them, where 0, 1 and 0 restrict nothing."""
    return (
        0 if top_k is None else scalars.count("top_k", top_k),
        1.0 if top_p is None else scalars.share("top_p", top_p),
        0.0 if min_p is None else scalars.share("min_p", min_p),
    )
