"""Hard attention: find a digit on a large canvas, by looking at one of its 16 cells.

One network sees the canvas blurred and picks a cell; the other reads the pixels of that cell only.
The word after the distribution chooses between a score-function and a Gumbel estimator.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, fold, one_hot

import pgest


def place_randomly(digits: Tensor) -> tuple[Tensor, Tensor]:
    """Put each digit [B, 64] into one of 16 cells: cells [B, 16, 64], and which one, [B]."""
    place = torch.randint(16, (len(digits),))
    return one_hot(place, 16)[..., None] * digits[:, None], place


def blurred(cells: Tensor) -> Tensor:
    """The canvas of 4 x 4 cells, 32 x 32 pixels, in 8 x 8 patches: [B, 64]."""
    return avg_pool2d(fold(cells.movedim(1, 2), 32, 8, stride=8), 4).flatten(1)


def main(estimator: str, steps: int = 800, num_samples: int = 4) -> tuple[float, float]:
    """Return the shares of unseen digits that are found, and that are read rightly."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    train, test = torch.randperm(len(x)).split([1500, len(x) - 1500])
    where = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
    what = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam([*where.parameters(), *what.parameters()], lr=3e-3)
    for _ in range(steps):
        batch = train[torch.randint(len(train), (64,))]
        cells, _ = place_randomly(x[batch])

        def cost(z: Tensor, cells: Tensor = cells, target: Tensor = y[batch]) -> Tensor:
            logits = what(torch.einsum("sbk,bkp->sbp", z, cells))
            return cross_entropy(logits.movedim(-1, 1), target.expand(len(z), -1), reduction="none")

        cell = pgest.OneHotCategorical(where(blurred(cells)))
        value = pgest.expect(cost, cell, estimator, num_samples=num_samples)
        optimizer.zero_grad()
        value.mean().backward()
        optimizer.step()
    cells, place = place_randomly(x[test])
    chosen = where(blurred(cells)).argmax(-1)
    read = what(cells[torch.arange(len(cells)), chosen]).argmax(-1)
    found, right = (float(hit.float().mean()) for hit in (chosen == place, read == y[test]))
    print(f"{estimator}: finds {found:.1%} and reads {right:.1%} of {len(test)} unseen digits")
    return found, right


if __name__ == "__main__":
    for name in ("rloo", "st_gumbel"):
        main(name)
