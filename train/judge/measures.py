"""What a set of clips is like as a whole: spread within a class, sharpness, speed, distance to real clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
COMPONENTS = 32
"""Numbers that a clip becomes for the distance."""


def within_class_variance(pictures: Array, classes: Sequence[int]) -> float:
    """Sum over pixels of the variance around the class's mean, the mean over classes: pictures (N, P)."""
    labels = np.asarray(classes)
    spreads = [
        pictures[labels == label].var(axis=0, ddof=1).sum()
        for label in np.unique(labels)
        if (labels == label).sum() > 1
    ]
    return float(np.mean(spreads)) if spreads else float("nan")


def sharpness(clips: Array) -> float:
    """Mean absolute difference between neighbours in a row: clips (N, T, Y, X) in [0, 1]."""
    return float(np.abs(np.diff(clips, axis=-1)).mean())


@dataclass(frozen=True)
class Extractor:
    """Principal components of real clips: a clip (T, Y, X) becomes its coordinates along them."""

    mean: Array
    axes: Array
    """(components, T·Y·X), orthonormal"""

    @classmethod
    def of(cls, clips: Array, components: int = COMPONENTS) -> Extractor:
        """The components along which `clips` (N, T, Y, X) vary most."""
        flat = clips.reshape(len(clips), -1)
        mean = flat.mean(0)
        _, _, axes = np.linalg.svd(flat - mean, full_matrices=False)
        return cls(mean, axes[: min(components, len(clips) - 1)])

    def features(self, clips: Array) -> Array:
        """(N, components)"""
        return (clips.reshape(len(clips), -1) - self.mean) @ self.axes.T


def frechet_distance(one: Array, other: Array) -> float:
    """Fréchet distance, squared, of two Gaussians with the means and covariances of features (N, D).

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½): Dowson and Landau 1982, as FID and FVD have it.
    """
    means = one.mean(0), other.mean(0)
    first, second = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (one, other))
    root = _root(first)
    mixed = np.linalg.eigvalsh(root @ second @ root)
    overlap = np.sqrt(np.clip(mixed, 0, None)).sum()
    distance = ((means[0] - means[1]) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * overlap
    return max(0.0, float(distance))  # rounding may leave it a hair below


def _root(matrix: Array) -> Array:
    """Square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
