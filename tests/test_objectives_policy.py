"""Policy-gradient losses have, over every token, the gradient that they claim."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from every_token import assert_same, expected_gradient, gradient, logits, logp, stats
from torch import Tensor

import pgest
from pgest import TokenStats
from pgest.objectives import cispo, dapo, gspo, ppo, reinforce

POLICY, OLD = logits(0), logits(1)
REWARD = logits(2).detach().T  # of each token in each row: [V, rows], of both signs
OLD_LOGP = logp(OLD).detach()
RATIO = (logp(POLICY) - OLD_LOGP).exp()
UNCLIPPED = partial(ppo, clip_low=1.0, clip_high=math.inf)


def gradient_of_the_expected_cost() -> Tensor:
    return gradient(-(POLICY.softmax(-1).T * REWARD).sum(), POLICY)


def per_token(objective: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """The gradient for each token's log p."""
    leaf = logp(POLICY).detach().requires_grad_()
    return torch.autograd.grad(objective(TokenStats(logp=leaf), *rows).sum(), leaf)[0]


def at(ratio: float, advantage: float, objective: Callable[..., Tensor]) -> tuple[float, float]:
    """Loss of one token with this ratio, and its derivative for log p."""
    leaf = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    old = leaf.detach() - math.log(ratio)
    loss = objective(TokenStats(logp=leaf), torch.tensor(advantage).double(), old)
    loss.backward()
    assert leaf.grad is not None
    return loss.item(), leaf.grad.item()


def test_reinforce_is_the_gradient_of_the_expected_reward() -> None:
    found = expected_gradient(reinforce, POLICY, REWARD, drawn_from=POLICY)
    assert_same(found, gradient_of_the_expected_cost())


def test_a_baseline_changes_nothing() -> None:
    baseline = torch.tensor([5.0, -1.0, 0.3], dtype=torch.float64)
    found = expected_gradient(reinforce, POLICY, REWARD - baseline, drawn_from=POLICY)
    assert_same(found, gradient_of_the_expected_cost())


@pytest.mark.parametrize("objective", [UNCLIPPED, partial(cispo, clip_high=math.inf)])
def test_unclipped_ratios_correct_for_the_older_policy(objective: Callable[..., Tensor]) -> None:
    found = expected_gradient(objective, POLICY, REWARD, OLD_LOGP, drawn_from=OLD)
    assert_same(found, gradient_of_the_expected_cost())


@pytest.mark.parametrize("objective", [ppo, partial(ppo, dual_clip=3.0), dapo, cispo])
def test_on_the_policy_itself_all_are_reinforce(objective: Callable[..., Tensor]) -> None:
    same = logp(POLICY).detach()
    assert_same(per_token(objective, REWARD, same), per_token(reinforce, REWARD))
    found = expected_gradient(objective, POLICY, REWARD, same, drawn_from=POLICY)
    assert_same(found, gradient_of_the_expected_cost())


@pytest.mark.parametrize("dual_clip", [None, 1.1, 3.0])
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28), (1.0, 0.0), (0.5, math.inf)])
def test_ppo_is_its_definition(low: float, high: float, dual_clip: float | None) -> None:
    """The formula of the paper, as the paper writes it, differentiated by PyTorch."""
    objective = partial(ppo, clip_low=low, clip_high=high, dual_clip=dual_clip)
    gain = torch.minimum(RATIO * REWARD, RATIO.clamp(1 - low, 1 + high) * REWARD)
    if dual_clip is not None:
        gain = torch.where(REWARD < 0, torch.maximum(gain, dual_clip * REWARD), gain)
    assert_same(objective(stats(POLICY), REWARD, OLD_LOGP), -gain)
    found = expected_gradient(objective, POLICY, REWARD, OLD_LOGP, drawn_from=OLD)
    assert_same(found, gradient(-(OLD.softmax(-1).T.detach() * gain).sum(), POLICY))


def test_dapo_clips_higher() -> None:
    wide = ppo(stats(POLICY), REWARD, OLD_LOGP, clip_low=0.2, clip_high=0.28)
    assert torch.equal(dapo(stats(POLICY), REWARD, OLD_LOGP), wide)
    assert at(1.25, 1.0, dapo)[1] == pytest.approx(-1.25)
    assert at(1.25, 1.0, ppo)[1] == 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.1, 2.0, -2.2, -2.2),  # within the bounds
        (1.5, 2.0, -2.4, 0.0),  # good and already likelier
        (0.5, 2.0, -1.0, -1.0),  # good but less likely: pulled back
        (0.5, -2.0, 1.6, 0.0),  # bad and already less likely
        (1.5, -2.0, 3.0, 3.0),  # bad but likelier: pushed back
        (5.0, -2.0, 6.0, 0.0),  # beyond the dual clip
    ],
)
def test_ppo_by_hand(ratio: float, advantage: float, loss: float, slope: float) -> None:
    assert at(ratio, advantage, partial(ppo, dual_clip=3.0)) == pytest.approx((loss, slope))


