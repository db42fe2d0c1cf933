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


GROUPS: dict[str, tuple[Arm, ...]] = {
    "controls": (
        Arm("reinforce", "policy gradient", "--preset full"),
        Arm("xe", "supervised (XE)", "--preset full --objective xe"),
        Arm("constant", "policy gradient, constant reward", "--preset full --reward constant"),
        Arm(
            "constant-bare",
            "the same without baseline and entropy bonus",
            "--preset full --reward constant --baseline none --entropy-coef 0",
        ),
        Arm("xe-reinforce", "policy gradient after XE", "--preset after-xe", start="xe"),
    ),
}
