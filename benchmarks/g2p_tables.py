"""Tables of the runs of `benchmarks.g2p`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from benchmarks.g2p_arms import Arm

WRONG = "with stress"


@dataclass(frozen=True)
class Run:
    """An arm with a seed that is done: its folder, and the run it started from."""

    arm: Arm
    seed: int
    folder: Path
    start: Run | None = None

    @cached_property
    def record(self) -> dict[str, Any]:
        """What the run wrote about itself."""
        found: dict[str, Any] = json.loads((self.folder / "record.json").read_text("utf-8"))
        return found

    @cached_property
    def evaluations(self) -> list[dict[str, float]]:
        """Its figures on validation words."""
        found: list[dict[str, float]] = self.record["history"]["evaluations"]
        return found

    @property
    def best(self) -> dict[str, float]:
        """The evaluation whose weights were tested."""
        at = self.record["best update"]
        return next(row for row in self.evaluations if row["step"] == at)

    @property
    def seconds(self) -> float:
        """The time of its training, evaluations on validation words included."""
        return float(self.record["training seconds"])

    def wrong(self, when: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return 100 for each test word that was wrong before or after training, else 0."""
        with open(self.folder / "test_errors.csv", encoding="utf-8", newline="") as file:
            return np.array([100.0 * (int(r[f"{when} {WRONG}"]) > 0) for r in csv.DictReader(file)])


