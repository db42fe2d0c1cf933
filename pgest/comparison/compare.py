"""`compare`: every estimator that applies, on one problem."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from statistics import median
from typing import Any, SupportsIndex, TypeVar

import torch
from torch import Tensor, nn

from pgest.comparison.figures import Comparison, Figures
from pgest.comparison.moments import Moments, Truth
from pgest.comparison.problem import Problem
from pgest.distributions import as_distribution
from pgest.estimators import Estimator, checks, registry
from pgest.estimators.registry import resolve
from pgest.ops import scalars

ROUNDS = 11  # of timing
PROBE = 16  # equal calls are taken to have nothing random
Found = TypeVar("Found")


def compare(
    f: Callable[[Tensor], Tensor],
    distribution: Any,
    estimators: Iterable[str | Estimator] | Mapping[str, str | Estimator] | None = None,
    *,
    num_samples: SupportsIndex = 4,
    precision: float = 0.1,
    repeats: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Bias, variance and cost of every estimator that applies to a problem, ranked.

        error of the mean of n calls = sqrt(bias^2 + variance / n) <= precision x |true gradient|

    The ranking is by the evaluations of f which that n, a whole number, takes; that some ask for
    f's slope too, or take longer by themselves, is in the table but not in the ranking. Where the
    support of one draw has at most 65,536 values the true gradient is exact, and where the outcomes
    of all samples are as few, so are bias and variance, in float64, of the estimators that are
    functions of independent draws. Otherwise they are estimated from `repeats` calls with standard
    errors, all estimators from the same random numbers; without a true gradient, bias is the
    difference to `rloo`.

    Args:
        f, distribution: as in `pgest.expect`; f may be a black box. What counts is the gradient for
            the distribution's logits through z: that of f's own parameters, and of logits which f
            uses itself, does not.
        estimators: names, or instances by the names that they are to have in the table; by default
            all of `pgest.estimators.registry`. Those with state are copied: compare changes none.
        num_samples: S of each call.
        precision: the wanted error, relative to the gradient's length.
        repeats: calls where figures are estimated.
        seed: of the first of these calls.

    Returns:
        `Comparison`: print it for the table and a sentence of advice; `.figures`, `.record()` for
        JSON; `pgest.comparison.plot` draws it. Estimators that do not apply are in `.refused`, with
        what they said.

    Raises:
        TypeError, ValueError: arguments that do not fit; two estimators of one name; costs of
            another shape, or that are not finite where the support is listed; no estimator that
            applies. What f raises on the listed support comes through.

    Gradients are taken under `no_grad` and `inference_mode` too.

    Memory: f's on the support, and all outcomes of the samples for one estimator at a time.

    Example:
        >>> bits = pgest.Bernoulli(torch.tensor([0.4, -0.9, 1.2]), event_dims=1)
        >>> found = pgest.compare(lambda z: (z.sum(-1) - 1) ** 2, bits, ["rloo", "reinmax"])
        >>> [(row.name, round(row.bias, 6)) for row in found.figures]
        [('reinmax', 0.0), ('rloo', 0.0)]
    """
    checks.cost_function(f)
    samples = checks.num_samples(num_samples)
    repeats, seed = scalars.count("repeats", repeats), scalars.integer("seed", seed)
    if repeats < 2:
        raise ValueError(f"repeats must be at least 2 for a standard error, got {repeats}")
    scalars.positive("precision", precision)
    chosen = named(estimators)
    with torch.inference_mode(False), torch.enable_grad():
        problem = Problem(f, as_distribution(distribution))
        rows, refused, length = _measured(problem, chosen, samples, repeats, seed)
    settings = {
        "num_samples": samples,
        "repeats": repeats,
        "seed": seed,
        "exact_gradient": problem.gradient is not None,
    }
    return Comparison(rows, refused, precision, length, settings).ranked()


def named(
    estimators: Iterable[str | Estimator] | Mapping[str, str | Estimator] | None,
) -> dict[str, Estimator]:
    """The estimators that `compare` is given, by the names that they have in the table.

    Raises:
        TypeError, ValueError: neither names nor instances; none; two of one name.
    """
    if estimators is None:
        return dict(registry)
    if isinstance(estimators, str) or not isinstance(estimators, Iterable):
        came = type(estimators).__name__
        raise TypeError(f"estimators must be a list of names or a dict of instances, got {came}")
    if isinstance(estimators, Mapping):
        return together([{str(name): resolve(e)} for name, e in estimators.items()])
    return together([{e.name if isinstance(e, Estimator) else e: resolve(e)} for e in estimators])


