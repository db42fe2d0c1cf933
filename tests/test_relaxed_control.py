"""REBAR and RELAX: unbiased, by quadrature over their noise; identities, and what they learn."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from enumeration import exact_gradient
from torch import Tensor, nn

import pgest
from pgest.comparison.outcomes import Kind
from pgest.estimators import Rebar, Relax

F64 = torch.float64
BIT, BITS = torch.tensor([0.6], dtype=F64), torch.tensor([0.6, -1.1], dtype=F64)
PAIR, TRIPLE = torch.tensor([0.3, -0.8], dtype=F64), torch.tensor([0.3, -0.8, 0.5], dtype=F64)
C = torch.tensor([1.3, -0.7, 0.4], dtype=F64)


def f(z: Tensor) -> Tensor:
    return ((z * C[: z.shape[-1]]).sum(-1) - 0.4) ** 2 + z.prod(-1)


class Surrogate(nn.Module):
    """A smooth function of relaxed samples."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(C[:n].clone())

    def forward(self, r: Tensor) -> Tensor:
        return (r * self.weight).sum(-1).square() + 0.3 * (r * self.weight).sum(-1)


class Zero(nn.Module):
    """No control."""

    def forward(self, r: Tensor) -> Tensor:
        return 0 * r.sum(-1)


def of_bits(logits: Tensor) -> list[tuple[float, Tensor, Tensor, Tensor]]:
    """For each value: its probability, the noise of r given it and of r', the rule's weights."""
    x, w = (torch.tensor(a) for a in np.polynomial.legendre.leggauss(24))
    x, w, p = (x + 1) / 2, w / 2, logits.sigmoid()
    index = torch.tensor(list(product(range(24), repeat=len(logits))))
    v, weight, found = x[index], w[index].prod(-1), []
    for values in product([0.0, 1.0], repeat=len(logits)):
        b = torch.tensor(values, dtype=F64)
        u = torch.where(b > 0, v * p, p + v * (1 - p))
        found.append((float(torch.where(b > 0, p, 1 - p).prod()), u, v, weight))
    return found


def of_one(logits: Tensor) -> list[tuple[float, Tensor, Tensor, Tensor]]:
    """The same for one of V: only the ratios of the V exponentials count.

    The density of the ratios is trapezoidal in their logarithms.
    """
    p, n, step = logits.softmax(-1), len(logits) - 1, 0.5
    axis = torch.arange(-27, 27, step, dtype=F64)
    log_s = torch.cartesian_prod(*[axis] * n).view(-1, n)
    s = log_s.exp()
    weight = [1.0, 1.0, 2.0][n] * s.prod(-1) * step**n / (1 + s.sum(-1)) ** (n + 1)
    kept = weight > 1e-17
    s, weight, found = s[kept], weight[kept], []
    for top in range(n + 1):
        e = torch.cat([s[:, :top], torch.ones(len(s), 1, dtype=F64), s[:, top:]], -1)
        e = e / e.amax(-1, keepdim=True)
        moved = p * e[:, top : top + 1] + torch.where(torch.arange(n + 1) == top, 0.0, e)
        u, v = ((-x).exp().clamp_max(1 - 2.0**-53) for x in (moved, e))
        found.append((float(p[top]), u, v, weight))
    return found


def expectation(estimator: Any, kind: Kind, logits: Tensor) -> Tensor:
    """The expected gradient: given z, what r adds and what r' adds are summed apart.

    As a sum of three: r varies and r' stands still, the other way round, minus both stand still.
    """
    total = torch.zeros_like(logits)
    for chance, u, v, weight in of_bits(logits) if kind is pgest.Bernoulli else of_one(logits):
        at = len(u) // 2
        still_u, still_v = u[at : at + 1], v[at : at + 1]
        us = torch.cat([u, still_u.expand_as(v), still_u])
        vs = torch.cat([still_v.expand_as(u), v, still_v])
        share = chance * torch.cat([weight, weight, -torch.ones(1, dtype=F64)])
        rows = logits.expand(len(us), *logits.shape).clone().requires_grad_()
        q = kind(rows, event_dims=int(kind is pgest.Bernoulli))
        noise = torch.stack([us, vs])[:, None]
        value = pgest.expect(f, q, estimator, noise=noise)
        (gradient,) = torch.autograd.grad(value.sum(), rows)
        total += share @ gradient
    return total


