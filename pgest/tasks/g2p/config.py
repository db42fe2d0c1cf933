"""The settings of `pgest run g2p`, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pgest.runs import SequenceConfig
from pgest.runs.config import at_least


@dataclass(frozen=True)
class G2PConfig(SequenceConfig):
    """The configuration of `pgest run g2p`."""

    init: str = "shipped"
    """Weights to start from: g2p-en's own (shipped), new ones (random), or those of an earlier run
    (its folder)."""

    reward: Literal["error_rate", "exact_match", "constant"] = "error_rate"
    """What a sample earns: minus its phoneme error rate, 1 where all of it is right (else 0), or
    always 1, which is a control."""

    reference_noise: float = 0.0
    """Chance of each phoneme of a training reference to be replaced, dropped or doubled by a random
    one: what supervised training then learns from. Rewards and tests use clean references."""

    validation_words: int = 3000
    """Held-out words of the curves; the test words are others, and read only before and after."""

    test_words: int | None = None
    """Test words; None takes all 11,886."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.reference_noise < 1:
            raise ValueError(f"reference_noise must be in [0, 1), got {self.reference_noise}")
        at_least(self, 2, "validation_words")
        if self.test_words is not None:
            at_least(self, 2, "test_words")
        supervised = self.objective == "xe" or self.xe_coef
        if self.reference_noise and not supervised:
            raise ValueError(
                "reference_noise must be 0 where no reference is learned from (objective xe or "
                f"xe_coef), got {self.reference_noise}"
            )
        if self.objective == "xe" and self.reward != "error_rate":
            raise ValueError(
                f"reward must be left at error_rate with objective xe, got {self.reward}"
            )


# Chosen on validation words alone: benchmarks/results/g2p-search.md.
_REINFORCE = G2PConfig(
    steps=3000, batch_size=128, num_samples=8, learning_rate=3e-5, entropy_coef=0.03
)
_CROSS_ENTROPY = G2PConfig(
    objective="xe", steps=3500, batch_size=256, learning_rate=2e-5, warmup=100
)
_SMOKE = G2PConfig(
    steps=4, warmup=1, batch_size=8, evaluate_every=2, validation_words=64, test_words=64
)

PRESETS: Mapping[str, Mapping[str, G2PConfig]] = {
    "demo": {
        "reinforce": replace(_REINFORCE, steps=2000, learning_rate=5e-5),
        "xe": replace(_CROSS_ENTROPY, steps=2000, learning_rate=3e-5),
    },
    "full": {"reinforce": _REINFORCE, "xe": _CROSS_ENTROPY},
    "smoke": {"reinforce": _SMOKE, "xe": replace(_SMOKE, objective="xe")},
}
