"""The time of a training step with an estimator, beside the same written by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

import pgest
from benchmarks.harness import Candidate, measure


class Autoencoder(nn.Module):
    """784-200-200 to 200 bits and back, leaky ReLU: the usual binary autoencoder of digits."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = self.stack(784, 200), self.stack(200, 784)

    @staticmethod
    def stack(inputs: int, outputs: int) -> nn.Sequential:
        sizes = [inputs, 200, 200, outputs]
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        return nn.Sequential(layers[0], nn.LeakyReLU(0.3), layers[1], nn.LeakyReLU(0.3), layers[2])

    def nll(self, z: Tensor, x: Tensor) -> Tensor:
        logits = self.decoder(z)
        return binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(
            -1
        )


def with_pgest(net: Autoencoder, x: Tensor, samples: int) -> Tensor:
    bits = pgest.Bernoulli(net.encoder(x), event_dims=1)
    return pgest.expect(lambda z: net.nll(z, x), bits, "rloo", num_samples=samples)


def by_hand(net: Autoencoder, x: Tensor, samples: int) -> Tensor:
    """What people write: torch's Bernoulli log-probability of all samples at once."""
    logits = net.encoder(x)
    wide = logits.expand(samples, *logits.shape)
    z = torch.bernoulli(wide.detach().sigmoid())
    cost = net.nll(z, x)
    weight = (cost.detach() - cost.detach().mean(0)) * samples / (samples - 1)
    logp = -binary_cross_entropy_with_logits(wide, z, reduction="none").sum(-1)
    return (cost + weight * (logp - logp.detach())).mean(0)


def by_hand_tuned(net: Autoencoder, x: Tensor, samples: int) -> Tensor:
    """The same with the softplus taken once a row, and cheaper uniforms."""
    logits = net.encoder(x)
    z = (torch.rand(samples, *logits.shape) < logits.detach().sigmoid()).float()
    cost = net.nll(z, x)
    weight = (cost.detach() - cost.detach().mean(0)) * samples / (samples - 1)
    logp = (z * logits).sum(-1) - softplus(logits).sum(-1)
    return (cost + weight * (logp - logp.detach())).mean(0)


def step_times(budget_s: float, batch: int = 100, samples: int = 4) -> dict[str, float]:
    """Median seconds of forward and backward, candidates in turns."""
    torch.manual_seed(0)
    net, x = Autoencoder(), torch.bernoulli(torch.full((batch, 784), 0.13))

    def candidate(step: Callable[[Autoencoder, Tensor, int], Tensor]) -> Candidate:
        def run() -> None:
            net.zero_grad()
            step(net, x, samples).mean().backward()

        return Candidate(run)

    steps = {f.__name__: candidate(f) for f in (with_pgest, by_hand, by_hand_tuned)}
    return {name: m.seconds for name, m in measure(steps, budget_s).items()}


def small_step_times(budget_s: float, samples: int = 100) -> dict[str, float]:
    """The same of four bits with a quadratic cost, where the time is that of the calls."""
    logits, target = torch.zeros(4, requires_grad=True), torch.tensor([0.6, 0.51, 0.48, 0.45])

    def cost(z: Tensor) -> Tensor:
        return ((z - target) ** 2).sum(-1)

    def small_with_pgest() -> None:
        bits = pgest.Bernoulli(logits, event_dims=1)
        pgest.expect(cost, bits, "rloo", num_samples=samples).backward()

    def small_by_hand() -> None:
        z = (torch.rand(samples, 4) < logits.detach().sigmoid()).float()
        c = cost(z)
        weight = (c - c.mean()) * samples / (samples - 1)
        (weight * ((z * logits).sum(-1) - softplus(logits).sum())).mean().backward()

    steps = {f.__name__: Candidate(f) for f in (small_with_pgest, small_by_hand)}
    return {name: m.seconds for name, m in measure(steps, budget_s).items()}
