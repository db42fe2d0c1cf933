"""A classifier of digits with two layers of stochastic bits, trained through a trace.

The one word at each draw is the estimator: "straight_through" lets the loss's own gradient pass the
bits, biased but precise, and one word instead, "rloo", learns from any loss, a black box too. It is
unbiased but scatters more, so that it is given four times the samples and three times the epochs.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import pgest


class BinaryNet(nn.Module):
    """64 pixels, two layers of bits, 10 classes."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, hidden), nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 10)

    def forward(self, x: Tensor, trace: pgest.Trace, estimator: str) -> Tensor:
        b1 = trace.draw(pgest.Bernoulli(self.first(trace.expand(x)), event_dims=1), estimator)
        b2 = trace.draw(pgest.Bernoulli(self.second(b1), event_dims=1), estimator)
        return self.out(b2)


def main(estimator: str, epochs: int = 15, num_samples: int = 4) -> float:
    """Return the test accuracy of the mean prediction of 20 samples."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 8 - 1, dtype=torch.float32), torch.tensor(labels)
    train, test = torch.randperm(len(x)).split([1500, len(x) - 1500])
    model = BinaryNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for batch in train[torch.randperm(len(train))].split(50):
            trace = pgest.Trace(num_samples)
            logits = model(x[batch], trace, estimator)
            target = trace.expand(y[batch])
            trace.cost(cross_entropy(logits.movedim(-1, 1), target, reduction="none"))
            optimizer.zero_grad()
            trace.value().mean().backward()
            optimizer.step()
    with torch.no_grad():
        vote = model(x[test], pgest.Trace(20), estimator).softmax(-1).mean(0)
    accuracy = float((vote.argmax(-1) == y[test]).float().mean())
    effort = f"{num_samples} samples, {epochs} epochs"
    print(f"{estimator}, {effort}: reads {accuracy:.1%} of {len(test)} unseen digits rightly")
    return accuracy


if __name__ == "__main__":
    main("straight_through")
    main("rloo", epochs=45, num_samples=16)
