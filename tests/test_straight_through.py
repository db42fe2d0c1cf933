"""straight_through: for which f each Jacobian is exact, by enumeration; edges and errors."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from test_noise_words import seeded
from torch import Tensor

import pgest

D, K = 3, 4  # independent variables, values of each


def logits_of(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(0), dtype=torch.float64)


def linear(x: Tensor) -> Tensor:
    c = torch.linspace(-1, 2, D * K, dtype=torch.float64)
    return x.flatten(-2) @ c + 3


def quadratic(x: Tensor) -> Tensor:
    """With cross terms between the variables."""
    a = torch.randn(D * K, D * K, generator=seeded(1), dtype=torch.float64)
    return ((x.flatten(-2) @ a) * x.flatten(-2)).sum(-1) + linear(x)


def cubic(x: Tensor) -> Tensor:
    return (linear(x) - 4) ** 3


def expected_gradient(f: Any, logits: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """The mean of the estimate over all joint samples, and the gradient of E[f], both exact."""
    tokens = torch.tensor(list(itertools.product(range(K), repeat=D)))
    z = logits.clone().requires_grad_()
    log_p = z.log_softmax(-1)
    p = log_p[torch.arange(D), tokens].sum(-1).exp()
    x = pgest.straight_through(z, tokens, **options)
    cost = f(x)
    (estimate,) = torch.autograd.grad((p.detach() * cost).sum(), z)
    (truth,) = torch.autograd.grad((p * cost.detach()).sum(), z)
    return estimate, truth


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    ("jacobian", "f", "exact"),
    [
        ("straight_through", linear, True),
        ("straight_through", quadratic, False),
        ("straight_through", cubic, False),
        ("reinmax", linear, True),
        ("reinmax", quadratic, True),
        ("reinmax", cubic, False),
    ],
)
def test_exactness_by_enumeration(jacobian: str, f: Any, exact: bool) -> None:
    estimate, truth = expected_gradient(f, logits_of(D, K), jacobian=jacobian)
    if exact:
        assert relative(estimate, truth) < 1e-12
    else:
        assert relative(estimate, truth) > 0.05


@pytest.mark.parametrize("jacobian", ["straight_through", "reinmax"])
def test_temperature_biases_even_linear_f(jacobian: str) -> None:
    options = {"jacobian": jacobian, "temperature": 1.3}
    estimate, truth = expected_gradient(linear, logits_of(D, K), **options)
    assert relative(estimate, truth) > 0.02


def jacobian_of(logits: Tensor, token: int, **options: Any) -> Tensor:
    def run(z: Tensor) -> Tensor:
        return pgest.straight_through(z, torch.tensor(token), **options)

    return torch.func.jacrev(run)(logits)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 1.5])
def test_the_jacobians_are_their_formulas(temperature: float) -> None:
    z = logits_of(K)
    q, p = (z / temperature).softmax(-1), z.softmax(-1)
    j_q, j_p = (torch.diag(x) - torch.outer(x, x) for x in (q, p))
    for token in range(K):
        x = torch.nn.functional.one_hot(torch.tensor(token), K).double()
        outer = torch.outer(x - q, x - q)
        found = jacobian_of(z, token, temperature=temperature)
        torch.testing.assert_close(found, j_q / temperature)
        found = jacobian_of(z, token, jacobian="reinmax", temperature=temperature)
        torch.testing.assert_close(found, j_q + outer / 2 - j_p / 2)


def test_reinmax_of_a_bit() -> None:
    """1/2 |b - p|, as one of two values whose other logit is 0."""
    logit = torch.tensor(0.7, dtype=torch.float64)
    p = logit.sigmoid()
    z = torch.stack([torch.zeros(()).double(), logit])
    for bit in (0, 1):
        found = jacobian_of(z, bit, jacobian="reinmax")[1, 1]
        torch.testing.assert_close(found, (bit - p).abs() / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_forward_is_the_sample(dtype: torch.dtype) -> None:
    logits = torch.randn(2, 3, 3000, generator=seeded(0)).to(dtype)
    tokens = torch.randint(3000, (4, 2, 3), generator=seeded(1))
    x = pgest.straight_through(logits, tokens)
    assert x.dtype == dtype
    assert torch.equal(x, torch.nn.functional.one_hot(tokens, 3000).to(dtype))
    assert torch.equal(pgest.straight_through(logits, x), x)
    assert torch.equal(pgest.straight_through(logits, tokens[0].to(torch.int32)), x[0])


def test_impossible_entries_and_broken_rows() -> None:
    logits = torch.randn(4, 4500, generator=seeded(0))
    logits[0, ::2] = -math.inf
    logits[1] = -math.inf
    logits[2, 7] = math.nan
    logits.requires_grad_()
    tokens = torch.tensor([1, 0, 0, 3])
    upstream = torch.randn(4, 4500, generator=seeded(1))
    upstream[0, 2] = math.inf
    for jacobian in ("straight_through", "reinmax"):
        for temperature in (1.0, 1.2):
            options: dict[str, Any] = {"jacobian": jacobian, "temperature": temperature}
            x = pgest.straight_through(logits, tokens, **options)
            (grad,) = torch.autograd.grad(x, logits, upstream)
            assert (grad[0, ::2] == 0).all()
            assert grad[[0, 3]].isfinite().all()
            assert grad[[0, 3], tokens[[0, 3]]].abs().min() > 0
            assert grad[[1, 2]].isnan().all()
            silent = upstream.clone().index_fill_(0, torch.tensor([1, 2]), 0.0)
            x = pgest.straight_through(logits, tokens, **options)
            (grad,) = torch.autograd.grad(x, logits, silent)
            assert (grad[[1, 2]] == 0).all()


def test_an_infinite_gradient_of_what_is_never_drawn_counts_nothing() -> None:
    """Entries whose probability rounds to 0, but only beside later ones of their row."""
    logits = torch.zeros(2, 4500)
    logits[:, :1100] = -150
    logits.requires_grad_()
    upstream = torch.randn(2, 4500, generator=seeded(1))
    upstream[:, :1100] = math.inf
    for temperature in (1.0, 1.2):
        for jacobian in ("straight_through", "reinmax"):
            options: dict[str, Any] = {"jacobian": jacobian, "temperature": temperature}
            x = pgest.straight_through(logits, torch.tensor([2000, 3000]), **options)
            (grad,) = torch.autograd.grad(x, logits, upstream)
            assert (grad[:, :1100] == 0).all()
            finite = torch.where(upstream.isinf(), 0.0, upstream)
            x = pgest.straight_through(logits, torch.tensor([2000, 3000]), **options)
            (expected,) = torch.autograd.grad(x, logits, finite)
            torch.testing.assert_close(grad, expected)
    for hard in (False, True):
        y = pgest.gumbel_softmax(logits, hard=hard, generator=seeded(0))
        (grad,) = torch.autograd.grad(y, logits, upstream)
        assert (grad[:, :1100] == 0).all()
        assert grad.isfinite().all()


def test_samples_share_their_logits() -> None:
    logits = torch.randn(3, 5, generator=seeded(0), dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(5, (4, 3), generator=seeded(1))
    upstream = torch.randn(4, 3, 5, generator=seeded(2), dtype=torch.float64)
    x = pgest.straight_through(logits, tokens, jacobian="reinmax")
    (grad,) = torch.autograd.grad(x, logits, upstream)
    each = [pgest.straight_through(logits, t, jacobian="reinmax") for t in tokens]
    (expected,) = torch.autograd.grad(torch.stack(each), logits, upstream)
    torch.testing.assert_close(grad, expected)


Z = torch.zeros(2, 5)
Y = torch.zeros(2, dtype=torch.int64)
ERRORS: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
    ({"logits": torch.zeros(2, 5, dtype=torch.int32)}, TypeError, "^logits must be float32"),
    ({"sample": [1, 2]}, TypeError, "^sample must be a tensor, got list"),
    ({"sample": torch.zeros(3, dtype=torch.int64)}, ValueError, r"^sample must have shape \(2,\)"),
    ({"sample": torch.ones(2, dtype=torch.bool)}, TypeError, "^sample must be int64"),
    ({"sample": torch.zeros(2, 4)}, ValueError, r"^sample must have shape \(2, 5\) like logits"),
    ({"sample": torch.zeros(2, 5).double()}, TypeError, "^sample must be torch.float32 like"),
    ({"sample": torch.zeros(2, 5)}, ValueError, "^sample must be one-hot.* got another row 0"),
    ({"sample": torch.eye(5)[:2] / 2}, ValueError, "^sample must be one-hot"),
    ({"sample": torch.ones(2, 5)}, ValueError, "^sample must be one-hot"),
    ({"sample": torch.eye(5)[:2].requires_grad_()}, ValueError, "^sample must not require"),
    ({"sample": torch.tensor([0, 5])}, ValueError, r"^sample must have tokens in \[0, 5\).* row 1"),
    ({"sample": torch.tensor([-1, 0])}, ValueError, "^sample must have tokens in .* row 0"),
    ({"jacobian": "st"}, ValueError, r"^jacobian must be one of \('straight_through', 'reinmax'\)"),
    ({"temperature": 0.0}, ValueError, "^temperature must be positive and finite, got 0"),
    ({"temperature": torch.zeros(2)}, ValueError, "^temperature must be .* got 0.0+ in row 0"),
    (
        {"temperature": torch.ones(2, requires_grad=True)},
        ValueError,
        "^temperature must not require a gradient",
    ),
)


@pytest.mark.parametrize(("options", "kind", "message"), ERRORS)
def test_bad_arguments(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"logits": Z, "sample": Y, **options}
    with pytest.raises(kind, match=message):
        pgest.straight_through(arguments.pop("logits"), arguments.pop("sample"), **arguments)
