"""`sample`: tokens, and what is known of them, in one pass over the logits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgest.ops import checks, scalars
from pgest.ops.library import call
from pgest.ops.rules import entry
from pgest.ops.sampling.autograd import Draw, EagerDraw
from pgest.ops.sampling.noise import shape_of, uniforms
from pgest.ops.stats import TokenStats
from pgest.ops.stats.arguments import restriction
from pgest.reference import METHODS

OUTPUTS = ("logp", "entropy")


class Sample(NamedTuple):
    """S tokens of each row and what is known of them; None where it was not asked for.

    `threshold` is the restriction of each row, float64: the one given, or what top_k, top_p and
    min_p came to, for these very logits: other logits, even a little smaller, may leave a drawn
    token below it. `perturbed` is log p + Gumbel noise, descending, of tokens drawn without
    replacement.
    """

    tokens: Tensor
    logp: Tensor | None = None
    entropy: Tensor | None = None
    perturbed: Tensor | None = None
    threshold: Tensor | None = None

    @property
    def stats(self) -> TokenStats:
        """The statistics as `pgest.objectives` take them."""
        return TokenStats(logp=self.logp, entropy=self.entropy)


def sample(
    logits: Tensor,
    num_samples: int = 1,
    *,
    method: str = "independent",
    outputs: Sequence[str] = ("logp",),
    temperature: float | Tensor = 1.0,
    bias: Tensor | None = None,
    softcap: float | None = None,
    threshold: float | Tensor | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    mask: Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Sample:
    """Draw S tokens of each row of logits, with their log-probability, in one pass over the logits.

    With v = logits + bias, squashed to softcap * tanh(v / softcap), and p the softmax of v / T over
    the tokens that threshold, or top_k, top_p and min_p, leave:

        token = the first j with p_1 + ... + p_j > u,   logp = log p_token

    for a uniform u in [0, 1), which depends on `method`. Each sample by itself has the law p, so
    that a mean over samples is unbiased with every method but the last:

    - "independent".
    - "antithetic": sample ceil(S / 2) + s has 1 - u_s (less 2^-53, to stay below 1).
    - "stratified": [0, 1) has S equal parts, and each holds one u; which sample gets which part
      is turned at random, row by row.
    - "without_replacement": S different tokens in the order of log p + Gumbel noise, which are
      `perturbed`. With the last of them as threshold kappa, the first S - 1 are unbiased with the
      weights p / (1 - exp(-exp(logp - kappa))).

    Args:
        logits: [..., V], float32, float64, bfloat16 or float16. Leading dimensions may be strided;
            -inf marks impossible tokens, which are never drawn.
        num_samples: S >= 1.
        method: one of the above.
        outputs: any of "logp", "entropy".
        temperature: a positive number, or a tensor broadcastable to [...], which may require a
            gradient.
        bias: [V], floating point.
        softcap: a positive number, in logits.
        threshold: a number, or a tensor broadcastable to [...]: restricts each row to v >= it, as
            in `token_stats`; `row_threshold` makes one that several draws can share.
        top_k, top_p, min_p: as in `row_threshold`, in this order; not together with `threshold`.
            Which tokens are left is a constant to every gradient.
        mask: bool [...], True counts. Masked rows are not read: their tokens, statistics and
            gradients are 0.
        generator: where the uniforms come from; in eager code only.
        noise: the uniforms themselves, in [0, 1), in float64 for preference: [S, ...]; antithetic
            [ceil(S / 2), ...]; without replacement [2, S, ...], for the perturbed value and for the
            token. Compiled code that gives none draws from the default generator; under vmap torch
            wants its `randomness=` said.

    Returns:
        Sample: tokens int64 [S, ...] and perturbed float64 [S, ...], detached; logp [S, ...] and
        entropy [...], float32 (float64 for float64 logits), in nats, of the restricted policy and
        differentiable, twice, in logits and temperature. Forward mode raises. The draw is a
        function of the uniforms and the logits: the same for any number of threads.

    Raises:
        ValueError: an argument that does not fit, by name; on the CPU (RuntimeError in compiled
            code) also a row that is NaN or +inf somewhere, or -inf or below its threshold
            everywhere, noise outside [0, 1), and more samples without replacement than there are
            possible tokens in a row.
        TypeError: a dtype that does not fit.

    Memory: S * 16 bytes a row (without replacement 32) beside the noise, S * 8; the backward makes
    the gradient of the logits, whatever S. Error: probabilities are float32 (float64 for float64
    logits) weights, relative error about 1e-6, summed in float64 over blocks.

    Source: without replacement, Kool, van Hoof, Welling (2019), arXiv 1903.06059, and (2020), arXiv
    2002.06043; drawn from the top down, which needs two uniforms a sample instead of V.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0, float("-inf")]], requires_grad=True)
        >>> drawn = sample(logits, 4, method="stratified", generator=torch.Generator())
        >>> sorted(drawn.tokens[:, 0].tolist())
        [0, 0, 1, 1]
        >>> reward = (drawn.tokens == 1).float()
        >>> (-(reward * drawn.logp).mean()).backward()
        >>> logits.grad
        tensor([[ 0.2500, -0.2500,  0.0000]])
    """
    checks.logits(logits)
    outputs = checks.outputs(outputs, OUTPUTS)
    num_samples = scalars.count("num_samples", num_samples)
    shape = shape_of(_method(method), num_samples, logits.shape[:-1])
    scale = checks.temperature(temperature, logits)
    rows = checks.mask(mask, logits)
    shift = checks.bias(bias, logits)
    cap = scalars.softcap(softcap)
    given = (logits, bias, softcap, temperature, threshold, mask)
    limit = restriction(*given, top_k=top_k, top_p=top_p, min_p=min_p)
    u = uniforms(shape, logits, generator, noise)
    args = (logits, shift, cap, scale, limit, rows, u, METHODS.index(method), num_samples)
    run = entry(_bare, Draw, EagerDraw, logits, shift, scale)
    logp, entropy, tokens, perturbed, _ = run(*args, "entropy" in outputs)
    return Sample(
        tokens,
        logp if "logp" in outputs else None,
        entropy if "entropy" in outputs else None,
        perturbed if method == "without_replacement" else None,
        limit,
    )


_bare = partial(call, torch.ops.pgest.sample.default)


def _method(x: Any) -> str:
    if x not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {x!r}")
    return x