def together(groups: Iterable[Mapping[str, Estimator]]) -> dict[str, Estimator]:
    """All of them; one that is there twice is there once.

    Raises:
        ValueError: none; two of one name.
    """
    found: dict[str, Estimator] = {}
    for group in groups:
        for name, estimator in group.items():
            if found.setdefault(name, estimator) is not estimator:
                raise ValueError(
                    f"estimators must have one name each, got two that are called {name!r}: give "
                    f"a dict, as {{'first': ..., 'second': ...}}"
                )
    if not found:
        raise ValueError("estimators must have at least one, got none")
    return found


def _measured(
    problem: Problem, chosen: dict[str, Estimator], samples: int, repeats: int, seed: int
) -> tuple[tuple[Figures, ...], dict[str, str], float | None]:
    """A row for each that applies, what the others say, and the true gradient's length."""
    refused: dict[str, str] = {}
    counts = _each(chosen, lambda e: problem.count(e, samples, seed), refused)
    truth = _truth(problem, samples, repeats, seed)
    applicable = {name: chosen[name] for name in counts}
    moments = _each(
        applicable, lambda e: _moments(problem, truth, e, samples, repeats, seed), refused
    )
    applicable = {name: _own(chosen[name]) for name in moments}
    seconds = _seconds(problem, applicable, samples, seed)
    rows = []
    for name, estimator in applicable.items():
        exact, found = moments[name]
        cost = {**vars(counts[name]), "seconds": seconds[name], "lists": _lists(estimator)}
        rows.append(Figures(name, estimator.traits.unbiased, exact, **vars(found), **cost))
    return tuple(rows), refused, truth.length


def _each(
    estimators: dict[str, Estimator], measure: Callable[[Estimator], Found], refused: dict[str, str]
) -> dict[str, Found]:
    """What can be measured; of the others, what they or f say goes to `refused`."""
    found: dict[str, Found] = {}
    last: Exception | None = None
    for name, estimator in estimators.items():
        try:
            found[name] = measure(_own(estimator))
        except Exception as reason:  # f is the user's: where it fails, so does this estimator alone
            expected = isinstance(reason, TypeError | ValueError)
            refused[name] = str(reason) if expected else f"{type(reason).__name__}: {reason}"
            last = reason
    if not found:
        reasons = "; ".join(f"{name}: {why}" for name, why in refused.items())
        raise ValueError(
            f"estimators must have one that applies to this problem, got none: {reasons}"
        ) from last
    return found


def _own(estimator: Estimator) -> Estimator:
    """A copy where calls would change it."""
    changes = estimator.traits.stateful or isinstance(estimator, nn.Module)
    return deepcopy(estimator) if changes else estimator


def _lists(estimator: Estimator) -> bool:
    """Whether it refuses a support beyond some size, which it then says."""
    return hasattr(estimator, "max_support")


def _seconds(
    problem: Problem, estimators: dict[str, Estimator], samples: int, seed: int
) -> dict[str, float]:
    """Median seconds of a call with its backward, estimators in turns."""
    times: dict[str, list[float]] = {name: [] for name in estimators}
    for _ in range(ROUNDS):
        for name, estimator in estimators.items():
            begin = time.perf_counter()
            problem.sample(estimator, samples, seed)
            times[name].append(time.perf_counter() - begin)
    return {name: median(t) for name, t in times.items()}


def _truth(problem: Problem, samples: int, repeats: int, seed: int) -> Truth:
    if problem.gradient is not None:
        assert problem.listed is not None
        return Truth(problem.gradient.flatten(), resolution=problem.listed.resolution)
    calls = _calls(problem, registry["rloo"], max(samples, 2), range(seed, seed + repeats))
    return Truth(calls.mean(0), calls)


def _moments(
    problem: Problem, truth: Truth, estimator: Estimator, samples: int, repeats: int, seed: int
) -> tuple[bool, Moments]:
    """Whether they are exact, and the moments."""
    if problem.can_enumerate(estimator, samples):
        outcomes = None
        # One that holds numbers for this batch, or a network, may not take all outcomes as a batch.
        with suppress(TypeError, ValueError, RuntimeError):
            outcomes = problem.enumerate(estimator, samples)
        if outcomes is not None:
            return True, truth.enumerated(*outcomes)
    first = _calls(problem, estimator, samples, range(seed, seed + min(repeats, PROBE)))
    if truth.calls is None and len(first) == PROBE and truth.same(first):
        draws = problem.draws  # nothing in it is random
        return True, truth.enumerated(first[:1].view(1, draws, -1), first.new_ones(1, draws))
    rest = _calls(problem, estimator, samples, range(seed + len(first), seed + repeats))
    return False, truth.drawn(torch.cat([first, rest]))


def _calls(problem: Problem, estimator: Estimator, samples: int, seeds: range) -> Tensor:
    """Gradients [n, d], one for each seed."""
    found = [problem.sample(estimator, samples, s).flatten() for s in seeds]
    return torch.stack(found) if found else torch.zeros(0, problem.logits.numel()).double()
