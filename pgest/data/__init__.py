"""Data sets: one that travels with the package, and readers of some that others ship."""

from pgest.data.cmudict import PARTS, cmudict, part_of
from pgest.data.images import Images, digits, fetch_mnist, mnist

__all__ = ["PARTS", "Images", "cmudict", "digits", "fetch_mnist", "mnist", "part_of"]
