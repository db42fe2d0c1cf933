"""What baselines and scales do to the gradient: shown by enumerating every draw."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from pgest.advantages import group_normalised, leave_one_out, self_critical

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


@pytest.mark.parametrize("weigh", [leave_one_out, group_normalised])
@pytest.mark.parametrize("groups", [None, torch.arange(300) % 2])
def test_half_types_are_averaged_in_float32(
    weigh: Callable[..., Tensor], groups: Tensor | None
) -> None:
    """The weights are the right ones, rounded once."""
    generator = torch.Generator().manual_seed(0)
    reward = (100 * torch.rand(300, 2, generator=generator)).bfloat16()
    exact = weigh(reward.double(), groups=groups)
    assert torch.equal(weigh(reward, groups=groups), exact.bfloat16())


# Ragged groups and masks


GROUPS = torch.tensor([9, -4, 9, 2, -4, 9])
RAGGED = torch.tensor([1.0, 2.0, 4.0, 7.0, 5.0, -3.0], dtype=torch.float64)


@pytest.mark.parametrize("weigh", [leave_one_out, group_normalised])
def test_a_group_is_weighed_as_it_would_be_alone(weigh: Callable[..., Tensor]) -> None:
    found = weigh(RAGGED, groups=GROUPS)
    for group in (9, -4):
        torch.testing.assert_close(found[group == GROUPS], weigh(RAGGED[group == GROUPS]))
    assert found[3] == 0  # alone in its group


@pytest.mark.parametrize("weigh", [leave_one_out, group_normalised])
def test_groups_along_any_dimension_keep_the_others_apart(weigh: Callable[..., Tensor]) -> None:
    reward = torch.stack([RAGGED, RAGGED.flip(0).square()])
    found = weigh(reward, dim=-1, groups=GROUPS)
    for row in (0, 1):
        torch.testing.assert_close(found[row], weigh(reward[row], groups=GROUPS))
    torch.testing.assert_close(found.T, weigh(reward.T, groups=GROUPS))


@pytest.mark.parametrize("weigh", [leave_one_out, group_normalised])
def test_what_is_masked_enters_no_mean(weigh: Callable[..., Tensor]) -> None:
    mask = torch.tensor([True, True, False, True, True, True])
    dirty = torch.where(mask, RAGGED, torch.nan)
    found = weigh(dirty, groups=GROUPS, mask=mask)
    expected = torch.zeros_like(RAGGED)
    expected[mask] = weigh(RAGGED[mask], groups=GROUPS[mask])
    torch.testing.assert_close(found, expected)
    both = torch.stack([dirty, RAGGED], 1)
    masks = torch.stack([mask, torch.zeros_like(mask)], 1)
    rectangular = weigh(both, mask=masks)
    torch.testing.assert_close(rectangular[mask, 0], weigh(RAGGED[mask]))
    assert (rectangular[~masks] == 0).all()


@pytest.mark.parametrize("weigh", [leave_one_out, group_normalised])
def test_a_nan_spoils_its_own_group_alone(weigh: Callable[..., Tensor]) -> None:
    reward = RAGGED.clone()
    reward[1] = torch.nan
    found = weigh(reward, groups=GROUPS)
    assert found.isnan().tolist() == (GROUPS == -4).tolist()
    torch.testing.assert_close(found[GROUPS == 9], weigh(RAGGED, groups=GROUPS)[GROUPS == 9])


def test_no_samples_at_all() -> None:
    empty = torch.zeros(0, 3)
    found = group_normalised(empty, groups=torch.zeros(0, dtype=torch.int64))
    assert found.shape == (0, 3)
    assert leave_one_out(torch.zeros(4, 0)).shape == (4, 0)


def test_groups_learn_and_compile() -> None:
    reward = RAGGED.clone().requires_grad_()

    def weigh(r: Tensor) -> Tensor:
        return group_normalised(r, groups=GROUPS, baseline="leave_one_out")

    assert torch.autograd.gradcheck(weigh, reward)
    compiled = torch.compile(weigh, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(reward), weigh(reward))


# Normalised groups


@pytest.mark.parametrize("value", [0.1, 1e6 + 0.3, -0.7])
@pytest.mark.parametrize("samples", [3, 7, 1000])
def test_equal_rewards_weigh_exactly_nothing(value: float, samples: int) -> None:
    """Their mean is not the value itself: what rounding leaves must not be divided by eps."""
    reward = torch.full((samples,), value)
    groups = torch.arange(samples) % 2
    for weigh in (leave_one_out, group_normalised):
        assert (weigh(reward) == 0).all()
        assert (weigh(reward, groups=groups) == 0).all()
    assert (group_normalised(reward, eps=0.0) == 0).all()
    mask = torch.arange(samples) % 3 < 2
    hidden = torch.where(mask, reward, 0.0)
    assert (group_normalised(hidden, mask=mask) == 0).all()
    assert (group_normalised(hidden, mask=mask, groups=groups) == 0).all()


def test_equal_rewards_have_a_gradient() -> None:
    reward = torch.full((4,), 0.1, requires_grad=True)
    group_normalised(reward)[0].backward()
    assert reward.grad is not None
    assert reward.grad.isfinite().all()


def test_normalised_by_hand() -> None:
    reward = torch.tensor([[0.0, 2.0, 4.0], [1.0, 1.0, 7.0]], dtype=torch.float64)
    for correction in (0, 1):
        std = reward.std(1, correction=correction, keepdim=True)
        expected = (reward - reward.mean(1, keepdim=True)) / (std + 0.5)
        found = group_normalised(reward, dim=1, correction=correction, eps=0.5)
        torch.testing.assert_close(found, expected)
    none = group_normalised(reward, dim=1, scale="none")
    torch.testing.assert_close(none, reward - reward.mean(1, keepdim=True))
    others = group_normalised(reward, dim=1, baseline="leave_one_out", scale="none")
    torch.testing.assert_close(others, leave_one_out(reward, dim=1))


@pytest.mark.parametrize("samples", [2, 4])
def test_the_mean_of_all_shrinks_the_gradient_exactly(samples: int) -> None:
    estimate = expected_estimate(samples, lambda r: group_normalised(r, scale="none"))
    assert (estimate - exact_gradient() * (samples - 1) / samples).abs().max() < 1e-10
    others = expected_estimate(
        samples, lambda r: group_normalised(r, scale="none", baseline="leave_one_out")
    )
    assert (others - exact_gradient()).abs().max() < 1e-10


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_the_division_follows_another_objective(p: float) -> None:
    """Right or wrong with probability p: the gradient is that of 2 arcsin(sqrt(p)), not of p."""
    samples = 400
    right = torch.arange(samples + 1)
    reward = (torch.arange(samples) < right[:, None]).double()  # one row for each count of right
    score = (reward - p) / (p * (1 - p))  # derivative of log p(sample) in p
    estimate = (group_normalised(reward, dim=1) * score).mean(1)
    drawn = torch.distributions.Binomial(samples, torch.tensor(p).double())
    expected = (drawn.log_prob(right.double()).exp() * estimate).sum().item()
    assert expected == pytest.approx((p * (1 - p)) ** -0.5, rel=0.01)
    assert expected > 1.9


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
    with pytest.raises(ValueError, match=r"dim must be one of reward's 2 dimensions, got 2"):
        leave_one_out(torch.zeros(2, 4), dim=2)
    with pytest.raises(TypeError, match="dim must be an integer, got float"):
        leave_one_out(torch.zeros(2, 4), dim=1.0)  # type: ignore[arg-type]


def test_bad_groups_and_masks_are_named() -> None:
    reward = torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"groups must have shape \(2,\), .* got \(2, 4\)"):
        leave_one_out(reward, groups=torch.zeros(2, 4, dtype=torch.int64))
    for wrong in (torch.zeros(2), torch.zeros(2).bool()):
        with pytest.raises(TypeError, match="groups must be an integer tensor, got torch"):
            leave_one_out(reward, groups=wrong)
    with pytest.raises(TypeError, match="groups must be an integer tensor, got list"):
        leave_one_out(reward, groups=[0, 0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mask must have shape \(2, 4\) like reward, got \(4,\)"):
        leave_one_out(reward, mask=torch.ones(4).bool())
    with pytest.raises(TypeError, match="mask must be a bool tensor"):
        leave_one_out(reward, mask=torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"mask must be on cpu like reward, got meta"):
        leave_one_out(reward, mask=torch.ones(2, 4, device="meta").bool())


def test_bad_normalisations_are_named() -> None:
    reward = torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"baseline must be one of \('mean', .* got 'median'"):
        group_normalised(reward, baseline="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"scale must be one of \('std', 'none'\), got None"):
        group_normalised(reward, scale=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"correction must be one of \(0, 1\), got 2"):
        group_normalised(reward, correction=2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"eps must be in \[0, inf\], got -1"):
        group_normalised(reward, eps=-1)
    with pytest.raises(TypeError, match="eps must be a number, got str"):
        group_normalised(reward, eps="small")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"reward must hold at least 2 samples"):
        group_normalised(torch.zeros(1, 4))
