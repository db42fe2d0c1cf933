"""Numbers that come from NumPy do what Python's do, wherever an op or a loss takes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pgest
from pgest import objectives

LOGITS = torch.linspace(-2, 2, 20).view(2, 2, 5)
TOKENS = torch.tensor([[0, 1], [2, 3]])
STATS = pgest.TokenStats(logp=torch.tensor([-1.0, -0.1]), entropy=torch.ones(2))
OLD, ADVANTAGE = torch.tensor([-0.5, -2.0]), torch.tensor([1.0, -1.0])

Run = Callable[[Any], Any]
INTEGERS: dict[str, Run] = {
    "top_k": lambda x: pgest.row_threshold(LOGITS, top_k=x),
    "sample": lambda x: pgest.sample(LOGITS, x, noise=torch.full((2, 2, 2), 0.4)),
    "sample_bits": lambda x: pgest.sample_bits(LOGITS, x, noise=torch.full((2, 2, 2, 5), 0.4)),
    "event_dims": lambda x: pgest.bit_stats(LOGITS, LOGITS > 0, event_dims=x),
    "dim": lambda x: pgest.gumbel_softmax(LOGITS, dim=x, noise=torch.full((2, 2, 5), 0.4)),
    "chunk_rows": lambda x: pgest.linear_token_stats(
        LOGITS[0], LOGITS[1], TOKENS[0] % 2, chunk_rows=x
    ),
}
REALS: dict[str, Run] = {
    "temperature": lambda x: pgest.token_stats(LOGITS, TOKENS, temperature=x),
    "threshold": lambda x: pgest.token_stats(LOGITS, TOKENS, threshold=x),
    "softcap": lambda x: pgest.token_stats(LOGITS, TOKENS, softcap=x),
    "top_p": lambda x: pgest.row_threshold(LOGITS, top_p=x),
    "min_p": lambda x: pgest.row_threshold(LOGITS, min_p=x),
    "tau": lambda x: pgest.gumbel_softmax(LOGITS, x, noise=torch.full((2, 2, 5), 0.4)),
    "normalizer": lambda x: objectives.total(STATS, objectives.entropy_loss, normalizer=x),
    "clip_low": lambda x: objectives.ppo(STATS, ADVANTAGE, OLD, clip_low=x),
    "clip_high": lambda x: objectives.ppo(STATS, ADVANTAGE, OLD, clip_high=x),
    "dual_clip": lambda x: objectives.ppo(STATS, ADVANTAGE, OLD, dual_clip=x + 1),
    "entropy_coef": lambda x: objectives.reinforce_loss(
        LOGITS.clone().requires_grad_(), TOKENS, torch.ones(2, 2), entropy_coef=x
    ),
    "eps": lambda x: pgest.advantages.group_normalised(ADVANTAGE, eps=x),
}


def tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [x for x in result if x is not None]


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("name", INTEGERS)
def test_integers(name: str, kind: Any) -> None:
    run = INTEGERS[name]
    for found, expected in zip(tensors(run(kind(2))), tensors(run(2)), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("name", REALS)
def test_reals(name: str, kind: Any) -> None:
    run = REALS[name]
    exact: dict[str, Any] = {"rtol": 0, "atol": 0, "equal_nan": True}
    torch.testing.assert_close(tensors(run(kind(0.25))), tensors(run(0.25)), **exact)


@pytest.mark.parametrize("name", [*INTEGERS, *REALS])
def test_what_is_no_number_stays_refused(name: str) -> None:
    run = {**INTEGERS, **REALS}[name]
    wrong: list[Any] = ["2"] if name == "dual_clip" else ["2", True, np.bool_(True)]
    for bad in wrong:
        with pytest.raises(TypeError):
            run(bad)
    floats: list[Any] = [2.0, np.float32(2)]
    for bad in floats if name in INTEGERS else []:
        with pytest.raises(TypeError, match="must be an integer, got float"):
            run(bad)
