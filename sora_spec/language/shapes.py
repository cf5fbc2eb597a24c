"""The shapes that follow from a spec: latent grid, tokens, batches. Torch-free; every consumer asks here.

Legend for the whole repository: `B` batch, `C` channels, `F` latent frames, `H W` latent height and width,
`N` tokens = F·H·W / patch volume, `D` width, `M` context tokens. Videos are (B, 3, T, Y, X) in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sora_spec.language.facts import temporal_facts, vae_facts

if TYPE_CHECKING:  # rules ask for shapes too, and they run without pydantic
    from sora_spec.language.schema.spec import Spec


def latent_frames(spec: Spec, frames: int) -> int:
    """Latent frames of a clip of `frames` pixel frames: 1 + (frames − 1)/time if causal, frames/time otherwise.

    The caller has checked divisibility (rule E301); the result is floored here.
    """
    time = spec.vae.compression.time
    return 1 + (frames - 1) // time if vae_facts(spec.vae).causal else frames // time


def pixel_frames(spec: Spec, frames: int) -> int:
    """Pixel frames that decode from `frames` latent frames; the inverse of `latent_frames`."""
    time = spec.vae.compression.time
    return 1 + (frames - 1) * time if vae_facts(spec.vae).causal else frames * time


def frame_unit(spec: Spec) -> int:
    """Latent frames of which the network takes multiples: those of a patch, or of a window of patches."""
    return spec.patch.time * temporal_facts(spec.temporal).multiples[0]


@dataclass(frozen=True)
class Shapes:
    """Every extent that the clip, VAE and patch of a spec fix."""

    frames: int
    height: int
    width: int
    channels: int
    """Latent channels C."""
    latent_frames: int
    latent_height: int
    latent_width: int
    grid: tuple[int, int, int]
    """Token grid: frames, rows, columns."""
    out_channels: int
    """Channels the network returns: 2·C when it also predicts a variance."""

    @property
    def tokens(self) -> int:
        """Tokens N of one clip."""
        frames, rows, columns = self.grid
        return frames * rows * columns

    @property
    def latent(self) -> tuple[int, int, int, int]:
        """Latent shape of one clip: (C, F, H, W)."""
        return (self.channels, self.latent_frames, self.latent_height, self.latent_width)

    @property
    def video(self) -> tuple[int, int, int, int]:
        """Pixel shape of one clip: (3, T, Y, X)."""
        return (3, self.frames, self.height, self.width)


def derive_shapes(spec: Spec) -> Shapes:
    """Shapes of one clip under `spec`. Assumes the cross-section rules hold."""
    space = spec.vae.compression.space
    frames = latent_frames(spec, spec.clip.frames)
    height, width = spec.clip.height // space, spec.clip.width // space
    patch = spec.patch
    learned = spec.backbone.kind == "transformer" and spec.backbone.learn_sigma
    return Shapes(
        frames=spec.clip.frames,
        height=spec.clip.height,
        width=spec.clip.width,
        channels=spec.vae.channels,
        latent_frames=frames,
        latent_height=height,
        latent_width=width,
        grid=(frames // patch.time, height // patch.space, width // patch.space),
        out_channels=spec.vae.channels * (2 if learned else 1),
    )
