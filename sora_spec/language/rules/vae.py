"""The VAE in itself: compression against levels, groups against channels, and what it is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sora_spec.language.facts import is_trainable, vae_facts
from sora_spec.language.rules.grid import fits_vae, frame_rule
from sora_spec.language.rules.problem import At, Problem, counted, divisors, multiples_around
from sora_spec.language.shapes import latent_frames, pixel_frames

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec
    from sora_spec.language.schema.vae import Causal3dVae, IdentityVae, ImageKlVae

MAX_CHANNELS = 65_536
"""Channels of one level of a VAE."""


def compression_fits_levels(spec: Spec) -> Iterator[Problem]:
    """E309."""
    vae = spec.vae
    if vae.kind == "identity":
        yield from _identity(vae)
    elif vae_facts(vae).per_frame and vae.compression.time != 1:
        yield Problem(
            "E309",
            f"`kind: {vae.kind}` works frame by frame, but its time compression is {vae.compression.time}",
            At("vae.compression.time", "must be 1"),
            help="Set `time: 1`, or use `kind: causal3d`, which compresses time.",
        )
    if vae.kind == "image_kl":
        yield from _levels(vae)
    elif vae.kind == "causal3d":
        yield from _levels(vae)
        if vae.compression.time > vae.compression.space:
            time, space = vae.compression.time, vae.compression.space
            yield Problem(
                "E309",
                f"the time compression {time} is above the space compression {space}: too few levels for it",
                At("vae.compression.time", f"at most {space}"),
                (At("vae.compression.space", f"compression {space}"),),
                f"Set `time: {space}` or less: every level that halves time also halves rows and columns.",
            )


def _identity(vae: IdentityVae) -> Iterator[Problem]:
    time, space = vae.compression.time, vae.compression.space
    if (time, space) != (1, 1):
        yield Problem(
            "E309",
            f"the identity VAE compresses nothing, but the spec says time {time} and space {space}",
            At("vae.compression", "must be 1 and 1"),
            help="Remove `compression`, or choose another VAE.",
        )


def _levels(vae: ImageKlVae | Causal3dVae) -> Iterator[Problem]:
    levels, space = len(vae.multipliers), vae.compression.space
    if 2 ** (levels - 1) != space:
        wanted, verb = space.bit_length(), "compresses" if levels == 1 else "compress"
        yield Problem(
            "E309",
            f"{counted(levels, 'level')} {verb} space by {2 ** (levels - 1)}, but the spec says {space}",
            At("vae.compression.space", f"{space} takes {counted(wanted, 'level')}"),
            (At("vae.multipliers", counted(levels, "level")),),
            f"Give {counted(wanted, 'multiplier')}, or set `compression.space: {2 ** (levels - 1)}`.",
        )


def groups_divide_channels(spec: Spec) -> Iterator[Problem]:
    """E310. Every GroupNorm of the image VAE has the same number of groups."""
    if spec.vae.kind != "image_kl":
        return
    channels = [spec.vae.width * multiplier for multiplier in spec.vae.multipliers]
    groups = spec.vae.groups
    bad = [count for count in channels if count % groups]
    if bad:
        common = [n for n in divisors(channels[0]) if n <= groups and all(count % n == 0 for count in channels)]
        yield Problem(
            "E310",
            f"{groups} groups do not divide a level of {bad[0]} channels",
            At("vae.groups", f"{groups} groups"),
            (At("vae.width", f"levels of {', '.join(map(str, channels))} channels"),),
            f"Use `groups: {common[-1]}`, or a width that is a multiple of {groups}.",
        )


def levels_are_bounded(spec: Spec) -> Iterator[Problem]:
    """E327, the part about the VAE."""
    if spec.vae.kind != "image_kl" and spec.vae.kind != "causal3d":  # those that have levels
        return
    widest = spec.vae.width * max(spec.vae.multipliers)
    if widest > MAX_CHANNELS:
        yield Problem(
            "E327",
            f"the VAE's widest level has {widest:,} channels, above the limit of {MAX_CHANNELS:,}",
            At("vae.multipliers", f"{max(spec.vae.multipliers)} × {spec.vae.width}"),
            (At("vae.width", f"width {spec.vae.width}"),),
            "Multipliers count in units of `width`: the SD-VAE has width 128 and multipliers 1, 2, 4, 4.",
        )


def training_crop_fits(spec: Spec) -> Iterator[Problem]:
    """E311."""
    if not is_trainable(spec.vae):
        return
    frames, crop, space = spec.vae.training.frames, spec.vae.training.crop, spec.vae.compression.space
    if frames is not None and not fits_vae(spec, frames):
        below = max(1, latent_frames(spec, frames))
        near = sorted({pixel_frames(spec, below), pixel_frames(spec, below + 1)})
        yield Problem(
            "E311",
            f"training crops of {counted(frames, 'frame')} do not fit the VAE, which takes {frame_rule(spec)}",
            At("vae.training.frames", counted(frames, "frame")),
            (At("vae.compression.time", f"time compression {spec.vae.compression.time}"),),
            f"Use {' or '.join(map(str, near))} frames.",
        )
    if crop is not None and crop % space:
        yield Problem(
            "E311",
            f"training crops of {crop} pixels are no multiple of the VAE's compression {space}",
            At("vae.training.crop", f"{crop} pixels"),
            (At("vae.compression.space", f"compression {space}"),),
            f"Use a crop of {multiples_around(crop, space)}.",
        )


def tiles_fit(spec: Spec) -> Iterator[Problem]:
    """E329."""
    if not is_trainable(spec.vae):
        return
    tiling, space = spec.vae.tiling, spec.vae.compression.space
    if tiling.kind == "none":
        return
    for name, pixels in (("tile", tiling.tile), ("overlap", tiling.overlap)):
        if pixels % space:
            yield Problem(
                "E329",
                f"{'tiles' if name == 'tile' else 'overlaps'} of {pixels} pixels are no multiple of the VAE's "
                f"compression {space}",
                At(f"vae.tiling.{name}", f"{pixels} pixels"),
                (At("vae.compression.space", f"compression {space}"),),
                f"Use {multiples_around(pixels, space)}.",
            )
    if tiling.overlap >= tiling.tile:
        quarter = tiling.tile // 4 // space * space
        yield Problem(
            "E329",
            f"tiles of {tiling.tile} pixels cannot overlap by {tiling.overlap}: the next tile would not advance",
            At("vae.tiling.overlap", f"{tiling.overlap} pixels"),
            (At("vae.tiling.tile", f"{tiling.tile} pixels"),),
            f"Use an overlap below the tile, such as a quarter of it: {quarter}.",
        )


RULES = (compression_fits_levels, groups_divide_channels, levels_are_bounded, training_crop_fits, tiles_fit)
