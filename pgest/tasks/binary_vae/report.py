"""What a run of the task says at its end."""

from __future__ import annotations

from pgest.runs import Evaluation
from pgest.tasks.binary_vae.config import BinaryVAEConfig
from pgest.tasks.binary_vae.estimators import traits


def report(config: BinaryVAEConfig, images: str, after: Evaluation, trained: int) -> str:
    """Return what was trained, each model's figures, and what an update costs."""
    kind = traits(config.estimator)
    bias = "unbiased" if kind.unbiased else f"biased, exact for {kind.exact_for or 'no f'}"
    lines = [
        f"{images}, {trained:,} training images: {config.code} bits, gradient of the encoder by "
        f"{config.estimator} ({bias}), {config.num_samples} draws for each image, "
        f"{kind.evaluations} evaluations of the decoder, S = {config.num_samples}.",
        "Bounds are in nats per image, of hard codes; higher is better. "
        + (
            f"Means over {config.models} models, ± their standard error."
            if config.models > 1
            else "± is the standard error over images; --models 3 shows the spread between models."
        ),
    ]
    if config.models > 1:
        for name, each in after.details.items():
            lines.append(f"  {name}: " + ", ".join(f"{value:.2f}" for value in each))
    return "\n".join(lines)
