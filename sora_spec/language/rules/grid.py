"""The clip against VAE, patch, window and sequence parallelism: everything that shapes the token grid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sora_spec.language.facts import is_learned, temporal_facts, vae_facts
from sora_spec.language.rules.problem import At, Problem, counted, divisors, multiples_around
from sora_spec.language.shapes import derive_shapes, frame_unit, latent_frames, pixel_frames

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

MAX_TOKENS = 100_000_000
"""Tokens of one clip. A minute of 1080p at the usual compression has about 12 million."""


def fits_vae(spec: Spec, frames: int) -> bool:
    """Whether the VAE can encode this many frames without a rest."""
    time = spec.vae.compression.time
    return (frames - 1) % time == 0 if vae_facts(spec.vae).causal else frames % time == 0


def frame_rule(spec: Spec) -> str:
    """The VAE's rule in words."""
    time = spec.vae.compression.time
    return f"1 + k·{time} frames" if vae_facts(spec.vae).causal else f"a multiple of {time} frames"


def frames_around(spec: Spec, frames: int) -> str:
    """The nearest numbers of frames that VAE, patch and window all take, as words of a help line."""
    time, unit = spec.vae.compression.time, frame_unit(spec)
    latent = frames / time if not vae_facts(spec.vae).causal else 1 + (frames - 1) / time
    below = int(latent // unit) * unit
    near = [pixel_frames(spec, count) for count in (below, below + unit) if count > 0]
    return " or ".join(str(count) for count in near if count != frames)


def frames_fit_vae(spec: Spec) -> Iterator[Problem]:
    """E301."""
    frames, time = spec.clip.frames, spec.vae.compression.time
    if fits_vae(spec, frames) or (vae_facts(spec.vae).per_frame and time != 1):  # the latter is E309
        return
    yield Problem(
        "E301",
        f"a clip of {counted(frames, 'frame')} does not fit the VAE, which takes {frame_rule(spec)}",
        At("clip.frames", counted(frames, "frame")),
        (At("vae.compression.time", f"{time} frames become one latent frame"),),
        f"Use {frames_around(spec, frames)} frames.",
    )


def sides_fit_patches(spec: Spec) -> Iterator[Problem]:
    """E302."""
    space, patch = spec.vae.compression.space, spec.patch.space
    step = space * patch
    if not is_learned(spec.vae) and space != 1:  # E309
        return
    for side in ("height", "width"):
        pixels: int = getattr(spec.clip, side)
        if pixels % step:
            yield Problem(
                "E302",
                f"the {side} of {pixels} pixels is no multiple of {step}, the compression {space} × the patch {patch}",
                At(f"clip.{side}", f"{pixels} = {pixels // step}·{step} + {pixels % step}"),
                (At("vae.compression.space", f"compression {space}"), At("patch.space", f"patch {patch}")),
                f"Use a {side} of {multiples_around(pixels, step)}.",
            )


def latent_frames_fit_patches(spec: Spec) -> Iterator[Problem]:
    """E303."""
    frames, patch = spec.clip.frames, spec.patch.time
    if not fits_vae(spec, frames):
        return
    latent = latent_frames(spec, frames)
    if latent % patch:
        yield Problem(
            "E303",
            f"{frames} frames become {latent} latent frames, which is no multiple of the patch's {patch}",
            At("patch.time", f"{patch} latent frames per token"),
            (At("clip.frames", f"{latent} latent frames"),),
            f"Use {frames_around(spec, frames)} frames, or `patch.time: 1`.",
        )


def is_exact(spec: Spec) -> bool:
    """Whether VAE and patch divide the clip, so that its token grid can be spoken of."""
    step = spec.vae.compression.space * spec.patch.space
    frames = spec.clip.frames
    whole = fits_vae(spec, frames) and latent_frames(spec, frames) % spec.patch.time == 0
    return whole and spec.clip.height % step == 0 and spec.clip.width % step == 0


def window_divides_grid(spec: Spec) -> Iterator[Problem]:
    """E307."""
    window = temporal_facts(spec.temporal).multiples
    if max(window) == 1 or not is_exact(spec):
        return
    grid = derive_shapes(spec).grid
    bad = [index for index in range(3) if grid[index] % window[index]]
    if bad:
        axes = ("frames", "rows", "columns")
        parts = [f"{window[i]} does not divide {grid[i]} {axes[i]}" for i in bad]
        fits = [min(divisors(grid[i]), key=lambda n, i=i: abs(n - window[i])) for i in range(3)]
        yield Problem(
            "E307",
            f"the window does not divide the token grid: {', '.join(parts)}",
            At("temporal.window", f"the grid is {grid[0]} × {grid[1]} × {grid[2]}"),
            help=f"Use `window: {fits}`, or change the clip.",
        )


def sequence_divides(spec: Spec) -> Iterator[Problem]:
    """E308."""
    ranks = spec.parallel.sequence
    if spec.backbone.kind == "transformer" and spec.backbone.heads % ranks:
        heads = spec.backbone.heads
        yield Problem(
            "E308",
            f"{ranks} sequence-parallel ranks do not divide {heads} heads",
            At("parallel.sequence", f"{ranks} ranks"),
            (At("backbone.heads", f"{heads} heads"),),
            f"Use a divisor of {heads}.",
        )
    if is_exact(spec) and derive_shapes(spec).tokens % ranks:
        tokens = derive_shapes(spec).tokens
        yield Problem(
            "E308",
            f"{ranks} sequence-parallel ranks do not divide the {tokens} tokens of a clip",
            At("parallel.sequence", f"{ranks} ranks"),
            help=f"Use a divisor of {tokens}; `sora-spec show` prints the token grid.",
        )


def tokens_are_bounded(spec: Spec) -> Iterator[Problem]:
    """E327, the part about tokens."""
    frames = spec.clip.frames
    space = spec.vae.compression.space * spec.patch.space
    time = spec.vae.compression.time * spec.patch.time
    grid = (max(1, frames // time), spec.clip.height // space, spec.clip.width // space)
    tokens = grid[0] * grid[1] * grid[2]
    if tokens > MAX_TOKENS:
        yield Problem(
            "E327",
            f"a clip has {tokens:,} tokens, more than the {MAX_TOKENS:,} that anything can hold",
            At("clip", f"{grid[0]} × {grid[1]} × {grid[2]} tokens"),
            help="Use fewer frames, a smaller picture, a stronger compression or a larger patch.",
        )


RULES = (
    frames_fit_vae,
    sides_fit_patches,
    latent_frames_fit_patches,
    window_divides_grid,
    sequence_divides,
    tokens_are_bounded,
)
