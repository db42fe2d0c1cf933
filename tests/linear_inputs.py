"""Inputs of the linear ops, and what counts their work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

import pgest
from pgest import reference

STATS = ("logp", "entropy", "lse")


@dataclass(frozen=True)
class Example:
    """One call's tensors; those of `leaves` are differentiated."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    temperature: Tensor
    tokens: Tensor
    mask: Tensor | None

    def leaves(self) -> tuple[Tensor, ...]:
        """What has a gradient."""
        found = (self.hidden, self.weight, self.bias, self.temperature)
        return tuple(x for x in found if x is not None)

    def to(self, dtype: torch.dtype) -> Example:
        """New leaves with the same values, rounded."""
        values = {}
        for field in fields(self):
            x = getattr(self, field.name)
            if isinstance(x, Tensor) and x.is_floating_point():
                keeps = field.name == "temperature"
                x = x.detach().to(x.dtype if keeps else dtype).requires_grad_()
            values[field.name] = x
        return Example(**values)

    def run(self, **options: Any) -> tuple[Tensor, ...]:
        """`linear_token_stats` of this call."""
        given = {"bias": self.bias, "temperature": self.temperature, "mask": self.mask, **options}
        stats = pgest.linear_token_stats(self.hidden, self.weight, self.tokens, **given)
        return tuple(s for s in stats if s is not None)

    def define(self, softcap: float = 0.0, **options: Any) -> tuple[Tensor, ...]:
        """Its definition."""
        found = self.defined(softcap, **options)
        return tuple(getattr(found, name) for name in STATS)

    def defined(self, softcap: float = 0.0, **options: Any) -> reference.Stats:
        """Every statistic of the definition."""
        given = reference.StatsInput(
            self.hidden,
            self.tokens,
            softcap=softcap,
            temperature=self.temperature.expand(self.hidden.shape[:-1]),
            mask=self.mask,
        )
        return reference.linear_token_stats(self.hidden, self.weight, given, self.bias, **options)


def example(
    batch: tuple[int, ...] = (2, 3),
    width: int = 5,
    vocab: int = 7,
    samples: int | None = None,
    masked: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Example:
    """Random inputs, the same for the same call."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    shape = batch if samples is None else (samples, *batch)
    made = Example(
        hidden=normal(*batch, width),
        weight=normal(vocab, width),
        bias=normal(vocab),
        temperature=0.5 + torch.rand(batch, generator=g, dtype=torch.float64),
        tokens=torch.randint(vocab, shape, generator=g),
        mask=torch.rand(batch, generator=g) > 0.4 if masked else None,
    )
    return made.to(dtype)


def hidden_and_weight(x: Example) -> Example:
    """The same without bias and with temperature 1."""
    return replace(x, bias=None, temperature=torch.ones(()))


def products(run: Callable[[], Any], one: int) -> float:
    """Matrix products that `run` does, in units of `one` multiplication and addition."""
    with torch.autograd.profiler.profile(record_shapes=True) as profile:
        run()
    done = 0
    factors = {
        "aten::mm": 0,
        "aten::addmm": 0,
        "aten::addmm_": 1,
    }  # the first's place in 2-D inputs
    for event in profile.function_events:
        if event.name in factors:
            shapes = [x for x in event.input_shapes if len(x) == 2][factors[event.name] :]
            done += shapes[0][0] * shapes[0][1] * shapes[1][1]
    return done / one