def by_arm(runs: list[Run]) -> dict[str, list[Run]]:
    """Return the runs of each arm, in order."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.arm.name, []).append(run)
    return found


def change(runs: list[Run]) -> tuple[float, float]:
    """Return the mean change of WER over seeds, and its standard error over words, paired.

    The seeds share their test words: each word counts once, with its mean over the seeds.
    """
    words = np.mean([run.wrong("after") - run.wrong("before") for run in runs], axis=0)
    return float(words.mean()), float(words.std(ddof=1) / sqrt(len(words)))


def spread(values: list[float]) -> str:
    """Return the mean, and the standard deviation over seeds where there are several."""
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def controls(runs: list[Run], flags: str) -> str:
    """Return the table of test figures."""
    arms = by_arm(runs)
    lines = [
        "| trained | WER | change from its start | PER | WER, PER without stress "
        "| length ratio | KL | entropy | best of the updates "
        "| validation WER (PER): first, best, last | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        _shipped(runs[0]),
    ]
    for group in arms.values():
        mean, error = change(group)
        after = [run.record["after"]["figures"] for run in group]
        of = {name: [figures[name] for figures in after] for name in after[0]}
        plain = f"{fmean(of['WER without stress']):.2f}, {fmean(of['PER without stress']):.2f}"
        lines.append(
            f"| {group[0].arm.title} | {spread(of['WER with stress'])} | {mean:+.2f} ({error:.2f}) "
            f"| {spread(of['PER with stress'])} | {plain} | {fmean(of['length ratio']):.4f} "
            f"| {_best(group, 'KL'):.2f} | {_best(group, 'held-out entropy'):.2f} "
            f"| {_whole(run.best['step'] for run in group)} of {_whole(map(_steps, group))} "
            f"| {_course(group)} | {_whole(run.seconds for run in group)} |"
        )
    count = len(runs[0].wrong("before"))
    seeds = max(len(group) for group in arms.values())
    return "\n".join(
        [
            "# g2p: a reward beside its controls",
            "",
            f"WER and PER in per cent, with stress, on {count:,} test words: mean ± standard "
            f"deviation over {seeds} seeds. The change has in parentheses the standard error over "
            "test words, each paired with itself before and averaged over the seeds. KL from the "
            "shipped or started-from model and entropy in nats per word, on validation words. "
            "The weights that are tested are those whose validation WER was best. Seconds are of "
            "the whole training, with one thread and two runs at a time.",
            "",
            *lines,
            "",
            *_parts(arms),
            "",
            *_commands(arms, flags),
            "",
            _made(runs),
            "",
        ]
    )


def search(runs: list[Run], flags: str) -> str:
    """Return the table of validation figures."""
    lines = [
        "| flags | start | best WER | its PER | at update | last WER | KL | entropy | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        best, last = run.best, run.evaluations[-1]
        given = f"{run.arm.flags} {flags}".strip()
        lines.append(
            f"| `{given}` | {run.arm.start or 'shipped'} | {best['WER']:.2f} "
            f"| {best['PER']:.2f} | {best['step']:.0f} | {last['WER']:.2f} | {last['KL']:.2f} "
            f"| {last['held-out entropy']:.2f} | {run.seconds:.0f} |"
        )
    first, words = runs[0].evaluations[0], runs[0].record["config"]["validation_words"]
    return "\n".join(
        [
            "# g2p: how the settings were chosen",
            "",
            f"WER and PER in per cent, with stress, on {words:,} validation words (shipped: "
            f"{first['WER']:.2f} and {first['PER']:.2f}), one seed. The standard error of a WER is "
            "about 0.8, that of a difference on the same words about 0.5. Of the test words two "
            "are read, the fewest that a run takes, and not looked at.",
            "",
            *lines,
            "",
            _made(runs),
            "",
        ]
    )


TABLES: dict[str, Callable[[list[Run], str], str]] = {
    "controls": controls,
    "stories": controls,
    "search": search,
}


def _shipped(run: Run) -> str:
    """Return the row of the model as it came."""
    while run.start:
        run = run.start
    before = run.record["before"]["figures"]
    plain = f"{before['WER without stress']:.2f}, {before['PER without stress']:.2f}"
    name = "untrained" if run.record["config"]["init"] == "random" else "as shipped"
    return (
        f"| {name} | {before['WER with stress']:.2f} | | {before['PER with stress']:.2f} | {plain} "
        f"| {before['length ratio']:.4f} | 0 | {run.evaluations[0]['held-out entropy']:.2f} | | | |"
    )


def _best(runs: list[Run], name: str) -> float:
    return fmean(run.best[name] for run in runs)


def _steps(run: Run) -> int:
    return len(run.record["history"]["updates"])


def _course(runs: list[Run]) -> str:
    """Return the validation WER (and PER) at the start, at its best and at the end."""
    moments = [(run.evaluations[0], run.best, run.evaluations[-1]) for run in runs]
    return ", ".join(
        f"{fmean(row['WER'] for row in rows):.2f} ({fmean(row['PER'] for row in rows):.2f})"
        for rows in zip(*moments, strict=True)
    )


def _whole(values: Any) -> str:
    return f"{fmean(values):,.0f}"


def _parts(arms: dict[str, list[Run]]) -> list[str]:
    """Return where the time of an update goes, in milliseconds, for each arm."""
    spent = {
        name: {
            part: 1000 * seconds / len(group[0].record["history"]["updates"])
            for part, seconds in group[0].record["history"]["seconds"].items()
        }
        for name, group in arms.items()
    }
    parts = list(dict.fromkeys(part for times in spent.values() for part in times))
    lines = [
        "Milliseconds of an update, by part (first seed; an evaluation's time is spread over the "
        "updates between two):",
        "",
        f"| trained | {' | '.join(parts)} |",
        "|---" * (1 + len(parts)) + "|",
    ]
    for name, times in spent.items():
        cells = [f"{times[part]:.1f}" if part in times else "" for part in parts]
        lines.append(f"| {arms[name][0].arm.title} | {' | '.join(cells)} |")
    return lines


def _commands(arms: dict[str, list[Run]], flags: str) -> list[str]:
    """Return the command line of each arm."""
    lines = ["Each arm is one command line:", ""]
    for group in arms.values():
        arm = group[0].arm
        given = f"{arm.flags} {flags}".strip()
        start = f" --init FOLDER` of {arm.start}" if arm.start else "`"
        lines.append(f"- {arm.title}: `pgest run g2p {given}{start}")
    return lines


def _made(runs: list[Run]) -> str:
    """Return where and when the table was made."""
    environment = runs[0].record["environment"]
    commits = {run.record["environment"]["commit"] for run in runs}
    versions = sorted(commit[:7] if commit else "not recorded" for commit in commits)
    days = sorted({run.record["date"][:10] for run in runs})
    return (
        f"{environment['device']}, torch {environment['packages']['torch']}, "
        f"{' to '.join(dict.fromkeys([days[0], days[-1]]))}, commit {', '.join(versions)}."
    )
