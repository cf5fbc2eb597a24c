"""Several clips as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
"""(T, Y, X, 3)"""


def tile_clips(clips: Sequence[Frames], columns: int = 4, gap: int = 2) -> Frames:
    """Clips of one shape side by side, `columns` in a row, on grey."""
    frames, height, width, _ = clips[0].shape
    columns = min(columns, len(clips))
    rows = -(-len(clips) // columns)
    tiled = np.full((frames, rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 128, np.uint8)
    for index, clip in enumerate(clips):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        tiled[:, top : top + height, left : left + width] = clip
    return tiled
