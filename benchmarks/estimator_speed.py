"""The time of a step with every estimator: python -m benchmarks.estimator_speed [--quick].

Writes `results/estimator-speed.md`. One thread. Those that evaluate f equally often take turns with
the bare evaluations, round by round.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

import pgest
from benchmarks import estimator_peers as peers
from benchmarks.estimator_steps import (
    INSTANCES,
    Autoencoder,
    bare,
    by_hand,
    by_hand_tuned,
    estimated,
    small,
    small_by_hand,
)
from benchmarks.harness import RESULTS, Here, Seat, environment, table, take_turns
from benchmarks.processes import Elsewhere
from pgest.estimators import Estimator, registry

SAMPLES = (2, 4, 10)
SMALL_SAMPLES = 100
ROWS = {"S": (1, 0), "S + 1": (1, 1), "3 S": (3, 0)}  # of f, a S + b
BARE = "bare"
Times = dict[str, dict[int, float]]  # seconds by name and S
Group = tuple[str, bool]  # how often f is evaluated, and whether its slope is wanted

TEXT = """\
`python -m benchmarks.estimator_speed` wrote this.

A step is a forward and backward pass of a 784-200-200-200 binary autoencoder and back, leaky ReLU,
batches of 100, float32, on one thread, without the optimiser; f is the decoder with the likelihood
of the image. The first column of each S is the time of a step over that of its bare evaluations:
the encoder, and the decoder with the likelihood, forward and backward to the weights and, where the
estimator needs the slope of f, to the bits, at as many bits as the estimator evaluates f at, which
were drawn before. The second is milliseconds. Medians of rounds in which all that share a row of
bare evaluations take turns. `by_hand` is leave one out as people write it, `by_hand_tuned` the same
with the cheapest operations that we know. An instance that learns runs the backward of its
`fit_loss` too; networks are one layer from the bits or the input to one number, and 2-8-2 for
`Rodeo(net)`. A dash is a number of samples that the estimator does not take. Storchastic runs in a
process of its own, with the whole batch as one draw of one cost, ARM with S / 2 pairs.
`rodeo as published` makes all [S, B, D, D] neighbours, as its paper's formulas read."""

SMALL_TEXT = f"""\
Four bits, a quadratic cost, S = {SMALL_SAMPLES}, where the time is that of the calls: Python,
autograd and checks. The second column is the time over that of leave one out written by hand."""


def groups() -> tuple[dict[Group, list[str]], dict[str, str]]:
    """The estimators by what is bare, and why others are left out."""
    found: dict[Group, list[str]] = {}
    left: dict[str, str] = {}
    for name, estimator in {**registry, **{n: make() for n, make in INSTANCES.items()}}.items():
        traits = estimator.traits
        if reason := refusal(estimator):
            left[name] = reason
        elif traits.evaluations not in ROWS:
            left[name] = f"evaluates f {traits.evaluations} times, n = 200 and V = 2"
        else:
            found.setdefault((traits.evaluations, traits.needs_path), []).append(name)
    return found, left


def refusal(estimator: Estimator, bits: int = 200, samples: int = 10) -> str:
    """Why it does not take so many bits."""
    if isinstance(estimator, pgest.estimators.NVIL):  # which wants its input first
        return ""
    try:
        estimator.check(pgest.Bernoulli(torch.zeros(bits), event_dims=1), samples)
    except (TypeError, ValueError) as error:
        return str(error).replace("|", "/")
    return ""


def takes(name: str, samples: int) -> bool:
    """Whether an estimator takes so many samples."""
    return name not in registry or not refusal(registry[name], samples=samples)


def steps(net: Autoencoder, group: Group, names: Iterable[str], samples: int) -> dict[str, Seat]:
    """What takes turns at S samples."""
    a, b = ROWS[group[0]]
    seats = {BARE: bare(net, a * samples + b, group[1])}
    for name in filter(lambda n: takes(n, samples), names):
        given = INSTANCES[name]() if name in INSTANCES else name
        seats[name] = estimated(net, given, samples)
    if "rloo" in names:
        seats |= {"by_hand": by_hand(net, samples), "by_hand_tuned": by_hand_tuned(net, samples)}
    if "rodeo" in names:
        seats["rodeo as published"] = peers.published_rodeo(net, samples)
    return {name: Here(candidate) for name, candidate in seats.items()}


