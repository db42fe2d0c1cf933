"""Noise in which every outcome of an estimator lies once, whatever it draws with it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from benchmarks.couplings import RULES
from benchmarks.joint_outcomes import joint_outcomes
from benchmarks.perturbed_outcomes import perturbed_outcomes
from pgest.comparison.outcomes import Kind, outcomes
from pgest.estimators import Distinct, Estimator, MuProp, Perturbed, SumAndSample
from pgest.estimators.registry import resolve

Special = SumAndSample | Distinct | Perturbed | MuProp


def is_listed(estimator: Estimator) -> bool:
    """Whether `noise_for` lists the outcomes of an estimator."""
    return estimator.traits.enumerable or type(estimator) in RULES or isinstance(estimator, Special)


def noise_for(
    estimator: Any, kind: Kind, logits: Tensor, samples: int, event_dims: int = 1
) -> tuple[Tensor, Tensor]:
    """Noise [..., rows, ...] for an estimator, one outcome a row, and their probability [rows]."""
    chosen = resolve(estimator)
    logits = logits.detach().double()
    if (rule := RULES.get(type(chosen))) is not None:
        return rule(kind, logits, samples)
    if isinstance(chosen, SumAndSample | Distinct):
        return joint_outcomes(chosen, kind(logits, event_dims=event_dims), samples)
    if isinstance(chosen, Perturbed):
        assert (samples, kind(logits, event_dims=event_dims).batch_shape) == (1, ())
        return perturbed_outcomes(chosen, kind, logits)
    return outcomes(kind, logits, samples)