@pytest.mark.parametrize(("low", "high"), [(1.0, 4.0), (0.1, 0.3)])
def test_cispo_is_reinforce_weighed_by_the_clipped_ratio(low: float, high: float) -> None:
    objective = partial(cispo, clip_low=low, clip_high=high)
    weight = RATIO.detach().clamp(1 - low, 1 + high) * REWARD
    assert (weight != RATIO * REWARD).any()
    found = expected_gradient(objective, POLICY, REWARD, OLD_LOGP, drawn_from=OLD)
    assert_same(found, expected_gradient(reinforce, POLICY, weight, drawn_from=OLD))
    assert_same(per_token(objective, REWARD, OLD_LOGP), -weight.detach())


@pytest.mark.parametrize("objective", [ppo, dapo, cispo])
def test_advantages_learn(objective: Callable[..., Tensor]) -> None:
    advantage, old = REWARD.clone().requires_grad_(), OLD_LOGP.clone().requires_grad_()
    loss = objective(stats(POLICY.detach()), advantage, old)
    (found,) = torch.autograd.grad(loss.sum(), advantage, retain_graph=True)
    assert_same(found * advantage, loss)  # linear on either side of 0
    if objective is cispo:
        assert not torch.autograd.grad(loss.sum(), old, allow_unused=True)[0]
    else:  # the ratio sees both sides alike
        assert_same(
            torch.autograd.grad(loss.sum(), old)[0], -per_token(objective, REWARD, OLD_LOGP)
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_ratio_that_overflows_is_clipped_with_a_finite_gradient(dtype: torch.dtype) -> None:
    policy = torch.zeros(4, dtype=dtype, requires_grad=True)
    old = torch.tensor([-2000.0, -2000.0, 2000.0, 2000.0], dtype=dtype)
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=dtype)
    for objective in (partial(ppo, dual_clip=3.0), cispo):
        loss = objective(TokenStats(logp=policy), advantage, old)
        assert loss.isfinite().all()
        (grad,) = torch.autograd.grad(loss.sum(), policy)
        assert grad.isfinite().all()
    good = ppo(TokenStats(logp=policy), torch.ones(4, dtype=dtype), old)
    assert torch.autograd.grad(good.sum(), policy)[0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("objective", [ppo, dapo, cispo])
@pytest.mark.parametrize("advantage", [1.0, 0.0, -1.0])
def test_a_token_that_the_policy_excludes_now(
    objective: Callable[..., Tensor], advantage: float
) -> None:
    policy = torch.tensor([[0.0, -math.inf, 1.0]], requires_grad=True)
    tokens = torch.tensor([1])
    held = pgest.token_stats(policy, tokens)
    loss = objective(held, torch.tensor([advantage]), torch.tensor([-1.0]))
    assert loss.isfinite().all()
    loss.sum().backward()
    assert policy.grad is not None
    assert policy.grad.tolist() == [[0, 0, 0]]


def test_a_nan_stays_in_its_place() -> None:
    advantage = torch.tensor([1.0, math.nan, 1.0])
    logp = torch.tensor([-1.0, -1.0, math.nan], requires_grad=True)
    for objective in (ppo, dapo, cispo):
        loss = objective(TokenStats(logp=logp), advantage, torch.tensor([-1.0, -1.0, -1.0]))
        assert loss.isnan().tolist() == [False, True, True]
        (grad,) = torch.autograd.grad(loss.sum(), logp)
        assert grad[0] == -1


# Whole sequences


LENGTHS = torch.tensor([4, 1, 0, 3])
MASK = torch.arange(4) < LENGTHS[:, None]
SEQUENCES = torch.tensor([1.5, -0.5, 2.0, -1.0], dtype=torch.float64)


def draw_logp(seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return -scale * torch.rand(4, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("clip", [3e-4, 0.2, 0.9])
def test_gspo_is_its_definition(clip: float) -> None:
    """One sequence after the other, as the paper writes it."""
    new, old = draw_logp(0).requires_grad_(), draw_logp(1)
    losses = []
    for sequence, length in enumerate(LENGTHS.tolist()):
        if length == 0:
            losses.append(torch.zeros((), dtype=torch.float64))
            continue
        p, q = new[sequence, :length].sum().exp(), old[sequence, :length].sum().exp()
        s, advantage = (p / q) ** (1 / length), SEQUENCES[sequence]
        losses.append(-torch.minimum(s * advantage, s.clamp(1 - clip, 1 + clip) * advantage))
    expected = torch.stack(losses)
    dirty = [torch.where(MASK, x, math.nan) for x in (new, old)]
    found = gspo(
        TokenStats(logp=dirty[0]), SEQUENCES, dirty[1], mask=MASK, clip_low=clip, clip_high=clip
    )
    assert_same(found, expected)
    assert_same(gradient(found.sum(), new), gradient(expected.sum(), new))


def test_gspo_at_ratio_1_is_reinforce_with_the_mean_of_a_sequence() -> None:
    new = draw_logp(0).requires_grad_()
    found = gradient(gspo(TokenStats(logp=new), SEQUENCES, new.detach(), mask=MASK).sum(), new)
    weight = (SEQUENCES / LENGTHS.clamp_min(1))[:, None]
    loss = torch.where(MASK, reinforce(TokenStats(logp=new), weight), 0.0)
    assert_same(found, gradient(loss.sum(), new))


def test_gspo_of_one_token_is_ppo() -> None:
    new, old = draw_logp(0), draw_logp(1)
    single = gspo(TokenStats(logp=new[..., None]), SEQUENCES, old[..., None], clip_low=0.1)
    assert_same(single, ppo(TokenStats(logp=new), SEQUENCES, old, clip_low=0.1, clip_high=4e-4))


def test_misuse_is_refused_by_name() -> None:
    held, one = TokenStats(logp=torch.zeros(2, 3)), torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"advantage must be broadcastable to \(2, 3\).*\(2,\)"):
        ppo(held, torch.ones(2), one)
    with pytest.raises(
        ValueError, match=r"old_logp must be broadcastable to \(2, 3\).*\(4, 2, 3\)"
    ):
        cispo(held, one, torch.ones(4, 2, 3))
    with pytest.raises(TypeError, match="weight must be a tensor, got float"):
        reinforce(held, 1.0)  # type: ignore[arg-type]
    yes = torch.ones(2, 3).bool()
    for loss in (ppo, cispo, dapo, gspo):
        with pytest.raises(TypeError, match=r"advantage must be .* real numbers, got torch\.bool"):
            loss(held, yes[:, 0] if loss is gspo else yes, one)
        with pytest.raises(TypeError, match=r"old_logp must be .* real numbers, got torch\.bool"):
            loss(held, one[:, 0] if loss is gspo else one, yes)
    with pytest.raises(TypeError, match=r"weight must be .* real numbers, got torch\.bool"):
        reinforce(held, yes)
    with pytest.raises(TypeError, match=r"stats must be a TokenStats, .* got Tensor"):
        dapo(one, one, one)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'stats must hold logp, got None: .*outputs=\("logp",\)'):
        reinforce(TokenStats(entropy=one), one)
    for clip in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"clip_low must be in \[0, 1\], got"):
            ppo(held, one, one, clip_low=clip)
    with pytest.raises(ValueError, match=r"clip_high must be in \[0, inf\], got -1"):
        cispo(held, one, one, clip_high=-1)
    with pytest.raises(ValueError, match=r"dual_clip must be in \[1, inf\], got 0.5"):
        ppo(held, one, one, dual_clip=0.5)
    with pytest.raises(TypeError, match="clip_high must be a number, got str"):
        ppo(held, one, one, clip_high="more")  # type: ignore[arg-type]


def test_misuse_of_sequences_is_refused_by_name() -> None:
    held, one = TokenStats(logp=torch.zeros(2, 3)), torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"advantage must be .* \(2,\), one for each sequence"):
        gspo(held, one, one)
    with pytest.raises(ValueError, match=r"stats.logp must have shape \[\.\.\., T\], got a scalar"):
        gspo(TokenStats(logp=torch.tensor(0.0)), torch.tensor(1.0), torch.tensor(0.0))
    with pytest.raises(ValueError, match=r"mask must be broadcastable to \(2, 3\)"):
        gspo(held, one[:, 0], one, mask=torch.ones(2).bool())
    with pytest.raises(TypeError, match="mask must be a bool tensor"):
        gspo(held, one[:, 0], one, mask=one)
