"""What others offer for a step with an estimator: storchastic, and RODEO as it was published.

storchastic patches torch when it is imported, so it gets a process of its own:
`python -m benchmarks.estimator_peers --serve METHOD` answers `benchmarks.estimator_speed`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from benchmarks.estimator_steps import SMALL_TARGET, Autoencoder, step
from benchmarks.harness import Candidate
from benchmarks.processes import serve

METHODS = {"rloo": "ScoreFunction", "arm": "ARM", "Relax(net)": "RELAX"}  # theirs, for ours


def storchastic_version() -> str | None:
    """The version, or None where it is not installed; it is not imported."""
    if importlib.util.find_spec("storch") is None:
        return None
    return importlib.metadata.version("storchastic")


def storchastic(method: str, case: dict[str, Any]) -> Candidate:
    """A step of storchastic in this process: the small problem, or the autoencoder.

    Each draws S times (ARM S pairs, as it counts them S / 2). The autoencoder's batch is one draw
    with one cost, which spares it all work for the elements of the batch.
    """
    warnings.simplefilter("ignore")
    storch: Any = importlib.import_module("storch")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    samples, small = case["samples"], case["problem"] == "small"
    given: dict[str, Any] = {"n_samples": samples // 2 if method == "ARM" else samples}
    if method == "ScoreFunction":
        given["baseline_factory"] = "batch_average"
    if method == "RELAX":
        given["in_dim"] = [4] if small else [100, 200]
    draw = getattr(storch.method, method)("z", **given)
    net, leaf = Autoencoder(), torch.zeros(4, requires_grad=True)
    target = torch.tensor(SMALL_TARGET)

    def nll(z: Any) -> Any:
        logits = net.decoder(z)
        return (softplus(logits).sum(-1) - (logits * net.x).sum(-1)).mean(-1)

    def run() -> None:
        net.zero_grad()
        leaf.grad = None
        logits = leaf if small else net.encoder(net.x)
        z = draw(torch.distributions.Bernoulli(logits=logits))
        storch.add_cost(((z - target) ** 2).sum(-1) if small else nll(z), "cost")
        storch.backward()

    return Candidate(run)


def neighbours(z: Tensor, cost: Tensor, slope: Tensor, p: Tensor) -> Tensor:
    """RODEO by its paper's formulas: all neighbours of every sample, [S, B, D, D] -> [B, D].

        (A h)(z) = 1/D sum_i P(z_i changes) (h(z with bit i flipped) - h(z)),   h(z) = <g, z - p>

    with g the mean slope of the other samples; the second control variate is A applied to h times
    the score. Shi et al. (2022), arXiv 2202.09497, with constant coefficients and no network.
    """

    def of_others(x: Tensor) -> Tensor:
        return (x.sum(0) - x) / (len(x) - 1)

    g, eye = of_others(slope)[..., None, :], torch.eye(z.shape[-1], dtype=z.dtype)
    here, p_here = z[..., None, :] - p[..., None, :], p[..., None, :]
    there = z[..., None, :] * (1 - eye) + (1 - z[..., None, :]) * eye - p_here
    changes = (z * (1 - p) + (1 - z) * p)[..., None]
    h, h_there = (g * here).sum(-1, keepdim=True), (g * there).sum(-1, keepdim=True)
    stein = (changes * (h_there - h)).mean((-2, -1))
    beside = (changes * (h_there * there - h * here)).mean(-2)
    weight = cost - of_others(cost + stein)
    return (weight[..., None] * (z - p) + beside).mean(0)


def published_rodeo(net: Autoencoder, samples: int) -> Candidate:
    """A step with it."""

    def value(logits: Tensor) -> Tensor:
        p = logits.detach().sigmoid()
        z = (torch.rand(samples, *p.shape) < p).float().requires_grad_()
        cost = net.nll(z)
        (slope,) = torch.autograd.grad(cost.sum(), z, retain_graph=True)
        along = (neighbours(z.detach(), cost.detach(), slope, p) * logits).sum(-1)
        return cost.mean(0) + along - along.detach()

    return step(net, value)


if __name__ == "__main__":
    who = sys.argv[sys.argv.index("--serve") + 1]
    serve(lambda case: storchastic(who, case))
