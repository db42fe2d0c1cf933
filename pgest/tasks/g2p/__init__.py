"""English spelling to phonemes: tune a pre-trained model on its phoneme errors alone."""

from __future__ import annotations


def run(argv: list[str]) -> int:
    """Run `pgest run g2p` with these arguments."""
    from pgest import runs
    from pgest.tasks.g2p.config import PRESETS
    from pgest.tasks.g2p.task import G2P

    config, resume = runs.configure(argv, PRESETS, "g2p", __doc__)
    weights = config.init if resume is None else str(resume / runs.START)
    runs.run(G2P(config, weights), config, resume=resume)
    return 0


def predict(argv: list[str]) -> int:
    """Run `pgest predict g2p` with these arguments."""
    from pgest.tasks.g2p.prediction import main

    return main(argv)