CASES = [
    (pgest.Bernoulli, BIT, 1e-10),
    (pgest.Bernoulli, BITS, 1e-10),
    (pgest.OneHotCategorical, PAIR, 1e-10),
    (pgest.OneHotCategorical, TRIPLE, 1e-9),
]


def truth(kind: Kind, logits: Tensor) -> Tensor:
    if kind is pgest.Bernoulli:
        return exact_gradient(kind, logits, f)[1]
    return exact_gradient(kind, logits[None], lambda z: f(z[..., 0, :]))[1][0]


@pytest.mark.parametrize(("kind", "logits", "error"), CASES)
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_they_are_unbiased(kind: Kind, logits: Tensor, error: float, temperature: float) -> None:
    expected = truth(kind, logits)
    surrogate = Surrogate(len(logits))
    for estimator in (
        Rebar(temperature, learn=False),
        Rebar(temperature, scale=0.4),
        Relax(surrogate, temperature),
    ):
        found = expectation(estimator, kind, logits)
        torch.testing.assert_close(found, expected, rtol=0, atol=error)


@pytest.mark.parametrize(("kind", "logits", "error"), CASES[:3])
def test_the_harness_catches_wrong_ones(
    kind: Kind, logits: Tensor, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the path of what is relaxed given z."""
    right: Any = vars(kind)["relaxed_given"]

    def wrong(q: Any, sample: Tensor, noise: Tensor, *, temperature: Any = 1.0) -> Tensor:
        return right(q, sample, noise, temperature=temperature).detach()

    monkeypatch.setattr(kind, "relaxed_given", wrong)
    found = expectation(Rebar(learn=False), kind, logits)
    assert (found - truth(kind, logits)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [pgest.Bernoulli, pgest.OneHotCategorical])
def test_without_control_they_are_reinforce(kind: Kind) -> None:
    torch.manual_seed(0)
    noise, logits = torch.rand(2, 4, 50, 3, dtype=F64), torch.randn(50, 3, dtype=F64)

    def gradient(estimator: Any, rows: Tensor, u: Tensor) -> Tensor:
        q = kind(rows, event_dims=int(kind is pgest.Bernoulli))
        value = pgest.expect(f, q, estimator, num_samples=4, noise=u)
        return torch.autograd.grad(value.sum(), rows)[0]

    rows = logits.clone().requires_grad_()
    found = [gradient(e, rows, noise) for e in (Rebar(scale=0.0), Relax(Zero()))]
    if kind is pgest.Bernoulli:
        expected = gradient("reinforce", rows, noise[0])
    else:
        gumbel = rows.detach() - (-noise[0].log()).log()
        z = torch.nn.functional.one_hot(gumbel.argmax(-1), 3).double()
        surrogate = (f(z) * kind(rows).log_prob(z)).mean(0)
        (expected,) = torch.autograd.grad(surrogate.sum(), rows)
    for x in found:
        torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [pgest.Bernoulli, pgest.OneHotCategorical])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_what_is_relaxed_given_a_sample_rounds_to_it(kind: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = 6 * torch.randn(2000, 3, dtype=dtype)
    logits[0, 1], logits[1, 0] = -torch.inf, -torch.inf
    if kind is pgest.Bernoulli:
        logits[2, 0] = torch.inf
    q = kind(logits.requires_grad_(), event_dims=int(kind is pgest.Bernoulli))
    z, v = q.sample(), torch.rand(2000, 3, dtype=dtype)
    v[3], v[4, 1] = 0.0, 1 - torch.finfo(dtype).eps / 2
    relaxed = q.relaxed_given(z, v, temperature=0.7)
    assert torch.equal(q.nearest(relaxed), z)
    (gradient,) = torch.autograd.grad(relaxed[..., 0].sum(), logits)
    assert gradient.isfinite().all()
    assert gradient[logits.isinf()].abs().max() == 0


@pytest.mark.parametrize("kind", [pgest.Bernoulli, pgest.OneHotCategorical])
def test_what_is_relaxed_given_a_sample_is_differentiable(kind: Any) -> None:
    logits = torch.tensor([[0.3, -0.8, 0.5]], dtype=F64, requires_grad=True)
    z, v = kind(logits).sample((4,)), torch.rand(4, 1, 3, dtype=F64)
    t = torch.tensor(0.7, dtype=F64, requires_grad=True)

    def run(x: Tensor, t: Tensor) -> Tensor:
        relaxed: Tensor = kind(x).relaxed_given(z, v, temperature=t)
        return relaxed

    assert torch.autograd.gradcheck(run, (logits, t))
    assert torch.autograd.gradgradcheck(run, (logits, t))


class Sum(nn.Module):
    """A linear layer to one number, without the last dimension."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, r: Tensor) -> Tensor:
        y: Tensor = self.net(r)
        return y[..., 0]


@pytest.mark.parametrize("make", [lambda: Rebar().eval(), lambda: Relax(Sum(3)).eval()])
@pytest.mark.parametrize("kind", [pgest.Bernoulli, pgest.OneHotCategorical])
def test_transforms_and_compiled_code(make: Any, kind: Kind) -> None:
    torch.manual_seed(0)
    estimator, logits, noise = make(), torch.randn(4, 3), torch.rand(4, 2, 2, 3)

    def cost(z: Tensor) -> Tensor:
        return ((z * C[:3].float()).sum(-1) - 0.4) ** 2

    def run(x: Tensor, u: Tensor) -> Tensor:
        q = kind(x, event_dims=int(kind is pgest.Bernoulli))
        return pgest.expect(cost, q, estimator, num_samples=2, noise=u)

    leaves = [x.clone().requires_grad_() for x in logits]
    values = [run(x, u) for x, u in zip(leaves, noise, strict=True)]
    expected = torch.stack(torch.autograd.grad(torch.stack(values).sum(), leaves))
    found, value = torch.func.vmap(torch.func.grad_and_value(run))(logits, noise)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(value, torch.stack(values).detach())
    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    leaf = logits[0].clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(compiled(leaf, noise[0]), leaf)[0], expected[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [Rebar, lambda: Relax(Sum(3))])
def test_half_types(make: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    noise, logits = torch.rand(2, 3, 5, 3), torch.randn(5, 3).to(dtype)
    estimator, found = make(), []
    for x in (logits.clone(), logits.float()):
        q = pgest.Bernoulli(x.requires_grad_(), event_dims=1)
        options: dict[str, Any] = {"num_samples": 3, "noise": noise}
        value = pgest.expect(lambda z: (z.sum(-1) - 1) ** 2, q, estimator, **options)
        assert estimator.fit_loss.isfinite()
        found.append(torch.autograd.grad(value.sum(), x)[0])
    assert found[0].dtype == dtype
    torch.testing.assert_close(found[0].float(), found[1], rtol=0.05, atol=0.05)


def test_refusals() -> None:
    bits = pgest.Bernoulli(torch.zeros(5, 3, requires_grad=True), event_dims=1)
    with pytest.raises(ValueError, match=r"^surrogate must return shape \(1, 5\), one number for"):
        pgest.expect(lambda z: z.sum(-1), bits, Relax(nn.Identity()))
    with pytest.raises(ValueError, match=r"^temperature must be positive and finite, got 0"):
        Rebar(temperature=0)
    with pytest.raises(
        ValueError, match=r"^Rebar needs a cost that is differentiable in the sampl"
    ):
        pgest.expect(lambda z: (z.sum(-1) > 1).float(), bits, Rebar())
    with pytest.raises(
        TypeError, match=r"^Relax takes Bernoulli or OneHotCategorical, got Categor"
    ):
        pgest.expect(lambda z: z.float(), pgest.Categorical(torch.zeros(3)), Relax(Zero()))
    with pytest.raises(ValueError, match=r"noise must have shape \(2, 1, 5, 3\), got \(1, 5, 3\)"):
        pgest.expect(lambda z: z.sum(-1), bits, Rebar(), noise=torch.rand(1, 5, 3))
    for name, hint in (("rebar", r"Rebar\(\)"), ("relax", r"Relax\(net\)")):
        with pytest.raises(
            ValueError, match=f"estimator must be an instance, got '{name}'.*{hint}"
        ):
            pgest.expect(lambda z: z.sum(-1), bits, name)
    bits = pgest.Bernoulli(torch.zeros(5, 3, requires_grad=True), event_dims=1)
    for estimator in (Rebar(), Relax(Sum(3))):
        value = pgest.expect(lambda z: z.sum(-1) ** 2, bits, estimator).sum()
        (first,) = torch.autograd.grad(value, bits.logits, create_graph=True)
        with pytest.raises(RuntimeError, match=f"{estimator.name} is of first order only"):
            torch.autograd.grad(first.sum(), bits.logits)
