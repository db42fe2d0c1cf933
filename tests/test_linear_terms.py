"""linear_objective takes the objectives that objectives.total takes, and gives the same loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from linear_inputs import Example, example, hidden_and_weight
from torch import Tensor

import pgest
from pgest import TokenStats
from pgest.objectives import entropy_loss, total, z_loss


def pair(x: Example, objective: Callable[..., Tensor], **options: Any) -> tuple[Tensor, Tensor]:
    """The loss of linear_objective, and that of total on the statistics."""
    outputs = ("logp", "entropy", "lse")
    ours = pgest.linear_objective(
        x.hidden, x.weight, x.tokens, objective, outputs=outputs, mask=x.mask, **options
    )
    stats = pgest.linear_token_stats(x.hidden, x.weight, x.tokens, outputs=outputs, mask=x.mask)
    return ours, total(stats, objective, mask=x.mask)


@pytest.mark.parametrize("objective", [entropy_loss, z_loss])
@pytest.mark.parametrize("chunk_rows", [1, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_the_term_of_a_row_counts_for_each_of_its_samples(
    objective: Callable[..., Tensor], chunk_rows: int, masked: bool
) -> None:
    x = hidden_and_weight(example(samples=3, masked=masked))
    losses = pair(x, objective, chunk_rows=chunk_rows, check=True)
    torch.testing.assert_close(*losses)
    grads = [torch.autograd.grad(loss, (x.hidden, x.weight)) for loss in losses]
    torch.testing.assert_close(*grads)


def test_a_mean_over_samples_is_no_term_of_a_row() -> None:
    x = example(samples=3)

    def mean(stats: TokenStats) -> Tensor:
        assert stats.logp is not None
        return stats.logp.mean(0)

    with pytest.raises(ValueError, match=r"shape \(3, 6\), got \(6,\)"):
        pgest.linear_objective(x.hidden, x.weight, x.tokens, mean)
