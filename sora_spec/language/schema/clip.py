"""`clip`: the video that is trained and generated, in pixels; and `patch`: how latents become tokens."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sora_spec.language.schema.section import Frames, Section

Side = Annotated[int, Field(ge=1, le=16_384)]


class Clip(Section):
    """The clip that is trained and generated, before compression."""

    frames: Frames
    """Frames of one clip. A causal VAE takes 1 + k·(time compression) frames; an image is one frame."""
    height: Side
    """Height in pixels."""
    width: Side
    """Width in pixels."""
    fps: Annotated[float, Field(gt=0, le=1000)] = 16.0
    """Frames a second. Source videos of another rate are resampled to it."""

    @property
    def seconds(self) -> float:
        """Length of the clip in seconds."""
        return self.frames / self.fps


class Patch(Section):
    """How many latent positions make one token (DiT's patch size, OpenDiT's 1x2x2)."""

    time: Annotated[int, Field(ge=1, le=64)] = 1
    """Latent frames per token."""
    space: Annotated[int, Field(ge=1, le=64)] = 2
    """Latent rows and columns per token."""
