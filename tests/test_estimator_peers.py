"""Parity with other libraries: the same samples, the same gradient; the same sums, the same truth.

Each runs in a process of its own, since both change torch when they are imported: pyro-ppl, which
`pip install 'pgest[dev]'` brings, and storchastic, which it does not (GPL, not maintained since
2024): these tests run where somebody has installed it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import pgest
from benchmarks.estimator_peers import neighbours
from pgest.estimators import Rodeo

SETTING = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
torch.set_default_dtype(torch.float64)
logits = torch.tensor([0.3, -0.8, 1.1], requires_grad=True)
c = torch.tensor([1.0, -2.0, 0.5])
seen = []
def f(z):
    seen.append(getattr(z, "_tensor", z).detach().tolist())
    return (z * c).sum(-1) + 1.5 * z[..., 0] * z[..., 1] - z[..., 1] * z[..., 2] + 3.0
"""
ANSWER = """
print(json.dumps({"z": seen, "gradient": logits.grad.tolist()}))
"""
LOGITS = torch.tensor([0.3, -0.8, 1.1], dtype=torch.float64)
C = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def f(z: Tensor) -> Tensor:
    """The same cost."""
    return (z * C).sum(-1) + 1.5 * z[..., 0] * z[..., 1] - z[..., 1] * z[..., 2] + 3.0


def ask(script: str) -> tuple[Tensor, Tensor]:
    """The samples that f saw in another process, and the gradient there."""
    command = [sys.executable, "-c", SETTING + script + ANSWER]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    z, gradient = (torch.tensor(answer[key], dtype=torch.float64) for key in ("z", "gradient"))
    return z, gradient


def forced(z: Tensor) -> Tensor:
    """Noise of which these bits are drawn."""
    return torch.where(z > 0, torch.zeros_like(z), 1 - 2.0**-53)


def gradient(cost: Any, estimator: str, **options: Any) -> Tensor:
    logits = LOGITS.clone().requires_grad_()
    q = pgest.Bernoulli(logits, event_dims=1)
    pgest.expect(lambda z: cost(z, q), q, estimator, **options).backward()
    assert logits.grad is not None
    return logits.grad


storchastic = pytest.mark.skipif(
    importlib.util.find_spec("storch") is None, reason="pip install storchastic"
)
pyro = pytest.mark.skipif(
    importlib.util.find_spec("pyro") is None, reason="pip install 'pgest[dev]'"
)

STORCHASTIC = """
import storch
from storch.method import ARM, Expect, ScoreFunction
from torch.distributions import Bernoulli
torch.manual_seed(0)
draw = {}
storch.add_cost(f(draw(Bernoulli(logits=logits))), "cost")
storch.backward()
"""


@storchastic
def test_storchastic_s_leave_one_out() -> None:
    theirs = "ScoreFunction('z', n_samples=5, baseline_factory='batch_average')"
    z, expected = ask(STORCHASTIC.replace("{}", theirs))
    noise = forced(z.view(5, 3))
    found = gradient(lambda z, q: f(z), "rloo", num_samples=5, noise=noise)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@storchastic
def test_storchastic_s_arm() -> None:
    _, expected = ask(STORCHASTIC.replace("{}", "ARM('z', n_samples=4)"))
    torch.manual_seed(0)
    u = 1 - torch.rand(4, 3, dtype=torch.float64)  # theirs is 1 where the uniform is above 1 - p
    found = gradient(lambda z, q: f(z), "arm", num_samples=8, noise=u)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@storchastic
def test_storchastic_s_enumeration() -> None:
    _, expected = ask(STORCHASTIC.replace("{}", "Expect('z')"))
    found = gradient(lambda z, q: f(z), "exact")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


PYRO = """
import pyro
import pyro.distributions as dist
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
pyro.set_rng_seed(0)
def model():
    z = pyro.sample("z", dist.Bernoulli(torch.full((3,), 0.5)).to_event(1))
    pyro.factor("cost", -f(z))
def guide():
    pyro.sample("z", dist.Bernoulli(logits=pyro.param("logits", logits.detach())).to_event(1))
"""
PYRO_RUN = """
ELBO(num_particles=4).loss_and_grads(model, guide)
logits = pyro.param("logits").unconstrained()
"""
PYRO_EACH = """
import pyro
import pyro.distributions as dist
from pyro.infer import TraceEnum_ELBO
def model():
    z = [pyro.sample(f"z{i}", dist.Bernoulli(torch.tensor(0.5))) for i in range(3)]
    pyro.factor("cost", -f(torch.stack(torch.broadcast_tensors(*z), -1)))
def guide():
    for i in range(3):
        pyro.sample(f"z{i}", dist.Bernoulli(logits=logits[i]), infer={"enumerate": "parallel"})
TraceEnum_ELBO(max_plate_nesting=0).differentiable_loss(model, guide).backward()
"""


def minus_elbo(z: Tensor, q: pgest.Bernoulli) -> Tensor:
    """f and the divergence from a fair prior: it depends on the logits beside the samples."""
    return f(z) + q.log_prob(z) + 3 * torch.tensor(2.0).double().log()


@pyro
@pytest.mark.parametrize("elbo", ["Trace_ELBO", "TraceGraph_ELBO"])
def test_pyro_s_score_function(elbo: str) -> None:
    """It leaves out the cost's own gradient, that of log q, whose mean is 0."""

    def known(z: Tensor, q: pgest.Bernoulli) -> Tensor:
        return minus_elbo(z, q).detach()

    z, expected = ask(PYRO + PYRO_RUN.replace("ELBO", elbo))
    found = gradient(known, "reinforce", num_samples=4, noise=forced(z))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pyro
def test_pyro_s_enumeration() -> None:
    _, expected = ask(PYRO_EACH)
    torch.testing.assert_close(gradient(minus_elbo, "exact"), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("samples", [2, 3])
def test_rodeo_is_the_published_one_without_its_neighbours(samples: int) -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 4, dtype=torch.float64, generator=g).requires_grad_()
    noise = torch.rand(samples, 7, 4, dtype=torch.float64, generator=g)
    a = torch.randn(4, 4, dtype=torch.float64, generator=g)

    def cost(z: Tensor) -> Tensor:
        return (z @ a * z).sum(-1) + z.prod(-1)

    estimator = Rodeo(alpha=1 / 4, beta=1 / 4, learn=False)
    q = pgest.Bernoulli(logits, event_dims=1)
    value = pgest.expect(cost, q, estimator, num_samples=samples, noise=noise)
    (found,) = torch.autograd.grad(value.sum(), logits)
    p = logits.detach().sigmoid()
    z = (noise < p).double().requires_grad_()
    (slope,) = torch.autograd.grad(cost(z).sum(), z)
    expected = neighbours(z.detach(), cost(z).detach(), slope, p)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
