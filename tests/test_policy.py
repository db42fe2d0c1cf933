"""The learners' losses have the gradients they claim, got by enumerating all sequences."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from toy import Copy, copy_task

from pgest.runs import Clock, SequenceConfig

pytestmark = pytest.mark.usefixtures("one_thread")


class Every(NamedTuple):
    """All sequences of at most 2 tokens for each of B prompts, `[B, N]`, and their logits."""

    logp: Tensor
    reference_logp: Tensor
    right: Tensor
    logits: Tensor
    mask: Tensor


def enumerate_sequences(task: Copy, temperature: float) -> Every:
    """Score every sequence under the policy and under the policy before training."""
    batch = task.batch(3, torch.Generator().manual_seed(1))
    pairs = [(a, b) for a in range(6) for b in range(6) if a != task.eos]
    every = torch.tensor([(task.eos, task.eos), *pairs])  # the first is of length 1
    tokens = every.repeat(3, 1)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:: len(every), 1] = False

    def score(model: Any) -> tuple[Tensor, Tensor]:
        (state,) = model.encode(batch.source, batch.lengths)
        logits = model(tokens, mask, (state.repeat_interleave(len(every), 0),))
        scaled = (logits / temperature).log_softmax(-1)
        logp = scaled.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        return torch.where(mask, logp, 0.0).sum(-1).view(3, -1), logits

    logp, logits = score(task.model)
    reference = score(task.learner.held_out.reference)[0]  # type: ignore[attr-defined]
    assert logp.exp().sum(-1).tolist() == pytest.approx([1, 1, 1])
    right = (every[:, 0] == batch.references.unsqueeze(-1)) & (every[:, 1] == task.eos)
    return Every(logp, reference.detach(), right, logits, mask)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"entropy_coef": 0.5},
        {"kl_coef": 0.5},
        {"temperature": 0.6, "entropy_coef": 0.2, "kl_coef": 0.2},
        {"logit_l2_coef": 0.3},
        {"xe_coef": 0.7},
        {"baseline": "self_critical"},
        {"xe_coef": 0.7, "temperature": 0.7},
        {"baseline": "none", "temperature": 1.5},
    ],
    ids=lambda settings: " ".join(settings) or "plain",
)
def test_the_loss_has_the_gradient_of_its_expectation(settings: dict[str, Any]) -> None:
    """With many samples the loss's gradient is the exact one."""
    task = copy_task(batch_size=3, num_samples=20_000, **settings)
    config = task.config
    task.max_length = 2
    with torch.no_grad():  # away from the policy before training
        for parameter in task.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    loss, figures = task.learner.loss(torch.Generator().manual_seed(1), Clock())
    parameters = list(task.model.parameters())
    found = torch.autograd.grad(loss, parameters)
    e = enumerate_sequences(task, config.temperature)
    p = e.logp.exp()
    reward = (p * e.right).sum(-1).mean()
    entropy = -(p * e.logp).sum(-1).mean()
    divergence = (p * (e.logp - e.reference_logp)).sum(-1).mean()
    expected = -reward - config.entropy_coef * entropy + config.kl_coef * divergence
    if config.xe_coef:
        untempered = enumerate_sequences(task, 1.0).logp
        scores = torch.where(e.right, untempered, 0.0).sum(-1).mean()
        expected = expected - config.xe_coef * scores
    if config.logit_l2_coef:
        # A penalty of the tokens that were drawn: their distribution is no part of its gradient.
        weight = (p.detach().view(-1, 1) * e.mask) / (p.detach().view(-1, 1) * e.mask).sum()
        expected = expected + config.logit_l2_coef * (weight * e.logits.square().mean(-1)).sum()
    exact = torch.autograd.grad(expected, parameters)
    a, b = (torch.cat([g.flatten() for g in gradients]) for gradients in (found, exact))
    assert torch.cosine_similarity(a, b, dim=0) > 0.99
    assert (a @ b / (b @ b)).item() == pytest.approx(1, abs=0.05)
    assert figures["reward"] == pytest.approx(reward.item(), abs=0.01)
    if config.kl_coef:
        assert figures["sampled KL"] == pytest.approx(divergence.item(), abs=0.01)


