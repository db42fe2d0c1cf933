"""Returns and generalised advantages are what a float64 loop over the steps says they are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pgest.advantages import gae, returns


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def looped_returns(reward: Tensor, discount: float, mask: Tensor | None = None) -> Tensor:
    """The definition, one step after the other."""
    after, result = torch.zeros_like(reward[..., 0]), torch.zeros_like(reward)
    for t in reversed(range(reward.shape[-1])):
        here = reward[..., t] + discount * after
        counts = torch.ones_like(here).bool() if mask is None else mask[..., t]
        after = torch.where(counts, here, after)
        result[..., t] = torch.where(counts, here, 0.0)
    return result


def looped_gae(
    reward: Tensor,
    value: Tensor,
    discount: float,
    trace_decay: float,
    last_value: Tensor,
    done: Tensor,
    mask: Tensor,
) -> Tensor:
    """The definition, one step after the other."""
    after, ahead, result = last_value, torch.zeros_like(last_value), torch.zeros_like(reward)
    for t in reversed(range(reward.shape[-1])):
        goes_on = (~done[..., t]).to(reward.dtype)
        delta = reward[..., t] + discount * goes_on * after - value[..., t]
        here = delta + discount * trace_decay * goes_on * ahead
        after = torch.where(mask[..., t], value[..., t], after)
        ahead = torch.where(mask[..., t], here, ahead)
        result[..., t] = torch.where(mask[..., t], here, 0.0)
    return result


@pytest.mark.parametrize("discount", [0.0, 1e-300, 0.5, 0.99, 0.9999, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ten_thousand_steps(discount: float, dtype: torch.dtype) -> None:
    reward = draw(2, 10_000, dtype=dtype)
    expected = looped_returns(reward.double(), discount)
    rounding = 1e-13 if dtype == torch.float64 else 1e-7
    found = returns(reward, discount)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=rounding, atol=1e-11)
    if discount == 0:
        assert torch.equal(found, reward)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8])
def test_masked_steps_are_as_if_they_were_not_there(steps: int) -> None:
    mask = torch.tensor([[(row >> t) & 1 for t in range(steps)] for row in range(2**steps)]).bool()
    reward = draw(*mask.shape)
    found = returns(torch.where(mask, reward, torch.nan), 0.7, mask=mask)
    torch.testing.assert_close(found, looped_returns(reward, 0.7, mask))
    row = 5 % 2**steps
    torch.testing.assert_close(found[row, mask[row]], returns(reward[row, mask[row]], 0.7))


def test_steps_along_any_dimension() -> None:
    reward = draw(5, 2, 3)
    expected = returns(reward.movedim(0, -1), 0.9).movedim(-1, 0)
    torch.testing.assert_close(returns(reward, 0.9, dim=0), expected)
    value, last = draw(5, 2, 3, seed=1), draw(2, 3, seed=2)
    turned = gae(reward.movedim(0, -1), value.movedim(0, -1), discount=0.9, last_value=last)
    torch.testing.assert_close(
        gae(reward, value, discount=0.9, last_value=last, dim=0), turned.movedim(-1, 0)
    )


def test_half_types_are_summed_in_float64() -> None:
    reward = torch.ones(1000, dtype=torch.bfloat16)
    assert returns(reward).dtype == torch.bfloat16
    assert returns(reward)[0] == 1000
    advantage = gae(reward, torch.zeros_like(reward), trace_decay=1.0)
    assert advantage.dtype == torch.bfloat16
    assert advantage[0] == 1000


def test_no_steps_or_no_sequences() -> None:
    for shape in ((3, 0), (0, 4)):
        reward, mask = torch.zeros(shape), torch.zeros(shape).bool()
        assert returns(reward, mask=mask).shape == shape
        assert gae(reward, reward, mask=mask).shape == shape


def test_returns_learn_and_compile() -> None:
    reward = draw(2, 5).requires_grad_()
    mask = torch.tensor([True, False, True, True, False]).expand(2, 5)
    assert torch.autograd.gradcheck(lambda r: returns(r, 0.9, mask=mask), reward)
    compiled = torch.compile(returns, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(reward, 0.9, mask=mask), returns(reward, 0.9, mask=mask))


@pytest.mark.parametrize("trace_decay", [0.0, 0.6, 1.0])
def test_generalised_advantages(trace_decay: float) -> None:
    reward, value, last = draw(64, 9), draw(64, 9, seed=1), draw(64, seed=2)
    done, mask = draw(64, 9, seed=3) > 1, draw(64, 9, seed=4) > -0.5
    expected = looped_gae(reward, value, 0.9, trace_decay, last, done, mask)
    found = gae(
        torch.where(mask, reward, torch.nan),
        torch.where(mask, value, torch.inf),
        discount=0.9,
        trace_decay=trace_decay,
        last_value=last,
        done=done | ~mask,  # of a masked step nothing is read
        mask=mask,
    )
    torch.testing.assert_close(found, expected)


def test_with_lambda_1_it_is_the_return_minus_the_value() -> None:
    reward, value = draw(3, 50), draw(3, 50, seed=1)
    found = gae(reward, value, discount=0.97, trace_decay=1.0)
    torch.testing.assert_close(found, returns(reward, 0.97) - value)


def test_with_lambda_0_it_is_the_temporal_difference_error() -> None:
    reward, value, last = draw(3, 50), draw(3, 50, seed=1), draw(3, seed=2)
    found = gae(reward, value, discount=0.97, trace_decay=0.0, last_value=last)
    after = torch.cat([value[:, 1:], last[:, None]], 1)
    torch.testing.assert_close(found, reward + 0.97 * after - value)


def test_a_right_value_leaves_no_advantage() -> None:
    """Where rewards are certain and the value knows them, whatever lambda is."""
    reward = draw(2, 6)
    for trace_decay in (0.0, 0.5, 1.0):
        found = gae(reward, returns(reward, 0.8), discount=0.8, trace_decay=trace_decay)
        assert found.abs().max() < 1e-12


def test_an_ended_episode_hears_nothing_of_the_next() -> None:
    reward, value = draw(6), draw(6, seed=1)
    done = torch.tensor([False, False, True, False, False, True])
    found = gae(reward, value, done=done, last_value=torch.tensor(math.nan).double())
    apart = [gae(reward[part], value[part]) for part in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(found, torch.cat(apart))


def test_an_advantage_does_not_teach_the_critic() -> None:
    reward, value, last = (draw(*s).requires_grad_() for s in ((2, 4), (2, 4), (2,)))
    gae(reward, value, last_value=last).sum().backward()
    assert reward.grad is not None
    assert value.grad is None
    assert last.grad is None


def test_bad_input_is_named() -> None:
    reward = torch.zeros(2, 4)
    with pytest.raises(TypeError, match=r"reward must be a floating-point tensor, got torch.int64"):
        returns(torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="reward must have a dimension of steps, got a scalar"):
        returns(torch.tensor(1.0))
    for discount in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"discount must be in \[0, 1\], got"):
            returns(reward, discount)
    with pytest.raises(TypeError, match="discount must be a number, got Tensor"):
        returns(reward, torch.tensor(0.5))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mask must have shape \(2, 4\) like reward, got \(4,\)"):
        returns(reward, mask=torch.ones(4).bool())
    with pytest.raises(
        ValueError, match=r"value must have shape \(2, 4\) like reward, got \(2, 5\)"
    ):
        gae(reward, torch.zeros(2, 5))
    with pytest.raises(TypeError, match="value must be a floating-point tensor, got NoneType"):
        gae(reward, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"last_value must have shape \(2,\) .* got \(4,\)"):
        gae(reward, reward, last_value=torch.zeros(4))
    with pytest.raises(TypeError, match=r"done must be a bool tensor, got torch.float32"):
        gae(reward, reward, done=reward)
    with pytest.raises(ValueError, match=r"trace_decay must be in \[0, 1\], got 2"):
        gae(reward, reward, trace_decay=2)
