"""VIMCO: the gradient of a bound of several samples, by enumerating all of them."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import pgest
from pgest.estimators import vimco

F64 = torch.float64
Q = torch.tensor([0.3, -1.1], dtype=F64)
P = torch.tensor([[0.4, -0.2], [1.0, 0.7]], dtype=F64)


def log_joint(z: Tensor, p: Tensor) -> Tensor:
    """log p(x, z) of a small model: bits that interact, not normalised."""
    return (z @ p * z).sum(-1) + (z.sum(-1) - 0.7) ** 2 * p[..., 0, 0]


def tuples(samples: int) -> Tensor:
    """Every outcome of S samples of two bits, [S, rows, 2]."""
    table = torch.tensor(list(product([0.0, 1.0], repeat=2 * samples)), dtype=F64)
    return table.view(-1, samples, 2).movedim(1, 0)


def bound_of(log_weight: Tensor) -> Tensor:
    return log_weight.logsumexp(0) - math.log(len(log_weight))


@pytest.mark.parametrize("samples", [2, 3])
def test_it_is_unbiased_for_both_models(samples: int) -> None:
    z = tuples(samples)
    q, p = (x.clone().requires_grad_() for x in (Q, P))
    bits = pgest.Bernoulli(q.expand(z.shape[1], 2), event_dims=1)
    logp = bits.log_prob(z)
    probability = logp.sum(0).exp()
    exact = (probability * bound_of(log_joint(z, p) - logp)).sum()
    expected = torch.autograd.grad(exact, (q, p), retain_graph=True)
    estimate = vimco(log_joint(z, p) - logp, logp)
    total = (probability.detach() * estimate).sum()
    torch.testing.assert_close(total.detach(), exact.detach(), rtol=0, atol=1e-12)
    found = torch.autograd.grad(total, (q, p))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    for x in expected:
        assert x.abs().max() > 1e-2


def test_a_baseline_with_the_sample_itself_is_caught() -> None:
    """The mean signal instead of the signal without the sample: biased."""
    z, q = tuples(2), Q.clone().requires_grad_()
    logp = pgest.Bernoulli(q.expand(z.shape[1], 2), event_dims=1).log_prob(z)
    weight = log_joint(z, P) - logp
    probability = logp.sum(0).exp()
    (expected,) = torch.autograd.grad((probability * bound_of(weight)).sum(), q, retain_graph=True)
    wrong = (bound_of(weight) - weight.mean(0)).detach() * logp.sum(0) + bound_of(weight)
    (found,) = torch.autograd.grad((probability.detach() * wrong).sum(), q)
    assert (found - expected).abs().max() > 1e-2


def test_two_samples_have_the_two_term_formula() -> None:
    """The geometric mean of the others is the other one: bound_s is its log weight."""
    weight = torch.randn(2, 50, dtype=F64, generator=torch.Generator().manual_seed(0))
    logp = torch.zeros(2, 50, dtype=F64, requires_grad=True)
    (signal,) = torch.autograd.grad(vimco(weight, logp).sum(), logp)
    expected = bound_of(weight) - weight.flip(0)
    torch.testing.assert_close(signal, expected, rtol=0, atol=1e-12)


def test_a_scale_of_the_weights_changes_the_value_alone() -> None:
    weight = torch.randn(4, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
    logp = torch.zeros(4, 5, dtype=F64, requires_grad=True)
    found = [torch.autograd.grad(vimco(weight + c, logp).sum(), logp)[0] for c in (0.0, 30.0)]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(vimco(weight + 3, logp), vimco(weight, logp) + 3)


def test_its_variance_is_less_than_without_a_baseline() -> None:
    z, q = tuples(2), Q.clone()
    rows = q.expand(z.shape[1], 2).clone().requires_grad_()
    logp = pgest.Bernoulli(rows, event_dims=1).log_prob(z)
    probability = logp.sum(0).exp().detach()[:, None]
    weight = (log_joint(z, P) - logp).detach() + 5
    variance = []
    for value in (vimco(weight, logp), bound_of(weight) * logp.sum(0)):
        (g,) = torch.autograd.grad(value.sum(), rows, retain_graph=True)
        mean = (probability * g).sum(0)
        variance.append((probability * (g - mean) ** 2).sum())
    assert variance[0] < 0.1 * variance[1]


def test_excluded_samples_are_everyday_input() -> None:
    """One of weight 0 adds nothing; one that alone weighs anything has the bound as its signal."""
    inf = torch.inf
    weight = torch.tensor([[0.5, 0.5, -inf], [-inf, 1.0, -inf], [-inf, -inf, -inf]], dtype=F64)
    logp = torch.zeros(3, 3, dtype=F64, requires_grad=True)
    value = vimco(weight, logp)
    torch.testing.assert_close(value.detach()[:2], bound_of(weight)[:2])
    assert value[2] == -inf
    (signal,) = torch.autograd.grad(value[:2].sum(), logp)
    log3 = math.log(3)
    assert signal.isfinite().all()
    assert (signal[:, 2] == 0).all()
    total = math.log(math.exp(0.5) + math.e)
    torch.testing.assert_close(signal[0, 0], torch.tensor(0.5, dtype=F64))
    torch.testing.assert_close(signal[0, 1], torch.tensor(total - 1, dtype=F64))
    torch.testing.assert_close(value[0].detach(), torch.tensor(0.5 - log3, dtype=F64))


def defined(log_weight: Tensor) -> Tensor:
    """What each sample adds to the bound, by a loop over the samples."""
    signal = []
    for s in range(len(log_weight)):
        others = torch.cat([log_weight[:s], log_weight[s + 1 :]])
        with_mean = torch.cat([others, others.mean(0, keepdim=True)])
        signal.append(log_weight.logsumexp(0) - with_mean.logsumexp(0))
    return torch.stack(signal)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e3])
@pytest.mark.parametrize("samples", [2, 3, 64])
def test_every_sample_has_the_signal_of_the_definition(samples: int, scale: float) -> None:
    """Where one weight is all, where all are equal, and where some are 0."""
    g = torch.Generator().manual_seed(0)
    weight = scale * torch.randn(samples, 40, dtype=F64, generator=g)
    weight[0, :10] += 50 * scale
    logp = torch.zeros_like(weight).requires_grad_()
    (signal,) = torch.autograd.grad(vimco(weight, logp).sum(), logp)
    # A difference of logarithms, as exact as these are.
    atol = 1e-12 * max(1, float(weight.abs().max()))
    torch.testing.assert_close(signal, defined(weight), rtol=0, atol=atol)
    weight[1] = -torch.inf
    (signal,) = torch.autograd.grad(vimco(weight, logp).sum(), logp)
    # Of two, the other one alone weighs anything: what it adds is the bound.
    expected = torch.where(defined(weight).isinf(), weight.logsumexp(0), defined(weight))
    torch.testing.assert_close(signal, expected, rtol=0, atol=atol)


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.numel = max(self.numel, out.numel())
        return out


def test_it_holds_a_few_numbers_a_sample() -> None:
    weight = torch.zeros(300, 5, requires_grad=True)
    with Largest() as largest:
        vimco(weight, 2 * weight).sum().backward()
    assert 300 * 5 <= largest.numel < 2 * 300 * 5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_other_types_and_shapes(dtype: torch.dtype) -> None:
    weight = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    logp = torch.zeros(4, 3, 2, dtype=dtype, requires_grad=True)
    value = vimco(weight.mT.contiguous().mT, logp)
    assert value.shape == (3, 2)
    assert value.dtype == torch.float32
    (found,) = torch.autograd.grad(value.sum(), logp)
    wide = torch.zeros(4, 3, 2, requires_grad=True)
    (expected,) = torch.autograd.grad(vimco(weight.float(), wide).sum(), wide)
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-2)
    scalar = vimco(weight[:, 0, 0], logp[:, 0, 0])
    torch.testing.assert_close(scalar, value[0, 0])


def test_it_works_under_transforms_and_compile() -> None:
    weight = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))

    def run(logits: Tensor, weight: Tensor) -> Tensor:
        return vimco(weight - logits, logits * weight).sum()

    logits = torch.randn(4, 5)
    leaf = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(run(leaf, weight), leaf)
    torch.testing.assert_close(torch.func.grad(run)(logits, weight), expected)
    each = torch.func.vmap(torch.func.grad(run), in_dims=1, out_dims=1)(logits, weight)
    torch.testing.assert_close(each, expected)
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(leaf, weight), leaf)[0], expected)


def test_a_second_derivative_is_refused() -> None:
    weight = torch.zeros(3, requires_grad=True)
    (first,) = torch.autograd.grad(vimco(weight * 2, weight), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="expect: vimco is of first order only"):
        torch.autograd.grad(first.sum(), weight)


@pytest.mark.parametrize(
    ("weight", "logp", "kind", "message"),
    [
        (1.0, torch.zeros(2), TypeError, "log_weight must be a floating-point tensor, got float"),
        (torch.zeros(2).long(), torch.zeros(2), TypeError, r"log_weight must .* torch\.int64"),
        (torch.zeros(2), torch.zeros(2).bool(), TypeError, r"logp must .* got torch\.bool"),
        (torch.zeros(1, 3), torch.zeros(1, 3), ValueError, r"at least 2 samples, got \(1, 3\)"),
        (torch.zeros(()), torch.zeros(()), ValueError, r"at least 2 samples, got \(\)"),
        (torch.zeros(2, 3), torch.zeros(2), ValueError, r"logp must have shape \(2, 3\) .* \(2,\)"),
    ],
)
def test_misuse_is_named(weight: Any, logp: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        vimco(weight, logp)


def test_it_is_no_estimator_of_an_expectation() -> None:
    message = (
        r"^estimator 'vimco' bounds a logarithm, which is no E\[f\]: call pgest\.estimators\.v"
    )
    with pytest.raises(ValueError, match=message):
        pgest.expect(lambda z: z, pgest.Bernoulli(torch.zeros(3)), "vimco")
