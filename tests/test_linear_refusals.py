"""What the linear ops refuse, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from linear_inputs import example, hidden_and_weight
from torch import Tensor

import pgest
from pgest import TokenStats

HIDDEN, WEIGHT, TOKENS = torch.zeros(2, 3, 4), torch.zeros(5, 4), torch.zeros(2, 3).long()
KL: dict[str, Any] = {"outputs": ("kl",)}
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"hidden": 1}, TypeError, "hidden must be a tensor, got int"),
    ({"hidden": TOKENS}, TypeError, "hidden must be float32, .* got torch.int64"),
    ({"hidden": torch.zeros(())}, ValueError, r"hidden must have shape \[\.\.\., D\].* got \(\)"),
    ({"hidden": torch.zeros(3, 0)}, ValueError, r"D >= 1, got \(3, 0\)"),
    ({"weight": None}, TypeError, "weight must be a tensor, got NoneType"),
    ({"weight": torch.zeros(4, 5)}, ValueError, r"weight must have shape \[V, 4\].* got \(4, 5\)"),
    ({"weight": torch.zeros(0, 4)}, ValueError, r"V >= 1, .* got \(0, 4\)"),
    ({"weight": torch.zeros(4)}, ValueError, r"weight must have shape \[V, 4\].* got \(4,\)"),
    ({"weight": WEIGHT.double()}, TypeError, "weight must be torch.float32 like hidden.*float64"),
    ({"weight": WEIGHT.to("meta")}, ValueError, "weight must be on cpu like hidden, got meta"),
    ({"bias": 0.5}, TypeError, "bias must be a floating-point tensor, got float"),
    (
        {"bias": torch.zeros(4)},
        ValueError,
        r"bias must have shape \(5,\) like the first dim.* weight",
    ),
    ({"softcap": -1.0}, ValueError, "softcap must be positive and finite, got -1"),
    ({"threshold": "all"}, TypeError, "threshold must be a number or a tensor, got str"),
    ({"outputs": ("value",)}, ValueError, "outputs must be names from .* got 'value'"),
    ({"outputs": ("kl",)}, ValueError, "reference must be .* got None"),
    ({"reference": (HIDDEN, WEIGHT)}, ValueError, 'ask for "kl" or "reverse_kl" in outputs'),
    (KL | {"reference": (HIDDEN,)}, ValueError, "reference must be .* got tuple"),
    (KL | {"reference": (HIDDEN[0], WEIGHT)}, ValueError, r"reference hidden .* got hidden \(3, 4"),
    (KL | {"reference": (HIDDEN, WEIGHT[1:])}, ValueError, r"must make logits \(2, 3, 5\) like"),
    (
        KL | {"reference": (HIDDEN, WEIGHT[:, 1:])},
        ValueError,
        r"reference weight must have shape \[V, 4\]",
    ),
    (
        KL | {"reference": (HIDDEN.double(), WEIGHT.double())},
        TypeError,
        "reference hidden and weight must be torch.float32 on cpu like hidden",
    ),
    (
        KL | {"reference": (HIDDEN, WEIGHT.clone().requires_grad_())},
        ValueError,
        "reference weight must not require a gradient",
    ),
    ({"tokens": TOKENS[0]}, ValueError, r"tokens must .* like hidden\[.*got \(3,\)"),
    ({"tokens": TOKENS.float()}, TypeError, "tokens must be int64"),
    ({"tokens": TOKENS + 5}, ValueError, r"tokens .* like the first dimension of weight, got 5"),
    ({"tokens": TOKENS - 1}, ValueError, r"tokens must be in \[0, 5\).* got -1"),
    ({"tokens": None}, ValueError, "tokens must be a tensor when outputs ask"),
    ({"temperature": 0.0}, ValueError, "temperature must be positive and finite, got 0"),
    ({"temperature": torch.tensor(-1.0)}, ValueError, "temperature must be positive and finite"),
    ({"temperature": torch.ones(4)}, ValueError, r"temperature .* hidden\[.* got shape \(4,\)"),
    ({"mask": TOKENS}, TypeError, "mask must be a bool tensor"),
    ({"threshold": torch.ones(4)}, ValueError, r"threshold .* hidden\[.* got shape \(4,\)"),
    ({"mask": TOKENS[0].bool()}, ValueError, r"mask must have shape \(2, 3\) like hidden\["),
    ({"mask": TOKENS.bool().to("meta")}, ValueError, "mask must be on cpu like hidden, got meta"),
    (KL | {"reference": (HIDDEN, WEIGHT, HIDDEN)}, ValueError, "^reference bias .* like the first"),
    ({"outputs": ("logp", "median")}, ValueError, "outputs must be names from .* got 'median'"),
    ({"chunk_rows": 0}, ValueError, "chunk_rows must be at least 1, got 0"),
    ({"chunk_rows": True}, TypeError, "chunk_rows must be an integer, got bool"),
    ({"accumulate": "half"}, ValueError, "accumulate must be .* got 'half'"),
]


def minus_logp(stats: TokenStats, *rows: Tensor) -> Tensor:
    assert stats.logp is not None
    return -stats.logp


@pytest.mark.parametrize(("bad", "error", "message"), BAD, ids=[str(b[0])[:40] for b in BAD])
def test_bad_arguments_are_named(bad: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {"hidden": HIDDEN, "weight": WEIGHT, "tokens": TOKENS}
    with pytest.raises(error, match=message):
        pgest.linear_token_stats(**{**good, **bad})
    with pytest.raises(error, match=message):
        pgest.linear_objective(objective=minus_logp, **{**good, **bad})


def test_a_bad_token_is_found_in_any_chunk_before_the_work() -> None:
    tokens = torch.zeros(9).long()
    tokens[7] = 5
    with pytest.raises(ValueError, match="got 5"):
        pgest.linear_token_stats(torch.zeros(9, 4), WEIGHT, tokens, chunk_rows=2)
    mask = tokens == 0
    pgest.linear_token_stats(torch.zeros(9, 4), WEIGHT, tokens, mask=mask, chunk_rows=2)


def objective_refused(
    objective: Callable[..., Any], *rows: Any, error: type[Exception] = ValueError, **options: Any
) -> str:
    x = example()
    with pytest.raises(error) as refusal:
        pgest.linear_objective(x.hidden, x.weight, x.tokens, objective, *rows, **options)
    return str(refusal.value)


def test_an_objective_of_another_shape_is_refused() -> None:
    message = objective_refused(lambda s: -s.logp.sum())
    assert message.startswith("objective must return one loss for each token of its chunk, shape")
    assert "(6,), got ()" in message
    assert "got (1, 6)" in objective_refused(lambda s: -s.logp[None])
    assert "got float" in objective_refused(lambda s: 1.0, error=TypeError)
    assert "got torch.bool" in objective_refused(lambda s: s.logp < 0, error=TypeError)


def test_an_objective_that_reads_none_is_told_what_is_missing() -> None:
    message = objective_refused(lambda s: -s.logp + 0.1 * s.kl, error=TypeError)
    assert message.startswith("objective failed: unsupported operand")
    assert "not asked for in outputs, so None in its statistics: entropy, lse, kl" in message
    assert "so None in its" in objective_refused(lambda s: s.kl.exp(), error=AttributeError)


def test_a_constant_objective_is_refused_where_a_gradient_is_wanted() -> None:
    assert "got a constant" in objective_refused(lambda s: s.logp.detach())
    x = example()
    with torch.no_grad():
        loss = pgest.linear_objective(x.hidden, x.weight, x.tokens, lambda s: s.logp.detach())
    assert loss < 0


def test_a_gradient_that_would_be_lost_is_refused() -> None:
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    message = objective_refused(lambda s: -s.logp * scale.exp())
    assert "tensor of shape () from elsewhere: pass it to linear_objective as a row" in message
    x = example()
    pgest.linear_objective(
        x.hidden, x.weight, x.tokens, lambda s, c: -s.logp * c.exp(), scale
    ).backward()
    assert scale.grad is not None


def test_an_objective_that_couples_rows_is_found_on_request() -> None:
    def centred(stats: TokenStats, weight: Tensor) -> Tensor:
        assert stats.logp is not None
        return (weight - weight.mean()) * stats.logp

    weight = torch.linspace(0, 1, 6, dtype=torch.float64).view(2, 3)
    message = objective_refused(centred, weight, check=True)
    assert message.startswith("objective must give each token a loss of its own row alone")
    x = example()
    few, all_rows = (
        pgest.linear_objective(x.hidden, x.weight, x.tokens, centred, weight, chunk_rows=n)
        for n in (2, 6)
    )
    assert not torch.allclose(few, all_rows)  # the loss would depend on the chunks


COUPLED: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x - x.mean(),
    "running sum": lambda x: x.cumsum(-1),
    "running sum backwards": lambda x: x.flip(-1).cumsum(-1).flip(-1),
    "first": lambda x: x - x[..., :1],
    "last": lambda x: x - x[..., -1:],
    "largest": lambda x: x - x.amax(-1, keepdim=True),
    "smallest": lambda x: x - x.amin(-1, keepdim=True),
    "random": lambda x: x * torch.rand_like(x),
}


@pytest.mark.parametrize("name", COUPLED)
@pytest.mark.parametrize("chunk_rows", [1, 2, 3, None])
@pytest.mark.parametrize("samples", [None, 2])
def test_every_kind_of_coupling_is_found(
    name: str, chunk_rows: int | None, samples: int | None
) -> None:
    x = example(samples=samples)
    options: Any = {"chunk_rows": chunk_rows, "check": True}
    with pytest.raises(ValueError, match="loss of its own row alone"):
        pgest.linear_objective(
            x.hidden, x.weight, x.tokens, lambda s: COUPLED[name](s.logp), **options
        )
    pgest.linear_objective(x.hidden, x.weight, x.tokens, lambda s: s.logp.exp(), **options)


def test_rows_and_normalizer_are_checked() -> None:
    assert "rows[1] must be broadcastable to (2, 3)" in objective_refused(
        minus_logp, torch.ones(3), torch.ones(4)
    )
    assert "rows[0] must be a tensor" in objective_refused(minus_logp, 1.0, error=TypeError)
    assert "rows[0] must be on cpu" in objective_refused(minus_logp, torch.ones(3, device="meta"))
    assert "normalizer must be a number or a tensor of one" in objective_refused(
        minus_logp, normalizer=torch.ones(2)
    )
    assert "normalizer must not require" in objective_refused(
        minus_logp, normalizer=torch.ones((), requires_grad=True)
    )
    assert "normalizer must be a number" in objective_refused(
        minus_logp, normalizer="mean", error=TypeError
    )


def test_gradients_of_torch_func_are_refused_where_they_are_made_in_the_forward() -> None:
    x = hidden_and_weight(example())
    weight = x.weight.detach()
    with pytest.raises(ValueError, match=r"linear_objective does not support torch\.func"):
        torch.func.grad(lambda h: pgest.linear_objective(h, weight, x.tokens, minus_logp))(
            x.hidden.detach()
        )
