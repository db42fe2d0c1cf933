"""`compare`: every estimator that applies, on one problem."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from pgest.comparison.figures import ROUNDING, Comparison, Figures
from pgest.comparison.moments import Moments, Truth
from pgest.comparison.problem import Count, Problem
from pgest.distributions import as_distribution
from pgest.estimators import Estimator, checks, registry
from pgest.estimators.registry import resolve
from pgest.ops import scalars

ROUNDS = 11  # of timing
PROBE = 16  # equal calls are taken to have nothing random


def compare(
    f: Callable[[Tensor], Tensor],
    distribution: Any,
    estimators: Iterable[str] | Mapping[str, str | Estimator] | None = None,
    *,
    num_samples: SupportsIndex = 4,
    precision: float = 0.1,
    repeats: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Bias, variance and cost of every estimator that applies to a problem, ranked.

        error of the mean of n calls = sqrt(bias^2 + variance / n) <= precision x |true gradient|

    The ranking is by the evaluations of f which that n takes. Where the support of one draw has at
    most 65,536 values the true gradient is exact, and where the outcomes of all samples are as few,
    so are bias and variance of the estimators that are functions of independent draws. Otherwise
    they are estimated from `repeats` calls with standard errors, all estimators from the same
    random numbers; without a true gradient, bias is the difference to `rloo`.

    Args:
        f, distribution: as in `pgest.expect`; f may be a black box. What counts is the gradient for
            the distribution's logits through z: that of f's own parameters, and of logits which f
            uses itself, does not.
        estimators: names, or instances by the names that they are to have in the table; by default
            all of `pgest.estimators.registry`.
        num_samples: S of each call.
        precision: the wanted error, relative to the gradient's length.
        repeats: calls where figures are estimated.
        seed: of the first of these calls.

    Returns:
        `Comparison`: print it for the table and a sentence of advice; `.figures`, `.record()` for
        JSON; `pgest.comparison.plot` draws it. Estimators that do not apply are in `.refused`, with
        what they said.

    Raises:
        TypeError, ValueError: arguments that do not fit; no estimator that applies.

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
    chosen = _chosen(estimators)
    problem = Problem(f, as_distribution(distribution))
    applicable, refused = _applicable(problem, chosen, samples)
    if not applicable:
        reasons = "; ".join(f"{name}: {why}" for name, why in refused.items())
        raise ValueError(
            f"estimators must have one that applies to this problem, got none: {reasons}"
        )
    truth = _truth(problem, samples, repeats, seed)
    counts = {name: _count(problem, e, samples, seed) for name, e in applicable.items()}
    seconds = _seconds(problem, applicable, samples, seed)
    rows = []
    for name, estimator in applicable.items():
        unbiased, count = estimator.traits.unbiased, counts[name]
        exact, moments = _moments(problem, truth, estimator, samples, repeats, seed)
        cost = {**vars(count), "seconds": seconds[name]}
        rows.append(Figures(name, unbiased, exact, **vars(moments), **cost))
    settings = {
        "num_samples": samples,
        "repeats": repeats,
        "seed": seed,
        "exact_gradient": truth.calls is None,
    }
    found = Comparison(tuple(rows), refused, precision, settings)
    ranked = sorted(rows, key=lambda r: (found.needed(r), r.bias if r.bias > ROUNDING else 0.0))
    return Comparison(tuple(ranked), refused, precision, settings)


def _chosen(
    estimators: Iterable[str] | Mapping[str, str | Estimator] | None,
) -> dict[str, Estimator]:
    if estimators is None:
        return dict(registry)
    if isinstance(estimators, str) or not isinstance(estimators, Iterable):
        came = type(estimators).__name__
        raise TypeError(f"estimators must be a list of names or a dict of instances, got {came}")
    if isinstance(estimators, Mapping):
        return {str(name): resolve(e) for name, e in estimators.items()}
    return {resolve(name).name: resolve(name) for name in estimators}


def _applicable(
    problem: Problem, chosen: dict[str, Estimator], samples: int
) -> tuple[dict[str, Estimator], dict[str, str]]:
    """Those that give a gradient, and what the others say."""
    applicable, refused = {}, {}
    for name, estimator in chosen.items():
        try:
            problem.sample(estimator, samples, seed=0)
        except (TypeError, ValueError) as reason:
            refused[name] = str(reason)
        else:
            applicable[name] = estimator
    return applicable, refused


def _count(problem: Problem, estimator: Estimator, samples: int, seed: int) -> Count:
    count = Count()
    problem.sample(estimator, samples, seed, count.of(problem.f))
    return count


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
        return Truth(problem.gradient.flatten())
    calls = _calls(problem, registry["rloo"], max(samples, 2), range(seed, seed + repeats))
    return Truth(calls.mean(0), calls)


def _moments(
    problem: Problem, truth: Truth, estimator: Estimator, samples: int, repeats: int, seed: int
) -> tuple[bool, Moments]:
    """Whether they are exact, and the moments."""
    if problem.can_enumerate(estimator, samples):
        return True, truth.enumerated(*problem.enumerate(estimator, samples))
    first = _calls(problem, estimator, samples, range(seed, seed + min(repeats, PROBE)))
    if truth.calls is None and len(first) == PROBE and bool((first == first[0]).all()):
        draws = problem.draws  # nothing in it is random
        return True, truth.enumerated(first[:1].view(1, draws, -1), first.new_ones(1, draws))
    rest = _calls(problem, estimator, samples, range(seed + len(first), seed + repeats))
    return False, truth.drawn(torch.cat([first, rest]))


def _calls(problem: Problem, estimator: Estimator, samples: int, seeds: range) -> Tensor:
    """Gradients [n, d], one for each seed."""
    found = [problem.sample(estimator, samples, s).flatten() for s in seeds]
    return torch.stack(found) if found else torch.zeros(0, problem.logits.numel()).double()