class Storchastic:
    """Its methods, by ours, each in a process of its own; none where it is not installed."""

    def __init__(self) -> None:
        names = {} if peers.storchastic_version() is None else peers.METHODS
        one = {"OMP_NUM_THREADS": "1"}
        self.of = {
            name: Elsewhere("benchmarks.estimator_peers", method, one)
            for name, method in names.items()
        }

    def seats(self, problem: str, samples: int, names: Iterable[str]) -> dict[str, Seat]:
        """Those that answer to what is measured."""
        case = {"problem": problem, "samples": samples}
        return {
            f"storchastic {peers.METHODS[n]}": self.of[n].at(case) for n in names if n in self.of
        }


def decoder_times(
    samples: Iterable[int], budget_s: float, theirs: Storchastic
) -> dict[Group, Times]:
    """Seconds of all steps, group by group; `budget_s` for a dozen candidates."""
    torch.manual_seed(0)
    net, found = Autoencoder(), {}
    for group, names in groups()[0].items():
        times: Times = {}
        for n in samples:
            print(f"  {group} S = {n}: {', '.join(names)}", file=sys.stderr, flush=True)
            seats = {**steps(net, group, names, n), **theirs.seats("decoder", n, names)}
            for name, m in take_turns(seats, budget_s * len(seats) / 12).items():
                times.setdefault(name, {})[n] = m.seconds
        found[group] = times
    return found


def small_times(budget_s: float, theirs: Storchastic) -> dict[str, float]:
    """Seconds of all estimators on four bits."""
    seats: dict[str, Seat] = {"by_hand": Here(small_by_hand(SMALL_SAMPLES))}
    for name, estimator in registry.items():
        if not refusal(estimator, 4, SMALL_SAMPLES):
            seats[name] = Here(small(name, SMALL_SAMPLES))
    seats |= theirs.seats("small", SMALL_SAMPLES, peers.METHODS)
    return {name: m.seconds for name, m in take_turns(seats, budget_s).items()}


def decoder_table(times: Times, samples: Iterable[int]) -> str:
    """Ratios to the bare evaluations, and milliseconds."""
    header = ["step", *(x for n in samples for x in (f"S = {n}: x bare", "ms"))]
    rows = []
    for name, of in times.items():
        cells = []
        for n in samples:
            ratio = f"{of[n] / times[BARE][n]:.2f}" if n in of else "–"
            cells += [ratio, f"{1e3 * of[n]:.2f}" if n in of else "–"]
        rows.append([name, *cells])
    return table(header, rows)


def page(found: dict[Group, Times], small: dict[str, float], samples: Iterable[int]) -> str:
    """The page of results."""
    facts = environment() | {"storchastic": peers.storchastic_version() or "not installed"}
    parts = ["# Time of a step", TEXT, "\n".join(f"- {k}: {v}" for k, v in facts.items())]
    for (evaluations, slope), times in found.items():
        parts += [f"## f at {evaluations} points{', and its slope' if slope else ''}"]
        parts += [decoder_table(times, samples)]
    left = [[name, reason] for name, reason in groups()[1].items()]
    parts += ["## Left out of the above", table(["estimator", "reason"], left)]
    rows = [[n, f"{1e3 * s:.3f}", f"{s / small['by_hand']:.2f}"] for n, s in small.items()]
    parts += ["## Small steps", SMALL_TEXT, table(["step", "ms", "x by_hand"], rows)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure, print and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="S = 2 alone, and few rounds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples, budget_s = (SAMPLES[:1], 1.0) if options.quick else (SAMPLES, 25.0)
    theirs = Storchastic()
    found = decoder_times(samples, budget_s, theirs)
    written = page(found, small_times(2 * budget_s, theirs), samples)
    print(written)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "estimator-speed.md").write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
