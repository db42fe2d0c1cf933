"""MVE: exact for quadratic f, and of what is, the one whose weights vary least."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from enumeration import assert_unbiased, exact_gradient, moments
from test_estimators import LOGITS
from test_expect import uniforms
from test_straight_through_family import KINDS, bias, cubic, linear, passed, quadratic, random_case
from torch import Tensor

import pgest
from pgest.comparison.outcomes import Kind
from pgest.distributions.base import finite
from pgest.estimators import MVE, ReinMax
from pgest.estimators.minimum_variance import path


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_exact_to_the_second_degree(kind: Kind) -> None:
    for f in (linear, quadratic):
        found = moments(kind, LOGITS[kind], f, "mve")
        assert_unbiased(found, *exact_gradient(kind, LOGITS[kind], f))
    assert bias(kind, cubic, "mve") > 0.02


def jacobians(estimator: Any, logits: Tensor) -> Tensor:
    """J_jk of each token i, [i, j, k]."""
    vocab = len(logits)
    eye = torch.eye(vocab, dtype=logits.dtype)
    rows = [
        torch.stack([passed(pgest.OneHotCategorical(logits), estimator, z, g) for g in eye], -1)
        for z in eye
    ]
    return torch.stack(rows)


def least_norm(logits: Tensor) -> Tensor:
    """The same by brute force: least E |J|^2 under all conditions of exactness, by lstsq.

    With p_i J_jk(i) = u_ik and M = diag(p) - p p^T: sum_i u_ik = M_jk (linear f), and u_ik + u_ki =
    0, u_ii = M_ji / 2 (quadratic f).
    """
    p, n = logits.softmax(-1), len(logits)
    m = torch.diag(p) - torch.outer(p, p)
    conditions, sides = [], []
    for k in range(n):
        u = torch.zeros(n, n, dtype=p.dtype)
        u[:, k] = 1
        conditions.append(u)
        sides.append(m[:, k])
        for i in range(k + 1):
            u = torch.zeros(n, n, dtype=p.dtype)
            u[i, k] += 1
            u[k, i] += 1
            conditions.append(u)
            sides.append(m[:, i] if i == k else torch.zeros_like(p))
    scale = p.sqrt()[:, None]  # sum_i p_i J(i)^2 is the square of u / sqrt(p)
    a = torch.stack([(u * scale).flatten() for u in conditions])
    found = torch.linalg.lstsq(a, torch.stack(sides), driver="gelsd").solution
    u = scale[..., None] * found.view(n, n, n)
    return (u / p[:, None, None]).permute(0, 2, 1)


@pytest.mark.parametrize("vocab", [2, 3, 5])
def test_it_is_the_least_of_all_that_are_exact(vocab: int) -> None:
    logits = random_case((vocab,))[0]
    found, expected = jacobians(MVE(), logits), least_norm(logits.detach())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    p = logits.detach().softmax(-1)[:, None, None]
    energy, other = ((p * j.square()).sum() for j in (found, jacobians(ReinMax(), logits)))
    if vocab == 2:
        torch.testing.assert_close(energy, other, rtol=1e-12, atol=0)
    else:
        assert energy < 0.995 * other


def test_a_bit_is_two_logits() -> None:
    logits, g = random_case((500,))
    pairs = pgest.OneHotCategorical(torch.stack([torch.zeros_like(logits), logits], -1))
    b = pgest.Bernoulli(logits).sample(noise=uniforms(500))
    path = MVE().passed(pairs, torch.stack([1 - b, b], -1))[..., 1]
    (expected,) = torch.autograd.grad((path * g).sum(), logits)
    found = passed(pgest.Bernoulli(logits), MVE(), b, g)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_samples_share_the_system_of_their_variable() -> None:
    logits, g = random_case((2, 3, 4))
    q = pgest.OneHotCategorical(logits)
    z = q.sample((5,), noise=uniforms(5, 2, 3))
    (found,) = torch.autograd.grad((MVE().passed(q, z) * g).sum(), logits)
    one_by_one = sum(passed(q, MVE(), sample, g) for sample in z)
    torch.testing.assert_close(found, one_by_one, rtol=0, atol=1e-12)


def test_the_gradient_may_be_differentiated() -> None:
    logits, g = random_case((3, 4))
    sample = torch.eye(4, dtype=torch.float64)[[0, 2, 1]]

    def gradient(x: Tensor) -> Tensor:
        path = MVE().passed(pgest.OneHotCategorical(x), sample)
        return torch.autograd.grad((path * g).sum(), x, create_graph=True)[0]

    assert torch.autograd.gradcheck(gradient, logits)


def test_extreme_logits_are_as_good_as_others() -> None:
    """Against float64, in float32, where probabilities of the second row underflow."""
    rows = torch.tensor([[0.0, -9.0, 8.0, -torch.inf, 3.0], [200.0, 0.0, 198.0, 199.0, -150.0]])
    z = torch.eye(5)[[0, 2]]
    g = torch.tensor([1.0, -2.0, 3.0, 0.5, 4.0])
    found = passed(pgest.OneHotCategorical(rows.clone().requires_grad_()), MVE(), z, g)
    wide = rows.double().requires_grad_()
    expected = passed(pgest.OneHotCategorical(wide), MVE(), z.double(), g.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert expected.abs().max() > 0.01


def test_the_path_of_compiled_code_has_the_same_jacobian() -> None:
    logits, g = random_case((2, 3, 4))
    with torch.no_grad():
        logits[0, 0, 1] = -torch.inf
    q = pgest.OneHotCategorical(logits)
    z = q.sample((5,), noise=uniforms(5, 2, 3))
    found = torch.autograd.grad((path(finite(logits), z) * g).sum(), logits)
    torch.testing.assert_close(found, torch.autograd.grad((MVE().passed(q, z) * g).sum(), logits))
