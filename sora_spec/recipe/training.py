"""How a training proceeds, as the spec alone says: the program that runs it and the plan of it read the same rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sora_spec.language.facts import is_trainable

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec
    from sora_spec.language.schema.training import Recompute

SHOWN_SAMPLES = 8
"""Clips of a sample grid: generated while the denoiser is trained."""
FEATURE_BYTES = 64 * 2**20
"""Features of captions that stay on the device, so that a caption which comes again is not encoded again."""
SHOWN_RECONSTRUCTIONS = 4
"""Whole clips of a reconstruction grid: encoded and decoded while the VAE is trained."""


class Crop(NamedTuple):
    """What the VAE is trained on."""

    frames: int
    height: int
    width: int


def vae_crop(spec: Spec) -> Crop:
    """The clip, or what of it `vae.training.frames` and `vae.training.crop` say. Only for a VAE that is trained."""
    vae, clip = spec.vae, spec.clip
    assert is_trainable(vae)
    frames, side = vae.training.frames or clip.frames, vae.training.crop
    return Crop(frames, side or clip.height, side or clip.width)


def recompute_every(recompute: Recompute) -> int:
    """Every how manyth block keeps only its inputs; 0 for none."""
    return recompute.every if recompute.kind == "blocks" else 0


def recomputed_blocks(every: int, count: int) -> range:
    """Which of `count` blocks keep only their inputs and run again in the backward pass."""
    return range(0, count if every else 0, every or 1)


def uses_fsdp(spec: Spec, precision: str, ranks: int) -> bool:
    """Whether modules are handed to FSDP2: on several ranks, and on one for bf16 and for offload."""
    return ranks > 1 or precision == "bf16" or spec.parallel.offload
