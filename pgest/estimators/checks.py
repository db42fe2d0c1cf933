"""Checks of what callers give: the name, what came, what was expected."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pgest.distributions import Distribution
from pgest.estimators.base import Estimator
from pgest.reference import statistics_dtype


def num_samples(x: Any) -> int:
    """A positive integer, of numpy too."""
    if isinstance(x, bool) or not hasattr(x, "__index__") or isinstance(x, Tensor):
        raise TypeError(f"num_samples must be an integer, got {type(x).__name__}")
    samples: int = x if isinstance(x, int) else operator.index(x)
    if samples < 1:
        raise ValueError(f"num_samples must be positive, got {samples}")
    return samples


def cost_function(f: Any) -> None:
    """Something to call."""
    if not callable(f):
        raise TypeError(f"f must be callable, z -> cost, got {type(f).__name__}")


def cost(
    x: Any, shape: tuple[int, ...], distribution: Distribution | None, *, traced: bool = False
) -> Tensor:
    """A floating-point tensor of one cost a sample; at least float32 when it comes back."""
    if not isinstance(x, Tensor):
        raise TypeError(f"cost must be a tensor, got {type(x).__name__}")
    if x.shape != shape:
        of = "" if distribution is None else f" of {distribution!r}"
        raise ValueError(
            f"cost must have shape {shape}, (samples, *batch_shape){of}, got {tuple(x.shape)}"
            + _advice(x.shape, shape, distribution, traced)
        )
    if not x.is_floating_point():
        raise TypeError(f"cost must be floating point, got {x.dtype}: write cost.float()")
    return x.to(statistics_dtype(x))


def _advice(
    came: tuple[int, ...], shape: tuple[int, ...], distribution: Distribution | None, traced: bool
) -> str:
    """What to change: how f reduces, or the `event_dims` with which this shape would be right."""
    if not came:
        return "; f returns one cost for each sample, not their sum or mean"
    if came == (*shape, 1):
        return "; drop its last dimension, as squeeze(-1) and keepdim=False do"
    if traced and came == shape[1:]:
        return "; a cost without samples becomes one of each by trace.expand(cost)"
    if distribution is None:
        return ""
    samples = shape[: len(shape) - len(distribution.batch_shape)]
    variables = (*samples, *distribution.variables)
    if came != variables[: len(came)]:
        return ""
    if came == samples and len(variables) > len(samples) + 1:
        return "; f returns one cost for each element of the batch too, not their sum or mean"
    return f"; with {distribution.spelled(len(variables) - len(came))} this shape would be right"


class Given:
    """A sample in the hands of the caller, whose probability is taken after the cost was computed.

    Attributes:
        sample: what the caller gets: a copy where nobody counts how often a tensor was written to.
        drawn: what was drawn, to be scored.
    """

    def __init__(self, drawn: Tensor, estimator: Estimator) -> None:
        self.drawn, self.estimator = drawn, estimator
        scored, eager = estimator.traits.scores, _eager()
        counted = eager and not drawn.is_inference()
        self.sample = drawn if counted or not scored else drawn.clone()
        self._version = drawn._version if counted and scored else None
        self.path = drawn.grad_fn if eager and estimator.traits.needs_path else None

    def check_unchanged(self) -> None:
        """The sample is the one that was drawn, if it is to be scored."""
        if self._version is not None and self.drawn._version != self._version:
            raise ValueError(
                "samples were changed in place, and their gradient would be that of others: write "
                "z = 2 * z - 1, not z.mul_(2).sub_(1)"
            )


def _eager() -> bool:
    return not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


def paths(cost: Tensor, draws: Iterable[tuple[Given, str]]) -> None:
    """The cost depends differentiably on the sample of every estimator that needs it to.

    As far as autograd can tell in eager code. The graph is walked once for all samples, each of
    which comes with what it is called.
    """
    if not _eager() or not torch.is_grad_enabled():
        return
    needed = {given.path: (given.estimator, to) for given, to in draws if given.path is not None}
    for estimator, to in _unreached(cost, needed).values():
        raise ValueError(
            f"{estimator.name} needs a cost that is differentiable in the sample, got one without "
            f"a path to {to}; for a cost that is a black box take a score-function estimator, as "
            "rloo"
        )


def _unreached(cost: Tensor, needed: dict[Any, Any]) -> dict[Any, Any]:
    """Those nodes of `needed` to which autograd's graph does not lead from the cost."""
    waiting, seen, missing = [cost.grad_fn], set(), dict(needed)
    while waiting and missing:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        missing.pop(node, None)
        waiting.extend(parent for parent, _ in node.next_functions)
    return missing
