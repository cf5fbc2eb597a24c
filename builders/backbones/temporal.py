"""`temporal` section → what the attentions of every block see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sora_spec.builders.blocks.sequences import AcrossFrames, Sequences, WholeClip, WithinFrames
from sora_spec.builders.blocks.windows import Windows
from sora_spec.language.facts import Grid

Pattern = tuple[tuple[Sequences, ...], ...]
"""Of each block until they repeat: its attention, and its second one if it has two."""

TEMPORAL: dict[str, Callable[[Any, Grid], Pattern]] = {
    "none": lambda section, grid: ((WithinFrames(),),),
    "joint": lambda section, grid: ((WholeClip(),),),
    "alternating": lambda section, grid: ((WithinFrames(),), (AcrossFrames(),)),
    "factorized": lambda section, grid: ((WithinFrames(), AcrossFrames()),),
    "windowed": lambda section, grid: ((WithinFrames(),), (Windows(section.window, grid),)),
}
"""By kind of `temporal`: the pattern of a section over a token grid."""
