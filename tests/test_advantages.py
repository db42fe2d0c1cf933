"""Baselines do not bias the gradient: shown by enumerating every draw."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from pgest.advantages import leave_one_out, self_critical

LOGITS = torch.tensor([0.3, -1.1, 0.8], dtype=torch.float64)
REWARD = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def exact_gradient() -> Tensor:
    logits = LOGITS.clone().requires_grad_()
    (logits.softmax(0) @ REWARD).backward()
    assert logits.grad is not None
    return logits.grad


def expected_estimate(samples: int, weigh: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean, over every possible draw of S tokens, of the score-function estimate."""
    p = LOGITS.softmax(0)
    total = torch.zeros_like(p)
    for draw in product(range(3), repeat=samples):
        tokens = torch.tensor(draw)
        score = torch.eye(3, dtype=torch.float64)[tokens] - p  # gradient of log p(token)
        total += p[tokens].prod() * (weigh(REWARD[tokens]).unsqueeze(-1) * score).mean(0)
    return total


@pytest.mark.parametrize("samples", [2, 3, 5])
def test_leave_one_out_is_unbiased(samples: int) -> None:
    estimate = expected_estimate(samples, leave_one_out)
    assert (estimate - exact_gradient()).abs().max() < 1e-10


def test_self_critical_is_unbiased() -> None:
    greedy = REWARD[LOGITS.argmax()]
    for samples in (1, 3):
        estimate = expected_estimate(samples, lambda reward: self_critical(reward, greedy))
        assert (estimate - exact_gradient()).abs().max() < 1e-10


def test_enumeration_catches_the_mean_of_all_samples() -> None:
    """Subtracting the mean that includes the sample shrinks the gradient by (S - 1) / S."""
    estimate = expected_estimate(3, lambda reward: reward - reward.mean())
    assert torch.allclose(estimate, exact_gradient() * 2 / 3, atol=1e-10, rtol=0)
    assert (estimate - exact_gradient()).abs().max() > 1e-2


def test_leave_one_out_by_hand_along_any_dimension() -> None:
    reward = torch.tensor([[0.0, 4.0], [1.0, 4.0], [5.0, 1.0]])
    expected = torch.tensor([[-3.0, 1.5], [-1.5, 1.5], [4.5, -3.0]])
    torch.testing.assert_close(leave_one_out(reward), expected)
    torch.testing.assert_close(leave_one_out(reward.T, dim=-1), expected.T)


def test_bad_input_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"reward must hold at least 2 samples along dimension 0, .* got 1"
    ):
        leave_one_out(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="reward must have a dimension of samples"):
        leave_one_out(torch.tensor(1.0))
    with pytest.raises(TypeError, match=r"reward must be a floating-point tensor, got torch.int64"):
        leave_one_out(torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"greedy_reward must have shape \(4,\), .* got \(3,\)"):
        self_critical(torch.zeros(2, 4), torch.zeros(3))
