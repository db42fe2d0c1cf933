"""`gumbel_softmax` and `straight_through`: samples through which a gradient passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pgest.ops import checks, scalars
from pgest.ops import noise as noises
from pgest.ops.relaxed import autograd
from pgest.ops.rules import entry

JACOBIANS = ("straight_through", "reinmax")


def gumbel_softmax(
    logits: Tensor,
    tau: float | Tensor = 1.0,
    hard: bool = False,
    *,
    dim: int = -1,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Relaxed one-hot samples of softmax(logits), or hard ones with the relaxed ones' gradient.

    With g Gumbel noise and V entries along `dim`:

        soft: y = softmax((logits + g) / tau)
        hard: forward the one-hot vector of the largest logits + g, backward the gradient of y

        dlogits_j = y_j (dy_j - <y, dy>) / tau,   dtau = -sum_j dlogits_j (log y_j - <y, log y>)

    Args:
        logits: [..., V, ...], float32, float64, bfloat16 or float16; -inf marks impossible entries.
        tau: the temperature, a positive number, or a tensor broadcastable to the logits' shape
            without `dim`, which may require a gradient.
        hard: whether to return one-hot vectors. Of equal entries the first wins.
        dim: the dimension of the V entries; the last one is the fastest.
        generator: what the noise's seed is drawn from, by default torch's own; in eager code only.
        noise: the noise as uniforms u in [0, 1), shaped like `logits`: g = -log(-log u). Compiled
            code that repeats itself and `torch.vmap` take noise in this way.

    Returns:
        Like `logits`, in their dtype; noise and sums are float32 (float64 for float64 logits).
        Differentiable, twice, in logits and tau. Impossible entries are exactly 0, with gradient 0;
        a row without a possible entry, or with NaN or +inf, is NaN, that row alone. A row whose
        upstream gradient is 0 has the gradient 0. Forward mode raises.

    Raises:
        ValueError: a shape, dimension or value that does not fit, by argument name; tau <= 0 or not
            finite and noise outside [0, 1) raise on the CPU (RuntimeError in compiled code).
        TypeError: a dtype that does not fit.

    Noise from a seed is never stored: it is a function of the seed, the row's number and the
    entry's, the same in every dtype, layout and for any number of threads. Its uniforms have 56
    bits and are fine at both ends: g is in [-3.7, 39.6]. From float32 uniforms of 24 bits, g is in
    [-4.5, 16.7], so that entries with probabilities below 1e-7 are drawn too seldom.

    Memory: the output. The soft one's backward reads nothing else; the hard one's computes y again
    from the logits and the seed rather than keep it, which would double the memory. Error: that of
    float32 sums, a relative 1e-6 of y, and the output's rounding.

    Source: Jang, Gu and Poole (2017), arXiv 1611.01144; Maddison, Mnih and Teh (2017), arXiv
    1611.00712.

    Example:
        >>> logits = torch.tensor([[0.0, 1.0, float("-inf")]], requires_grad=True)
        >>> y = gumbel_softmax(logits, tau=0.5, hard=True)
        >>> y.sum().item(), y[0, 2].item()
        (1.0, 0.0)
        >>> (y * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
        >>> abs(logits.grad[0, 2].item())
        0.0
    """
    checks.tensor("logits", logits)
    dim = _dim(dim, logits)
    rows = logits.movedim(dim, -1)
    checks.logits(rows)
    if not isinstance(hard, bool):
        raise TypeError(f"hard must be a bool, got {type(hard).__name__}")
    temperature = checks.temperature(tau, rows, "tau")
    seed, uniforms = noises.draw(logits.shape, logits, generator, noise)
    if uniforms is not None:
        uniforms = uniforms.movedim(dim, -1)
    run = entry(
        autograd.gumbel_softmax,
        autograd.GumbelSoftmax,
        autograd.EagerGumbelSoftmax,
        *(logits, temperature),
    )
    sample: Tensor = run(rows, temperature, seed, uniforms, hard)
    return sample.movedim(-1, dim)


