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
from pgest.objectives import entropy_loss, logit_l2, reinforce_loss, total, z_loss


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


def every_sum(normalizer: Any, mask: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
    """The loss of everything that divides by a normalizer, and the gradient that it gives."""
    x = hidden_and_weight(example())
    z = (x.hidden @ x.weight.t()).detach().requires_grad_()
    weight = torch.ones(2, 3).double()
    given: dict[str, Any] = {"mask": mask, "normalizer": normalizer}
    stats = pgest.token_stats(z, x.tokens)
    losses = [
        (pgest.linear_objective(x.hidden, x.weight, x.tokens, minus_logp, **given), x.hidden),
        (total(stats, minus_logp, **given), z),
        (reinforce_loss(z, x.tokens, weight, **given), z),
        (logit_l2(z, **given), z),
    ]
    return [(loss, torch.autograd.grad(loss, leaf)[0]) for loss, leaf in losses]


def minus_logp(stats: TokenStats) -> Tensor:
    assert stats.logp is not None
    return -stats.logp


def test_nothing_over_nothing_is_nothing() -> None:
    mask = torch.zeros(2, 3, dtype=torch.bool)
    for normalizer in (mask.sum(), mask.sum()[None], torch.tensor(0.0), 3):
        for loss, grad in every_sum(normalizer, mask):
            assert loss.item() == 0
            assert (grad == 0).all()
    empty = total(TokenStats(logp=torch.zeros(0)), minus_logp, normalizer=torch.tensor(0))
    assert empty.item() == 0
    for loss, _ in every_sum(torch.tensor(0)):
        assert not loss.isfinite()  # what counts, over 0, is not made up


def test_a_tensor_divides_as_the_number_does() -> None:
    for of_tensor in (torch.tensor(7), torch.tensor([7.0]), torch.tensor(7.0).half()):
        torch.testing.assert_close(every_sum(of_tensor), every_sum(7))
    half = torch.ones(3, 8, dtype=torch.float16)
    found = logit_l2(half, normalizer=torch.tensor(100_000))  # which float16 does not hold
    assert found.dtype == torch.float16
    assert found.item() == pytest.approx(3e-5, rel=1e-2)


@pytest.mark.parametrize(
    ("normalizer", "error", "message"),
    [
        (0, ValueError, "normalizer must not be the number 0"),
        (0.0, ValueError, "normalizer must not be the number 0"),
        (True, TypeError, "normalizer must be a number or a tensor, got bool"),
        ("mean", TypeError, "normalizer must be a number or a tensor, got str"),
        (torch.ones(2), ValueError, r"tensor of one element, got torch.float32 of shape \(2,\)"),
        (torch.ones((), requires_grad=True), ValueError, "normalizer must not require a gradient"),
    ],
    ids=str,
)
def test_every_normalizer_is_checked(normalizer: Any, error: type[Exception], message: str) -> None:
    x = hidden_and_weight(example())
    z = (x.hidden @ x.weight.t()).detach()
    given: dict[str, Any] = {"normalizer": normalizer}
    weight = torch.ones(2, 3).double()
    calls: list[Callable[[], Any]] = [
        lambda: pgest.linear_objective(x.hidden, x.weight, x.tokens, minus_logp, **given),
        lambda: total(pgest.token_stats(z, x.tokens), minus_logp, **given),
        lambda: reinforce_loss(z, x.tokens, weight, **given),
        lambda: logit_l2(z, **given),
    ]
    for call in calls:
        with pytest.raises(error, match=message):
            call()


def test_a_normalizer_compiles() -> None:
    def loss(logp: Tensor, mask: Tensor, by: Any) -> Tensor:
        return total(TokenStats(logp=logp), minus_logp, mask=mask, normalizer=by)

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True, dynamic=True)
    for n in (3, 4, 6):
        logp, mask = torch.randn(n), torch.arange(n) % 2 == 0
        for by in (n, float(n), mask.sum()):
            torch.testing.assert_close(compiled(logp, mask, by), loss(logp, mask, by))
