"""The ways to train that `benchmarks.g2p` compares."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """Flags of `pgest run g2p`, on shipped weights or on those of the arm `start`."""

    name: str
    title: str
    flags: str
    start: str | None = None
    seeds: int = 3


FULL = "--preset full"
AFTER = (
    "--learning-rate 1e-5 --steps 1500 --batch-size 256 --num-samples 12 --temperature 0.8 "
    "--entropy-coef 0.01"
)
STOP = "--patience 3"  # without information nothing improves, and long outputs take long
RANDOM = "--init random --learning-rate 1e-3 --warmup 50"
# A weak policy is uncertain. A bonus for the entropy of a sequence would pay it for length, and its
# samples are far from its greedy output: trained at temperature 1 it makes the samples better by
# making them shorter, and the greedy output worse.
WEAK = "--preset full --steps 1200 --learning-rate 1e-4 --entropy-coef 0 --temperature 0.3"


def tried(name: str, flags: str, start: str | None = None, *, every: int = 250) -> Arm:
    """One setting of the search: one seed, and no test words to speak of."""
    shared = f"--test-words 2 --evaluate-every {every}"
    return Arm(name, name, f"{FULL} {flags} {shared}", start, seeds=1)


GROUPS: dict[str, tuple[Arm, ...]] = {
    "controls": (
        Arm("reinforce", "policy gradient", FULL),
        Arm("xe", "supervised (XE)", f"{FULL} --objective xe"),
        Arm("constant", "policy gradient, constant reward", f"{FULL} --reward constant {STOP}"),
        Arm(
            "constant-bare",
            "constant reward, without baseline and entropy bonus",
            f"{FULL} --reward constant --baseline none --entropy-coef 0 {STOP}",
            seeds=1,
        ),
        Arm("xe-reinforce", "policy gradient after XE", f"{FULL} {AFTER}", "xe"),
    ),
    "stories": (
        Arm("cold", "policy gradient from random weights", f"{WEAK} --init random", seeds=1),
        Arm(
            "a-little-xe",
            "a little supervised training",
            f"{FULL} --objective xe {RANDOM} --steps 500",
            seeds=1,
        ),
        Arm("warm", "policy gradient after that", WEAK, "a-little-xe", seeds=1),
        Arm(
            "noisy-xe",
            "supervised training on noisy references",
            f"{FULL} --objective xe {RANDOM} --steps 2000 --reference-noise 0.3",
            seeds=1,
        ),
        Arm("noisy-reinforce", "policy gradient after that", WEAK, "noisy-xe", seeds=1),
    ),
    "search": (
        *(
            tried(f"xe-{rate}", f"--objective xe --learning-rate {rate}", every=500)
            for rate in ("4e-4", "2e-4", "1e-4")
        ),
        *(
            tried(f"xe-{rate}", f"--objective xe --learning-rate {rate}")
            for rate in ("5e-5", "3e-5", "2e-5", "1e-5")
        ),
        *(
            tried(f"reinforce-{rate}", f"--learning-rate {rate}")
            for rate in ("1.2e-4", "7e-5", "4e-5", "2.5e-5")
        ),
        tried("after-a", "--learning-rate 5e-5", "xe-2e-5"),
        tried(
            "after-b",
            "--learning-rate 2e-5 --steps 2000 --batch-size 96 --num-samples 16 --temperature 0.7 "
            "--entropy-coef 0",
            "xe-2e-5",
        ),
        tried("after-c", AFTER, "xe-2e-5"),
    ),
}
