"""All arguments of `token_stats` at once, for the tests of what is beyond its plain kernel."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import pgest
from pgest.ops.stats.kernel import OUTPUTS
from pgest.reference import StatsInput

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
INF = math.inf


def draw(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def everything(batch: tuple[int, ...] = (4, 3), vocab: int = 700) -> StatsInput:
    """All arguments at once; no token is excluded with certainty, none kept either."""
    generator = torch.Generator().manual_seed(5)
    return StatsInput(
        draw(*batch, vocab),
        torch.randint(vocab, (2, *batch), generator=generator),
        bias=draw(vocab, seed=1),
        softcap=5.0,
        temperature=0.5 + draw(*batch, seed=2).abs(),
        threshold=draw(*batch, seed=3, scale=0.3) - 1,
        mask=draw(*batch, seed=4) > -1,
        reference_logits=draw(*batch, vocab, seed=6),
        values=draw(*batch, vocab, seed=7),
    )


def change(x: StatsInput, **changes: Any) -> StatsInput:
    return x._replace(**changes)


def there(x: Tensor | None) -> Tensor:
    assert x is not None
    return x


def run(x: StatsInput, outputs: tuple[str, ...] = OUTPUTS, **options: Any) -> pgest.TokenStats:
    """`token_stats` of what the outputs read."""
    given: dict[str, Any] = x._asdict()
    if not {"kl", "reverse_kl"} & set(outputs):
        given["reference_logits"] = None
    if "value" not in outputs:
        given["values"] = given["value_tokens"] = None
    given["softcap"] = x.softcap or None
    given["temperature"] = 1.0 if x.temperature is None else x.temperature
    return pgest.token_stats(**given, outputs=outputs, **options)


def present(stats: pgest.TokenStats) -> tuple[Tensor, ...]:
    return tuple(s for s in stats if s is not None)


def loss(stats: pgest.TokenStats) -> Tensor:
    """Every differentiable statistic that is finite, each with a weight of its own."""
    total = torch.zeros((), dtype=torch.float64)
    for i, s in enumerate(present(stats)):
        if s.is_floating_point():
            total = total + (1 - 0.3 * i) * torch.where(s.isfinite(), s, 0.0).double().sum()
    return total
