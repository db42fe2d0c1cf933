"""Data sets that travel with the package."""

from pgest.data.cmudict import PARTS, cmudict, part_of

__all__ = ["PARTS", "cmudict", "part_of"]
