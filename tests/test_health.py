"""Warnings come when a run goes wrong, and not when it goes well or nothing is known."""

import pytest

from pgest.runs import History, Metric
from pgest.runs.health import symptoms

WER = Metric("WER", "min")


def history(
    updates: dict[str, tuple[float, float]], evaluations: dict[str, list[float]]
) -> History:
    """A run of 200 updates, whose figures move linearly, with a little noise."""
    rows = [
        {
            "step": float(step),
            **{
                name: a + (b - a) * step / 199 + 0.001 * (-1) ** step
                for name, (a, b) in updates.items()
            },
        }
        for step in range(200)
    ]
    count = len(next(iter(evaluations.values())))
    held_out = [
        {"step": 200.0 * i / (count - 1), **{k: v[i] for k, v in evaluations.items()}}
        for i in range(count)
    ]
    return History(rows, held_out)


HEALTHY = {"reward": (-0.2, -0.1), "entropy": (0.25, 0.2), "tied groups": (0.3, 0.5)}


def test_a_healthy_run_is_left_alone() -> None:
    run = history(HEALTHY, {"WER": [30.0, 29.0, 28.0], "length ratio": [1.0, 0.997, 0.995]})
    assert symptoms(run, WER, 0.8) == {}


def test_a_reward_that_rises_while_the_metric_falls() -> None:
    run = history(HEALTHY, {"WER": [30.0, 28.0, 31.0]})
    found = symptoms(run, WER, 0.5)
    assert set(found) == {"reward"}
    assert "update 200: the reward of samples has risen from -0.1" in found["reward"]
    assert "the held-out WER has gone from 28 to 31" in found["reward"]
    assert symptoms(run, WER, 2.0) == {}  # within the noise of the held-out words


def test_a_metric_that_is_to_be_large() -> None:
    bleu = Metric("BLEU", "max")
    assert set(symptoms(history(HEALTHY, {"BLEU": [30.0, 33.0, 28.0]}), bleu, 0.5)) == {"reward"}
    assert symptoms(history(HEALTHY, {"BLEU": [30.0, 31.0, 33.0]}), bleu, 0.5) == {}


def test_a_policy_that_is_wrecked() -> None:
    run = history({**HEALTHY, "reward": (-0.2, -0.2)}, {"WER": [30.0, 32.0, 36.0]})
    found = symptoms(run, WER, 0.8)
    assert set(found) == {"metric"}
    assert "is 36, worse than 30 before training" in found["metric"]
    assert symptoms(history(HEALTHY, {"WER": [30.0, float("nan")]}), WER, 0.8)


@pytest.mark.parametrize(
    ("updates", "evaluations", "about", "words"),
    [
        ({"entropy": (0.3, 0.0)}, {}, "entropy", "has fallen from 0.26"),
        ({}, {"length ratio": [1.0, 0.99, 0.95]}, "length", "grow shorter"),
        ({}, {"length ratio": [1.0, 1.01, 1.05]}, "length", "grow longer"),
    ],
)
def test_other_symptoms(
    updates: dict[str, tuple[float, float]],
    evaluations: dict[str, list[float]],
    about: str,
    words: str,
) -> None:
    run = history({**HEALTHY, **updates}, {"WER": [30.0, 29.0, 28.0], **evaluations})
    found = symptoms(run, WER, 0.8)
    assert set(found) == {about}
    assert words in found[about]


def test_nothing_is_said_too_early_or_about_what_was_not_measured() -> None:
    run = history(HEALTHY, {"WER": [30.0, 60.0]})
    run.updates = run.updates[:10]
    assert symptoms(run, WER) == {}
    supervised = history({"cross-entropy": (1.2, 1.0)}, {"WER": [30.0, 29.0]})
    assert symptoms(supervised, WER) == {}


def test_a_metric_whose_noise_is_not_known_is_not_judged() -> None:
    run = history(HEALTHY, {"WER": [30.0, 28.0, 31.0]})
    assert symptoms(run, WER) == {}
    assert symptoms(run, WER, float("nan")) == {}


def test_a_length_that_gets_right_is_no_symptom() -> None:
    run = history(HEALTHY, {"WER": [30.0, 28.0], "length ratio": [3.1, 0.98]})
    assert symptoms(run, WER, 0.8) == {}
    xe = history({"cross-entropy": (1.2, 1.0)}, {"WER": [30.0, 29.0], "length ratio": [1.0, 0.9]})
    assert "reward" not in symptoms(xe, WER, 0.8)["length"]
