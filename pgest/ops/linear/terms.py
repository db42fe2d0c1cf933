"""The user's objective on one chunk: its sum, its gradients, and what is misuse of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pgest.ops.linear.gradients import Wanted
from pgest.ops.stats.api import named
from pgest.ops.stats.kernel import BITS

Objective = Callable[..., Tensor]


class OfChunk(NamedTuple):
    """A chunk's part of the loss, and the gradients for its statistics and its rows."""

    total: Tensor
    stats: tuple[Tensor | None, ...]
    extras: tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Terms:
    """A loss of tokens, its statistics, what divides its sum, and which gradients are wanted."""

    objective: Objective
    outputs: int
    normalizer: Tensor
    wanted: Wanted
    extras_wanted: tuple[bool, ...]
    check: bool

    def of_chunk(
        self, results: Sequence[Tensor], extras: Sequence[Tensor], shape: torch.Size
    ) -> OfChunk:
        """The chunk's losses, summed and divided, and their gradients."""
        stats = [_leaf(x, any(self.wanted)) for x in results]
        leaves = [_leaf(x, w) for x, w in zip(extras, self.extras_wanted, strict=True)]
        needed = any(self.wanted) or any(self.extras_wanted)
        with torch.set_grad_enabled(needed):
            try:
                losses = self.objective(named(stats, self.outputs), *leaves)
            except (AttributeError, TypeError) as error:
                raise self._not_asked_for(error) from error
            losses = _of_tokens(losses, shape, {x.shape for x in stats})
            total = losses.sum(dtype=torch.float64) / self.normalizer
        if self.check:
            self._check_rows(losses, stats, leaves)
        if not needed:
            return OfChunk(total, (), (None,) * len(leaves))
        inputs = [x for x in (*stats, *leaves) if x.requires_grad]
        _check_graph(total, inputs)
        grads = iter(torch.autograd.grad(total, inputs, allow_unused=True))
        found = tuple(next(grads) if x.requires_grad else None for x in (*stats, *leaves))
        return OfChunk(total.detach(), found[: len(stats)], found[len(stats) :])

    def _not_asked_for(self, error: Exception) -> Exception:
        """The error of an objective, and that what it read may be None."""
        unread = (name for name, bit in BITS.items() if not self.outputs & bit)
        missing = [name for name in unread if name != "value"]  # which no linear op has
        kind = AttributeError if isinstance(error, AttributeError) else TypeError
        return kind(
            f"objective failed: {error}; not asked for in outputs, so None in its statistics: "
            f"{', '.join(missing)}"
        )

    def _check_rows(self, losses: Tensor, stats: list[Tensor], leaves: list[Tensor]) -> None:
        """Each half of the rows must have the same losses without the other half.

        Both halves: the first knows nothing of what runs forwards (a running sum), the second of
        what runs backwards. A single row must have the same between two others.
        """
        count = losses.shape[-1]
        middle = slice(1, 2)
        parts = [slice(0, count // 2), slice(count // 2, count)] if count > 1 else [slice(0, 1)]
        for part in parts:
            some = [x[..., part] if count > 1 else _among_others(x) for x in (*stats, *leaves)]
            few = named(some[: len(stats)], self.outputs)
            with torch.no_grad():
                again = self.objective(few, *some[len(stats) :])
            again = again if count > 1 else again[..., middle]
            if not torch.allclose(again, losses[..., part], rtol=1e-4, equal_nan=True):
                raise ValueError(
                    "objective must give each token a loss of its own row alone: here a token's "
                    "loss changes with the other rows of its chunk (a mean, a running sum, a rank "
                    "or a random number?)"
                )


def _among_others(x: Tensor) -> Tensor:
    """A single row between two that differ, in which no mean or bound of the three is its own."""
    low, high = (x / 2, x * 3) if x.dtype.is_floating_point else (x, x)
    return torch.cat([low, x, high], -1)


def _leaf(x: Tensor, wanted: bool) -> Tensor:
    return x.detach().requires_grad_(wanted and x.dtype.is_floating_point)


def _of_tokens(losses: object, shape: torch.Size, of_stats: set[torch.Size]) -> Tensor:
    """One loss a token; a term of statistics of rows alone counts for each token of its row."""
    if not isinstance(losses, Tensor):
        raise TypeError(f"objective must return a tensor, got {type(losses).__name__}")
    if not losses.dtype.is_floating_point:
        raise TypeError(f"objective must return floating-point losses, got {losses.dtype}")
    of_row = losses.shape == shape[-1:] and losses.shape in of_stats
    if losses.shape != shape and not of_row:
        raise ValueError(
            f"objective must return one loss for each token of its chunk, shape {tuple(shape)}, "
            f"got {tuple(losses.shape)}: the sum over tokens is taken for it"
        )
    return losses.expand(shape)


def _check_graph(total: Tensor, inputs: list[Tensor]) -> None:
    """Refuse what would lose a gradient without a word: no path at all, or one to elsewhere."""
    if not total.requires_grad:
        raise ValueError(
            "objective must return losses with a gradient path to its statistics or rows, got a "
            "constant; call linear_objective under torch.no_grad() for the value alone"
        )
    known = {id(x) for x in inputs}
    seen, queue = set(), [total.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in known:
            raise ValueError(
                f"objective must take what needs a gradient from its rows, got a tensor of shape "
                f"{tuple(variable.shape)} from elsewhere: pass it to linear_objective as a row"
            )
        queue.extend(next_node for next_node, _ in node.next_functions)
