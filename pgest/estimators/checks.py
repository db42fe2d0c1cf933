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


def cost(x: Any, shape: tuple[int, ...], distribution: Distribution | None) -> Tensor:
    """A floating-point tensor of one cost a sample; at least float32 when it comes back."""
    if not isinstance(x, Tensor):
        raise TypeError(f"cost must be a tensor, got {type(x).__name__}")
    if x.shape != shape:
        of = "" if distribution is None else f" of {distribution!r}"
        raise ValueError(
            f"cost must have shape {shape}, (samples, *batch_shape){of}, got {tuple(x.shape)}"
            + _advice(x.shape, shape, distribution)
        )
    if not x.is_floating_point():
        raise TypeError(f"cost must be floating point, got {x.dtype}: write cost.float()")
    return x.to(statistics_dtype(x))


def _advice(
    came: tuple[int, ...], shape: tuple[int, ...], distribution: Distribution | None
) -> str:
    """What to change: how f reduces, or the `event_dims` with which this shape would be right."""
    if not came:
        return "; f returns one cost for each sample, not their sum or mean"
    if came == (*shape, 1):
        return "; drop its last dimension, as squeeze(-1) and keepdim=False do"
    if distribution is None:
        return ""
    samples = shape[: len(shape) - len(distribution.batch_shape)]
    variables = (*samples, *distribution.variables)
    if came != variables[: len(came)]:
        return ""
    right = f"{type(distribution).__name__}(..., event_dims={len(variables) - len(came)})"
    return f"; with {right} this shape would be right"


def version(z: Tensor) -> int | None:
    """How often a tensor was written to; None where autograd does not count."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return None
    return None if z.is_inference() else z._version


def unchanged(z: Tensor, before: int | None) -> None:
    """The samples are those that were drawn: their probabilities are taken after f ran."""
    if before is not None and version(z) != before:
        raise ValueError(
            "samples were changed in place, and their gradient would be that of others: write "
            "z = 2 * z - 1, not z.mul_(2).sub_(1)"
        )


def paths(cost: Tensor, draws: Iterable[tuple[Tensor, Estimator]]) -> None:
    """The cost depends differentiably on the sample of every estimator that needs it to.

    As far as autograd can tell in eager code. The graph is walked once for all samples.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return
    needed = {z.grad_fn: e for z, e in draws if e.traits.needs_path and z.grad_fn is not None}
    if not torch.is_grad_enabled():
        return
    for estimator in _unreached(cost, needed).values():
        raise ValueError(
            f"{estimator.name} needs a cost that is differentiable in the sample, got one without "
            "a path to it; for a cost that is a black box take a score-function estimator, as rloo"
        )


def _unreached(cost: Tensor, needed: dict[Any, Estimator]) -> dict[Any, Estimator]:
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
