"""Latents → frames: in one pass of the VAE's decoder, or by whatever else has `Decoder`'s two members. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sora_spec.builders.diffusion.noise import NoiseStream
from sora_spec.builders.vae.tiling import in_tiles
from sora_spec.compile.run.executors.stage import Stage
from sora_spec.errors import UserError
from sora_spec.language.facts import is_trainable
from sora_spec.language.schema.spec import Spec
from sora_spec.language.shapes import latent_frames
from sora_spec.language.tiles import cut_of
from sora_spec.recipe.sampling import frames_per_decode

Noise: TypeAlias = Callable[[Sequence[int]], NoiseStream]
"""`noise(shape)`: draws of that shape for each sample, of the sample's own and the decoder's own stream."""
Progress: TypeAlias = Callable[[int], object]


def ignore(_: int) -> None:
    """Progress that nobody watches."""


class Decoder(Protocol):
    """What turns latents into frames. One that samples draws from `noise` and calls its network `calls` times."""

    @property
    def calls(self) -> int:
        """Calls of the network for one clip, which the progress counts."""
        ...

    def decode(self, latents: NDArray[np.float32], noise: Noise, progress: Progress) -> NDArray[np.float32]:
        """Video (B, 3, T, Y, X) of latents (B, C, F, H, W), both on the host; `progress(B)` after each call."""
        ...


@dataclass(frozen=True)
class OnePass:
    """The VAE's own decoder, a function of the latents alone.

    Where the VAE sees one frame at a time, `export.decode_frames` in a pass; in tiles where `vae.tiling` says so.
    """

    spec: Spec
    stage: Stage

    @property
    def calls(self) -> int:
        """See `Decoder.calls`."""
        frames, tiles = latent_frames(self.spec, self.spec.clip.frames), cut_of(self.spec)
        return -(-frames // frames_per_decode(self.spec, frames)) * (1 if tiles is None else tiles.tiles)

    def decode(self, latents: NDArray[np.float32], noise: Noise, progress: Progress) -> NDArray[np.float32]:
        """See `Decoder.decode`."""
        tiles, space, frames = cut_of(self.spec), self.spec.vae.compression.space, latents.shape[2]
        step = frames_per_decode(self.spec, frames)

        def run(tile: NDArray[np.float32]) -> NDArray[np.float32]:
            found = self.stage.run({"latents": tile})["video"]
            progress(len(tile))
            return found

        def piece(start: int) -> NDArray[np.float32]:
            part = latents[:, :, start : start + step]
            return run(part) if tiles is None else in_tiles(run, part, tiles, (1, space))

        video = first = piece(0)
        if step < frames:
            video = np.empty((*first.shape[:2], frames, *first.shape[3:]), first.dtype)
            video[:, :, :step] = first
            for start in range(step, frames, step):
                video[:, :, start : start + step] = piece(start)
        return video


def decoder_of(spec: Spec, stage: Stage) -> Decoder:
    """How the part that decodes is run."""
    match spec.vae.decoder.kind if is_trainable(spec.vae) else "kl":
        case "kl":
            return OnePass(spec, stage)
        case "consistency":  # a spec with one is refused where it is read: E402
            raise UserError(f"{spec.name}: vae.decoder samples, and cannot be run yet", "set vae.decoder.kind to kl")
