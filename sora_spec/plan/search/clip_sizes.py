"""Clips that a VAE and its patches can take: shorter or longer, smaller or larger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sora_spec.language.facts import temporal_facts
from sora_spec.language.shapes import frame_unit, latent_frames, pixel_frames

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


def frame_counts(spec: Spec, most: int) -> list[int]:
    """Numbers of frames up to `most` that make whole tokens, ascending."""
    limit = latent_frames(spec, most)
    unit = frame_unit(spec)
    counts = [pixel_frames(spec, count) for count in range(unit, limit + 1, unit)]
    if not temporal_facts(spec.temporal).moves:
        return [count for count in counts if count == spec.clip.frames]
    return [count for count in counts if _shares_tokens(spec, latent_frames(spec, count) // spec.patch.time, None)]


def sizes(spec: Spec, largest: float = 1.0) -> list[tuple[int, int]]:
    """Heights and widths of nearly the clip's aspect, ascending, up to `largest` times its own sides."""
    step = spec.vae.compression.space * spec.patch.space
    rows, columns = spec.clip.height // step, spec.clip.width // step
    short, window = min(rows, columns), temporal_facts(spec.temporal).multiples
    found: list[tuple[int, int]] = []
    for side in range(1, int(short * largest) + 1):
        scale = side / short
        size = (max(1, round(rows * scale)), max(1, round(columns * scale)))
        if not (size[0] % window[1] or size[1] % window[2]) and _shares_tokens(spec, None, size):
            found.append((size[0] * step, size[1] * step))
    return found


def _shares_tokens(spec: Spec, frames: int | None, size: tuple[int, int] | None) -> bool:
    """Whether the ranks of a sequence group can share the tokens evenly."""
    if spec.parallel.sequence == 1:
        return True
    step = spec.vae.compression.space * spec.patch.space
    frames = frames or latent_frames(spec, spec.clip.frames) // spec.patch.time
    rows, columns = size or (spec.clip.height // step, spec.clip.width // step)
    return frames * rows * columns % spec.parallel.sequence == 0


def with_frames(spec: Spec, frames: int) -> dict[str, Any]:
    """Values that change the clip's length; the exported range follows."""
    values: dict[str, Any] = {"clip.frames": frames}
    exported = spec.export.frames
    if exported is not None and not exported[0] <= frames <= exported[1]:
        values["export.frames"] = (min(exported[0], frames), max(exported[1], frames))
    return values


def with_size(size: tuple[int, int]) -> dict[str, Any]:
    """Values that change the clip's height and width."""
    return {"clip.height": size[0], "clip.width": size[1]}
