"""Steps with estimators, beside what none of them can avoid and what people write by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

import pgest
from benchmarks.harness import Candidate
from pgest.estimators import NVIL, Constant, Estimator, Relax, Rodeo

BATCH, BITS = 100, 200
Given = Callable[["Autoencoder"], str | Estimator]


class Autoencoder(nn.Module):
    """784-200-200 to 200 bits and back, leaky ReLU: the usual binary autoencoder of digits."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = self.stack(784, BITS), self.stack(BITS, 784)
        self.x = torch.bernoulli(torch.full((BATCH, 784), 0.13))

    @staticmethod
    def stack(inputs: int, outputs: int) -> nn.Sequential:
        sizes = [inputs, 200, 200, outputs]
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        return nn.Sequential(layers[0], nn.LeakyReLU(0.3), layers[1], nn.LeakyReLU(0.3), layers[2])

    def nll(self, z: Tensor) -> Tensor:
        logits = self.decoder(z)
        x = self.x.expand_as(logits)
        return binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)


class Line(nn.Module):
    """One number of each vector, the smallest network there is."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out.squeeze(-1)


def bare(net: Autoencoder, rows: int, slope: bool) -> Candidate:
    """f and its backward at bits that were drawn before, and the encoder's."""
    z = torch.bernoulli(torch.full((rows, BATCH, BITS), 0.5)).requires_grad_(slope)
    upstream = torch.randn(BATCH, BITS) / BATCH

    def run() -> None:
        net.zero_grad()
        z.grad = None
        logits = net.encoder(net.x)
        net.nll(z).mean(0).mean().backward()
        logits.backward(upstream)

    return Candidate(run)


def step(net: Autoencoder, value: Callable[[Tensor], Tensor]) -> Candidate:
    """Forward and backward of a value made of the encoder's logits, without the optimiser."""

    def run() -> None:
        net.zero_grad()
        value(net.encoder(net.x)).mean().backward()

    return Candidate(run)


def estimated(net: Autoencoder, estimator: str | Estimator, samples: int) -> Candidate:
    """A step with an estimator, and with the backward of what it learns by."""

    def value(logits: Tensor) -> Tensor:
        bits = pgest.Bernoulli(logits, event_dims=1)
        if isinstance(estimator, NVIL):
            found = pgest.expect(net.nll, bits, estimator.given(net.x), num_samples=samples)
        else:
            found = pgest.expect(net.nll, bits, estimator, num_samples=samples)
        learning = None if isinstance(estimator, str) else estimator.fit_loss
        return found if learning is None else found + learning

    return step(net, value)


INSTANCES: dict[str, Callable[[], Estimator]] = {
    "Constant(100.0)": lambda: Constant(100.0),
    "MovingAverage()": pgest.estimators.MovingAverage,
    "NVIL(net)": lambda: NVIL(Line(784)),
    "DoubleCV()": pgest.estimators.DoubleCV,
    "Rodeo()": Rodeo,
    "Rodeo(net)": lambda: Rodeo(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))),
    "Rebar(learn=False)": lambda: pgest.estimators.Rebar(learn=False),
    "Rebar()": pgest.estimators.Rebar,
    "Relax(net, learn=False)": lambda: Relax(Line(BITS), learn=False),
    "Relax(net)": lambda: Relax(Line(BITS)),
}


def by_hand(net: Autoencoder, samples: int) -> Candidate:
    """Leave one out as people write it: torch's log-probability of all samples at once."""

    def value(logits: Tensor) -> Tensor:
        wide = logits.expand(samples, *logits.shape)
        z = torch.bernoulli(wide.detach().sigmoid())
        logp = -binary_cross_entropy_with_logits(wide, z, reduction="none").sum(-1)
        return left_one_out(net.nll(z), logp)

    return step(net, value)


def by_hand_tuned(net: Autoencoder, samples: int) -> Candidate:
    """The same with the softplus taken once a row, and cheaper uniforms."""

    def value(logits: Tensor) -> Tensor:
        z = (torch.rand(samples, *logits.shape) < logits.detach().sigmoid()).float()
        return left_one_out(net.nll(z), (z * logits).sum(-1) - softplus(logits).sum(-1))

    return step(net, value)


def left_one_out(cost: Tensor, logp: Tensor) -> Tensor:
    """The surrogate of leave one out, [S, ...] -> [...]."""
    known, samples = cost.detach(), len(cost)
    weight = (known - known.mean(0)) * samples / (samples - 1)
    return (cost + weight * (logp - logp.detach())).mean(0)


SMALL_TARGET = (0.6, 0.51, 0.48, 0.45)


def small(estimator: str, samples: int) -> Candidate:
    """Four bits with a quadratic cost, where the time is that of the calls."""
    logits, target = torch.zeros(4, requires_grad=True), torch.tensor(SMALL_TARGET)

    def run() -> None:
        logits.grad = None
        bits = pgest.Bernoulli(logits, event_dims=1)
        cost = pgest.expect(
            lambda z: ((z - target) ** 2).sum(-1), bits, estimator, num_samples=samples
        )
        cost.backward()

    return Candidate(run)


def small_by_hand(samples: int) -> Candidate:
    """The same with leave one out written directly."""
    logits, target = torch.zeros(4, requires_grad=True), torch.tensor(SMALL_TARGET)

    def run() -> None:
        logits.grad = None
        z = (torch.rand(samples, 4) < logits.detach().sigmoid()).float()
        logp = (z * logits).sum(-1) - softplus(logits).sum(-1)
        left_one_out(((z - target) ** 2).sum(-1), logp).backward()

    return Candidate(run)
