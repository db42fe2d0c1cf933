"""gumbel_softmax and straight_through in the op table."""

from __future__ import annotations

from typing import Any

import torch
from op_row import Inputs, Op, Outputs
from torch import Tensor

import pgest
from pgest import reference


def _tau(batch: torch.Size, dtype: torch.dtype) -> tuple[Tensor, ...]:
    rows = torch.arange(1, batch.numel() + 1, dtype=torch.float64).view(batch)
    return (0.5 + rows / max(1, batch.numel()),)


def _noise(x: Inputs) -> Tensor:
    """Uniforms that depend on the place alone, exact in float32 and well away from 1."""
    place = torch.arange(x.logits.shape[-1] * 7, dtype=torch.float64)[::7]
    u = (((place + 1) * 0.6180339887498949) % 1 * 1000).floor() / 1024
    return u.to(reference.statistics_dtype(x.logits)).expand(x.logits.shape)


def _sample(x: Inputs, hard: bool, tau: Any = 1.0) -> Outputs:
    return (pgest.gumbel_softmax(x.logits, tau, hard, noise=_noise(x)),)


def _define(x: Inputs, hard: bool, tau: Tensor | None = None) -> Outputs:
    gumbel = reference.gumbel_of(_noise(x))
    return (reference.gumbel_softmax(x.logits, tau, gumbel, hard),)


def _plain(x: Inputs, hard: bool, tau: Tensor | None = None) -> Outputs:
    """As in `F.gumbel_softmax`, in the dtype of the logits."""
    dtype = x.logits.dtype
    noisy = x.logits + reference.gumbel_of(_noise(x)).to(dtype)
    y = (noisy if tau is None else noisy / tau[..., None].to(dtype)).softmax(-1)
    if not hard:
        return (y,)
    one_hot = torch.zeros_like(y).scatter_(-1, y.argmax(-1, keepdim=True), 1.0)
    return (one_hot - y.detach() + y,)


def _raw(x: Inputs, hard: bool) -> tuple[Any, ...]:
    tau = x.extras[0] if x.extras else None
    return x.logits, tau, None, _noise(x), hard


def _raw_backward(x: Inputs) -> tuple[Any, ...]:
    soft = _define(x, False)[0].detach().requires_grad_()
    grad = torch.linspace(-1, 1, soft.numel(), dtype=soft.dtype).view(soft.shape).requires_grad_()
    return soft, grad, x.extras[0] if x.extras else None, bool(x.extras)


def _gumbel_softmax(name: str, hard: bool, **options: Any) -> Op:
    def tau(x: Inputs) -> tuple[Any, ...]:
        return x.extras

    return Op(
        name=name,
        run=lambda x: _sample(x, hard, *tau(x)),
        define=lambda x: _define(x, hard, *tau(x)),
        plain=lambda x: _plain(x, hard, *tau(x)),
        raw="gumbel_softmax",
        raw_args=lambda x: _raw(x, hard),
        raw_backward="gumbel_softmax_backward",
        raw_backward_args=_raw_backward,
        inplace=False,
        sample=True,
        surrogate=hard,
        **options,
    )


def _one_hot(x: Inputs) -> Tensor:
    """The samples of tokens [...] or [S, ...] as vectors."""
    return reference.one_hot(x.tokens, x.logits.shape[-1], x.logits.dtype)


def _straight_through(x: Inputs, jacobian: str, vectors: bool, temperature: Any) -> Outputs:
    sample = _one_hot(x) if vectors else x.tokens
    options: dict[str, Any] = {"jacobian": jacobian, "temperature": temperature}
    return (pgest.straight_through(x.logits, sample, **options),)


def _with_jacobian(x: Inputs, jacobian: str, temperature: float) -> Outputs:
    """The definition: what the sample is, plus 0 with the gradient J g of surrogates."""
    u = x.logits if x.logits.dtype == torch.float64 else x.logits.float()
    sample = _one_hot(x).to(u.dtype)
    q, p = (u / temperature).softmax(-1), u.softmax(-1)
    if jacobian == "straight_through":
        path = q
    else:  # two softmaxes, as in the paper: of the mean of sample and q, and of p
        mean = (sample + q).detach() / 2
        path = 2 * ((mean.log() - u).detach() + u).softmax(-1) - p / 2
    return ((sample + path - path.detach()).to(x.logits.dtype),)


def _jacobian(name: str, jacobian: str, vectors: bool, temperature: float, **options: Any) -> Op:
    def raw_backward(x: Inputs) -> tuple[Any, ...]:
        grad = torch.linspace(-1, 1, x.logits.numel(), dtype=x.logits.dtype)
        grad = grad.view(x.logits.shape).requires_grad_()
        t = torch.full(x.logits.shape[:-1], temperature, dtype=torch.float64)
        tokens = x.tokens if x.tokens.dim() < x.logits.dim() else x.tokens[0]
        return x.logits, tokens, t, grad, jacobian

    def raw(x: Inputs) -> tuple[Any, ...]:
        logits, tokens, t, _, _ = raw_backward(x)
        return logits, tokens, t, jacobian

    return Op(
        name=name,
        run=lambda x: _straight_through(x, jacobian, vectors, temperature),
        define=lambda x: _closed_form(x, jacobian, temperature),
        plain=lambda x: _with_jacobian(x, jacobian, temperature),
        extras=lambda batch, dtype: (),
        raw="straight_through",
        raw_args=raw,
        raw_backward="straight_through_backward",
        raw_backward_args=raw_backward,
        inplace=False,
        sample=True,
        surrogate=True,
        **options,
    )


class _ClosedForm(torch.autograd.Function):
    """The sample, with the definition's gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, tokens: Tensor, jacobian: str, temperature: float) -> Tensor:
        return reference.one_hot(tokens, logits.shape[-1], logits.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.jacobian, ctx.temperature = inputs[2:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        logits, tokens = ctx.saved_tensors
        t = torch.full(logits.shape[:-1], ctx.temperature, dtype=torch.float64)
        args = (logits, tokens, t, grad, ctx.jacobian)
        return reference.straight_through_backward(*args), None, None, None


def _closed_form(x: Inputs, jacobian: str, temperature: float) -> Outputs:
    logits = x.logits.expand(*x.tokens.shape, x.logits.shape[-1])
    return (_ClosedForm.apply(logits, x.tokens, jacobian, temperature),)


ROWS = (
    _gumbel_softmax("gumbel_softmax", False, extras=lambda batch, dtype: ()),
    _gumbel_softmax("gumbel_softmax with tau", False, extras=_tau, compile_backend="aot_eager"),
    _gumbel_softmax("gumbel_softmax hard", True, extras=_tau, compile_backend="aot_eager"),
    _jacobian("straight_through", "straight_through", False, 0.7),
    _jacobian("reinmax", "reinmax", False, 1.0, compile_backend="aot_eager"),
    _jacobian("reinmax of vectors with T", "reinmax", True, 1.3, compile_backend="aot_eager"),
)
