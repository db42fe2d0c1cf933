"""Draws of tokens from rows of logits, with their statistics."""

from pgest.ops.sampling.api import Sample, sample

__all__ = ["Sample", "sample"]
