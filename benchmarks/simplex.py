"""The cells of a triangle in which no swap of a Dirichlet's numbers changes what is drawn."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import torch
from torch import Tensor

Polygon = list[np.ndarray]


def cells(logits: list[float]) -> tuple[Tensor, Tensor]:
    """Noise [3, M] at the centroids of the cells, and their probabilities: for three tokens.

    An estimate is linear in pi within a cell, so that its value at the centroid is its mean there.
    """
    weight = np.exp(-np.array(logits))
    polygons: list[Polygon] = [[np.eye(3)[i] for i in range(3)]]
    orders = [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)]
    for order in orders:
        for i, k in combinations(range(3), 2):
            # Where pi[order[i]] weight[i] = pi[order[k]] weight[k] the smaller of both changes.
            line = np.zeros(3)
            line[order[i]] += weight[i]
            line[order[k]] -= weight[k]
            polygons = [half for polygon in polygons for half in split(polygon, line)]
    areas = np.array([area(polygon) for polygon in polygons])
    centres = np.stack([centroid(polygon) for polygon in polygons])
    noise = -np.expm1(-centres)
    return torch.tensor(noise.T.copy()), torch.tensor(areas / areas.sum())


def split(polygon: Polygon, line: np.ndarray) -> list[Polygon]:
    """What lies on either side of a line through the plane of the triangle."""
    halves: list[Polygon] = []
    for side in (line, -line):
        kept: Polygon = []
        for start, end in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
            a, b = float(side @ start), float(side @ end)
            if a >= 0:
                kept.append(start)
            if a * b < 0:
                kept.append(start + (end - start) * (a / (a - b)))
        if len(kept) > 2 and area(kept) > 1e-14:
            halves.append(kept)
    return halves


def triangles(polygon: Polygon) -> list[tuple[float, np.ndarray]]:
    """Area, in some unit, and centre of the triangles around the first corner."""
    first = polygon[0]
    found = []
    for a, b in pairwise(polygon[1:]):
        size = float(np.linalg.norm(np.cross(a - first, b - first)))
        found.append((size, (first + a + b) / 3))
    return found


def area(polygon: Polygon) -> float:
    """In some unit, the same for all."""
    return sum(size for size, _ in triangles(polygon))


def centroid(polygon: Polygon) -> np.ndarray:
    """The mean point of a convex polygon."""
    weighted = sum((size * centre for size, centre in triangles(polygon)), np.zeros(3))
    return np.asarray(weighted / area(polygon))
