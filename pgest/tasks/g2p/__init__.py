"""English spelling to phonemes: tune a pre-trained model on its phoneme errors alone."""

from __future__ import annotations


def main(argv: list[str]) -> int:
    """Run `pgest run g2p` with these arguments."""
    from pgest.runs import configure, run
    from pgest.tasks.g2p.task import G2P, PRESETS

    config = configure(argv, PRESETS, "pgest run g2p", __doc__)
    run(G2P(config), config)
    return 0