def test_held_out_divergence_and_entropy_are_those_of_all_sequences() -> None:
    task = copy_task(held_out_prompts=20_000)
    task.max_length = 2
    with torch.no_grad():
        assert task.learner.evaluate().figures["KL"] == pytest.approx(0, abs=1e-6)
        for parameter in task.model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
        figures = task.learner.evaluate().figures
        assert task.learner.evaluate().figures == figures  # the same draws each time
        task.batch = lambda size, generator: task.held_out(3)  # type: ignore[method-assign]
        wanted = copy_task()
        wanted.model.load_state_dict(task.model.state_dict())
        kls, entropies = [], []
        for letter in range(2, 6):
            source = torch.full((3, 1), letter)
            batch = wanted.held_out(3)._replace(source=source, references=source[:, 0])
            task.batch = lambda size, generator, batch=batch: batch  # type: ignore[method-assign,misc]
            e = enumerate_sequences(task, 1.0)
            kls.append((e.logp.exp() * (e.logp - e.reference_logp)).sum(-1)[0].item())
            entropies.append(-(e.logp.exp() * e.logp).sum(-1)[0].item())
    assert figures["KL"] == pytest.approx(sum(kls) / 4, rel=0.05)
    assert figures["held-out entropy"] == pytest.approx(sum(entropies) / 4, rel=0.02)


def test_supervised_training_learns_the_references() -> None:
    task = copy_task(objective="xe")
    generator, clock = torch.Generator().manual_seed(0), Clock()
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-2)
    before = task.test().figures["exact"]
    for _ in range(60):
        loss, figures = task.learner.loss(generator, clock)
        assert figures["cross-entropy"] == loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert task.test().figures["exact"] > max(0.9, before)
    assert set(clock.seconds) == {"prompts and encoder", "scores and loss"}


def test_a_reward_that_is_not_finite_is_named() -> None:
    task = copy_task()
    task.reward = lambda draw, batch: (torch.full((8, 32), torch.nan), {})  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="reward must be finite, got nan"):
        task.learner.loss(torch.Generator(), Clock())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 1}, "num_samples must be at least 2, .* got 1"),
        ({"entropy_coef": -0.1}, r"entropy_coef must be at least 0, got -0\.1"),
        ({"temperature": 0.0}, r"temperature must be positive, got 0\.0"),
        (
            {"objective": "xe", "kl_coef": 0.1},
            r"kl_coef must be left at 0\.0 with objective xe, which draws no samples, got 0\.1",
        ),
        (
            {"objective": "xe", "baseline": "none"},
            "baseline must be left at leave_one_out with objective xe",
        ),
    ],
)
def test_settings_that_contradict_themselves(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceConfig(**settings)


@pytest.mark.parametrize(
    ("reward", "error", "message"),
    [
        (torch.ones(32), ValueError, r"reward must have shape \(8, 32\), .* got \(32,\)"),
        (torch.ones(8, 1), ValueError, r"got \(8, 1\)"),
        (torch.ones(8, 32).bool(), TypeError, r"floating-point tensor, got torch\.bool"),
        (1.0, TypeError, "floating-point tensor, got float"),
    ],
)
def test_a_reward_of_another_kind_is_named(
    reward: Any, error: type[Exception], message: str
) -> None:
    task = copy_task()
    task.reward = lambda draw, batch: (reward, {})  # type: ignore[method-assign]
    with pytest.raises(error, match=message):
        task.learner.loss(torch.Generator(), Clock())


def test_one_sample_does_without_leave_one_out() -> None:
    task = copy_task(num_samples=1, baseline="self_critical", batch_size=4)
    loss, _ = task.learner.loss(torch.Generator(), Clock())
    assert loss.isfinite()
