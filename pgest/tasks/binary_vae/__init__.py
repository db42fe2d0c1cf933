"""A binary autoencoder of images, trained with any estimator: which one fits best?"""

from __future__ import annotations


def run(argv: list[str]) -> int:
    """Run `pgest run binary-vae` with these arguments."""
    from pgest import runs
    from pgest.tasks.binary_vae.config import PRESETS
    from pgest.tasks.binary_vae.task import NAME, BinaryVAE

    config, resume = runs.configure(argv, PRESETS, NAME, __doc__)
    runs.run(BinaryVAE(config), config, resume=resume)
    return 0
