"""Warnings, in words, about a run that goes wrong while its reward looks fine."""

from __future__ import annotations

import math

from pgest.runs.history import History, Metric

WINDOW = 50
"""Updates over which a figure is averaged, at most: noise must not warn."""

COLLAPSED = 0.2
"""The part of its first entropy below which a policy hardly explores any more."""

DRIFT = 0.02
"""The change of the length ratio that is more than taste."""

SHORTEST = 20
"""Updates before which nothing is said."""

DOUBT = 2.0
"""Standard errors beyond which a difference counts."""


def symptoms(history: History, metric: Metric, standard_error: float = math.nan) -> dict[str, str]:
    """Return a sentence for each thing that looks wrong after the last evaluation, by its name.

    - `reward`: the held-out metric is worse than it was, by two standard errors, though the reward
      of samples has risen: the reward is being gamed or the policy overfits.
    - `metric`: the held-out metric is worse than before training, by two standard errors.
    - `entropy`: the entropy of samples has fallen below a fifth of what it was.
    - `length`: the held-out length ratio is farther from 1 than it was, by more than 0.02.

    Figures that were not measured warn of nothing, nor does a metric without a `standard_error`:
    what is only noise must not be called a fall.
    """
    found: dict[str, str] = {}
    if len(history.updates) < SHORTEST or len(history.evaluations) < 2:
        return found
    last = int(history.evaluations[-1]["step"])
    # No longer than half of what there is: the first window must not hold the last updates.
    window = max(1, min(WINDOW, len(history.updates) // 2))
    has = history.updates[0].keys()
    if math.isfinite(standard_error):
        found.update(_metric(history, metric, standard_error, window))
    if "entropy" in has:
        first, now = _ends(history, "entropy", window)
        if now < COLLAPSED * first:
            found["entropy"] = (
                f"update {last}: the entropy of samples has fallen from {first:.2g} to {now:.2g} "
                "nats per token; the policy hardly explores. Raise entropy_coef or kl_coef, or "
                "lower learning_rate."
            )
    if "length ratio" in history.evaluations[0]:
        first, now = (history.evaluations[i]["length ratio"] for i in (0, -1))
        if abs(now - 1) > abs(first - 1) + DRIFT:
            word = "shorter" if now < first else "longer"
            cause = " The reward may pay for it." if "reward" in has else ""
            found["length"] = (
                f"update {last}: held-out outputs grow {word}; their length was {first:.3f} of the "
                f"references' and is {now:.3f}.{cause}"
            )
    return found


def _metric(history: History, metric: Metric, error: float, window: int) -> dict[str, str]:
    """Return what is wrong with the held-out metric."""
    start, now = history.evaluations[0], history.evaluations[-1]
    best = history.evaluations[history.best(metric)]
    name, value = metric.name, now[metric.name]
    margin = DOUBT * math.sqrt(2) * error
    step = int(now["step"])
    if _worse(value, best[name], margin, metric) and "reward" in history.updates[0]:
        at = int(best["step"])
        then = history.mean("reward", max(0, at - window), max(at, window))
        reward = history.mean("reward", -window, len(history.updates))
        if reward > then + DOUBT * _mean_error(history, "reward", window):
            return {
                "reward": f"update {step}: the reward of samples has risen from {then:.4g} to "
                f"{reward:.4g} since update {at}, while the held-out {name} has gone from "
                f"{best[name]:.4g} to {value:.4g}. The reward is gamed, or the policy overfits."
            }
    if _worse(value, start[name], margin, metric):
        return {
            "metric": f"update {step}: the held-out {name} is {value:.4g}, worse than "
            f"{start[name]:.4g} before training. Try a lower learning_rate."
        }
    return {}


def _worse(value: float, other: float, margin: float, metric: Metric) -> bool:
    loss = value - other if metric.goal == "min" else other - value
    return not loss <= margin  # NaN is worse


def _ends(history: History, name: str, window: int) -> tuple[float, float]:
    """Return the figure's mean over the first and over the last updates."""
    count = len(history.updates)
    return history.mean(name, 0, window), history.mean(name, count - window, count)


def _mean_error(history: History, name: str, window: int) -> float:
    """Return the standard error of the difference of two means over `window` updates."""
    values = [row[name] for row in history.updates[-window:]]
    mean = sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return math.sqrt(2 * spread / len(values))
