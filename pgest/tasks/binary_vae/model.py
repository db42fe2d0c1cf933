"""Autoencoders with a code of bits, several side by side."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from pgest import Bernoulli, bit_stats

SLOPE = 0.3
ALL = slice(None)


class Stack(nn.Module):
    """Linear layers with leaky ReLU between them, of R models: [R, N, inputs] -> [R, N, outputs].

    Each model's weights are drawn as `nn.Linear` draws its own.
    """

    def __init__(self, models: int, *sizes: int) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in itertools.pairwise(sizes):
            layers = [nn.Linear(inputs, outputs) for _ in range(models)]
            self.weights.append(torch.stack([layer.weight.detach().T for layer in layers]))
            self.biases.append(torch.stack([layer.bias.detach()[None] for layer in layers]))

    def forward(self, x: Tensor, models: slice = ALL, frozen: bool = False) -> Tensor:
        """Return the outputs of some of the models; `frozen` weights get no gradient."""
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if models != ALL:  # whose backward would fill a copy for nothing
                weight, bias = weight[models], bias[models]
            if frozen:
                weight, bias = weight.detach(), bias.detach()
            x = torch.baddbmm(bias, leaky_relu(x, SLOPE) if i else x, weight)
        return x


class Autoencoder(nn.Module):
    """Encoder x -> q(z | x), decoder z -> p(x | z) and the prior p(z) = 1/2 of R models.

    Images x are bits [R, B, pixels]; codes z are bits, or relaxed ones, [n, R, B, code].
    """

    def __init__(self, models: int, pixels: int, hidden: int, code: int) -> None:
        super().__init__()
        self.code = code
        self.encoder = Stack(models, pixels, hidden, hidden, code)
        self.decoder = Stack(models, code, hidden, hidden, pixels)

    def posterior(self, x: Tensor) -> Bernoulli:
        """Return q(z | x), batch shape [R, B]."""
        return Bernoulli(self.encoder(x), event_dims=1)

    def log_likelihood(
        self, z: Tensor, x: Tensor, models: slice = ALL, frozen: bool = False
    ) -> Tensor:
        """Return log p(x | z) [n, R, B] in nats."""
        n, count, batch, _ = z.shape
        flat = z.transpose(0, 1).reshape(count, n * batch, -1)  # one matrix product a model
        logits = self.decoder(flat, models, frozen).view(count, n, batch, -1)
        pixels = x.to(torch.uint8).unsqueeze(1).expand(logits.shape)
        logp = bit_stats(logits, pixels, outputs=("logp",)).logp
        assert logp is not None
        return logp.transpose(0, 1)

    def log_ratio(self, z: Tensor, q: Bernoulli) -> Tensor:
        """Return log q(z | x) - log p(z) [n, R, B], whose gradient goes to z alone.

        That of q's parameters at a fixed z is 0 in expectation: it would be noise.
        """
        fixed = Bernoulli(q.logits.detach(), event_dims=1)
        return fixed.score(z) + self.code * math.log(2)

    def kl(self, q: Bernoulli) -> Tensor:
        """Return KL(q(z | x) || p(z)) [R, B]."""
        return self.code * math.log(2) - q.entropy()