def straight_through(
    logits: Tensor,
    sample: Tensor,
    *,
    jacobian: str = "straight_through",
    temperature: float | Tensor = 1.0,
) -> Tensor:
    """Hard samples, to the bit, whose backward is J(x, p)^T g: a chosen Jacobian of x for logits.

    With x the one-hot sample, g the gradient that arrives at it, q = softmax(logits / T),
    p = softmax(logits) and J_q = diag(q) - q q^T:

        "straight_through":  J = J_q / T
        "reinmax":           J = J_q + 1/2 (x - q) (x - q)^T - 1/2 J_p

    At T = 1 the second is 1/2 J_p + 1/2 (x - p) (x - p)^T, also known as ZGR; for one bit b with
    P(b = 1) = p it is 1/2 |b - p|. For samples of p, straight-through is exact in expectation for f
    that is linear in x, and reinmax with T = 1 for quadratic f, also across independent variables;
    with any other T it is biased even for linear f.

    Args:
        logits: [..., V], float32, float64, bfloat16 or float16; -inf marks impossible entries.
        sample: tokens, integers [...], or one-hot vectors [..., V] in the logits' dtype; [S, ...]
            of either for S samples a row. Drawn by the caller, usually from softmax(logits).
        jacobian: one of the names above.
        temperature: T, a positive number, or a tensor broadcastable to [...].

    Returns:
        One-hot vectors [..., V] or [S, ..., V] in the logits' dtype: the sample, with a path to the
        logits, twice differentiable. Sums are float32 (float64 for float64 logits). A row of NaN
        has a NaN gradient, that row alone; one whose upstream gradient is 0 has the gradient 0.
        Forward mode raises.

    Raises:
        ValueError: a shape, name or value that does not fit, by argument name; a sample or a
            temperature that requires a gradient, for J takes none into account. On the CPU, tokens
            outside [0, V) and vectors that are not one-hot raise (RuntimeError in compiled code).
        TypeError: a dtype that does not fit.

    Memory: the output, and a token a row for the backward, which makes the gradient in one pass
    over logits and g.

    Source: Bengio, Léonard and Courville (2013), arXiv 1308.3432; Liu et al. (2023), Bridging
    discrete and backpropagation, arXiv 2304.08612 (ReinMax); Shekhovtsov (2023), Cold analysis of
    Rao-Blackwellized straight-through Gumbel-softmax (ZGR).

    Example:
        >>> logits = torch.zeros(1, 2, requires_grad=True)
        >>> x = straight_through(logits, torch.tensor([1]), jacobian="reinmax")
        >>> x.tolist()
        [[0.0, 1.0]]
        >>> x[0, 1].backward()
        >>> logits.grad.tolist()
        [[-0.25, 0.25]]
    """
    checks.logits(logits)
    if jacobian not in JACOBIANS:
        raise ValueError(f"jacobian must be one of {JACOBIANS}, got {jacobian!r}")
    many = _check_sample(sample, logits)
    scale = checks.temperature(temperature, logits)
    if scale is not None and scale.requires_grad:
        raise ValueError("temperature must not require a gradient: J takes none into account")
    if many:
        logits = logits.expand(sample.shape[0], *logits.shape)
        scale = None if scale is None else scale.expand(logits.shape[:-1])
    if not sample.is_floating_point():
        sample = sample.to(torch.int64)
    run = entry(
        autograd.straight_through, autograd.StraightThrough, autograd.EagerStraightThrough, logits
    )
    one_hot: Tensor = run(logits, sample, scale, jacobian)[0]
    return one_hot


def _dim(x: Any, logits: Tensor) -> int:
    dim = scalars.integer("dim", x)
    if logits.dim() == 0:
        raise ValueError("logits must have a dimension of entries, [..., V, ...], got shape ()")
    if not -logits.dim() <= dim < logits.dim():
        raise ValueError(
            f"dim must be in [{-logits.dim()}, {logits.dim()}) for logits {tuple(logits.shape)}, "
            f"got {dim}"
        )
    return dim


def _check_sample(sample: Any, logits: Tensor) -> bool:
    """Tokens or one-hot vectors that fit; whether there are S of each."""
    checks.tensor("sample", sample)
    if sample.requires_grad:
        raise ValueError("sample must not require a gradient, J takes its place: pass .detach()")
    if not sample.is_floating_point():
        if sample.shape == logits.shape and sample.dim() > 0:
            raise ValueError(
                f"sample must be tokens {tuple(logits.shape[:-1])} or [S, ...], or one-hot vectors "
                f"in the logits' dtype, got integers of the logits' shape {tuple(sample.shape)}: "
                "pass one_hot.to(logits.dtype)"
            )
        found = checks.tokens(sample, logits, needed=True, name="sample")
        assert found is not None
        return found.dim() == logits.dim()
    if sample.dtype != logits.dtype:
        raise TypeError(f"sample must be {logits.dtype} like logits, got {sample.dtype}")
    if sample.device != logits.device:
        raise ValueError(f"sample must be on {logits.device} like logits, got {sample.device}")
    many = sample.dim() == logits.dim() + 1
    if sample.shape[many:] != logits.shape:
        raise ValueError(
            f"sample must have shape {tuple(logits.shape)} like logits, or one more dimension in "
            f"front, got {tuple(sample.shape)}"
        )
    return many
