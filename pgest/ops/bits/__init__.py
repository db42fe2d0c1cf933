"""Vectors of bits: draws, log-probability and entropy, with their gradients."""

from pgest.ops.bits.api import BitStats, bit_stats, sample_bits

__all__ = ["BitStats", "bit_stats", "sample_bits"]
