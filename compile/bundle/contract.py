"""What the exported graphs take and give, derived from the spec alone. Torch-free.

`B` batch, `C` channels, `F` latent frames, `H W` latent height and width; videos are (B, 3, T, Y, X) in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from sora_spec.compile.bundle.manifest import Port, Profile, Range
from sora_spec.language.facts import vae_facts
from sora_spec.language.schema.condition import ClassCondition, NoCondition, TextCondition
from sora_spec.language.schema.spec import Spec
from sora_spec.language.shapes import derive_shapes, frame_unit, latent_frames
from sora_spec.language.tiles import cut_of
from sora_spec.recipe.parts import GraphName
from sora_spec.recipe.sampling import frames_per_decode, longest_clip

BATCH, FRAMES, PIXEL_FRAMES = "batch", "frames", "pixel_frames"


@dataclass(frozen=True)
class Contract:
    """Inputs and outputs of one graph, and the sizes that its named axes take."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    axes: dict[str, Range]

    def shapes(self, **extents: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs at the given extents of the named axes."""
        return {port.name: concrete(port.shape, extents) for port in self.inputs}


def concrete(shape: Iterable[int | str], extents: dict[str, int]) -> tuple[int, ...]:
    """`shape` with its named axes filled in."""
    return tuple(extents[extent] if isinstance(extent, str) else extent for extent in shape)


def condition_ports(spec: Spec) -> tuple[Port, ...]:
    """The denoiser's condition: none, `label` (B,) with the null label as last row, or `context`: (B, width), or
    (B, tokens, width) with, where padding is passed over, `mask` (B, tokens)."""
    match spec.condition:
        case NoCondition():
            return ()
        case ClassCondition():
            return (Port(name="label", dtype="int64", shape=(BATCH,)),)
        case TextCondition(pooled=True, width=width):
            return (Port(name="context", dtype="float32", shape=(BATCH, width)),)
        case TextCondition(tokens=tokens, width=width, masked=masked):
            context = Port(name="context", dtype="float32", shape=(BATCH, tokens, width))
            return (context, Port(name="mask", dtype="int64", shape=(BATCH, tokens))) if masked else (context,)
        case unknown:
            assert_never(unknown)


def frames_range(spec: Spec, unit: int) -> Range:
    """Latent frames that the graphs of `spec` take, in multiples of `unit`."""
    longest = spec.patch.time * longest_clip(spec.patch.time, derive_shapes(spec).grid[0])
    return Range(min=unit, max=longest // unit * unit, multiple_of=unit)


def denoiser_contract(spec: Spec) -> Contract:
    """(latents (B, C, F, H, W), time (B,), condition) → prediction (B, Cout, F, H, W)."""
    shapes = derive_shapes(spec)
    grid = (FRAMES, shapes.latent_height, shapes.latent_width)
    latents = Port(name="latents", dtype="float32", shape=(BATCH, shapes.channels, *grid))
    time = Port(name="time", dtype="float32", shape=(BATCH,))
    prediction = Port(name="prediction", dtype="float32", shape=(BATCH, shapes.out_channels, *grid))
    axes = {BATCH: Range(min=1), FRAMES: frames_range(spec, frame_unit(spec))}
    return Contract((latents, time, *condition_ports(spec)), (prediction,), axes)


def decoder_contract(spec: Spec) -> Contract:
    """latents (B, C, F, H, W) → video (B, 3, T, Y, X), T following from F by the VAE's frame rule.

    Of a tiled VAE H W Y X are those of one tile.
    """
    shapes, space = derive_shapes(spec), spec.vae.compression.space
    tiles = cut_of(spec)
    rows, columns = (
        (shapes.latent_height, shapes.latent_width) if tiles is None else (tiles.tile_height, tiles.tile_width)
    )
    latent_shape = (BATCH, shapes.channels, FRAMES, rows, columns)
    latents = Port(name="latents", dtype="float32", shape=latent_shape)
    # Without temporal compression a clip has as many frames as its latents, and the two axes are one.
    length = FRAMES if spec.vae.compression.time == 1 else PIXEL_FRAMES
    video = Port(name="video", dtype="float32", shape=(BATCH, 3, length, rows * space, columns * space))
    return Contract((latents,), (video,), {BATCH: Range(min=1), FRAMES: frames_range(spec, spec.patch.time)})


def text_contract(spec: Spec) -> Contract:
    """ids and mask (B, M), one prompt a row, 1 where it has a token → features (B, M, W), or its vector (B, W)."""
    condition = spec.condition
    assert isinstance(condition, TextCondition)
    ids, mask = (Port(name=name, dtype="int64", shape=(BATCH, condition.tokens)) for name in ("ids", "mask"))
    tokens = () if condition.pooled else (condition.tokens,)
    features = Port(name="features", dtype="float32", shape=(BATCH, *tokens, condition.width))
    return Contract((ids, mask), (features,), {BATCH: Range(min=1)})


def contract_of(spec: Spec, name: GraphName) -> Contract:
    """The contract of one part of `spec`."""
    match name:
        case "text_encoder":
            return text_contract(spec)
        case "denoiser":
            return denoiser_contract(spec)
        case "vae_decoder":
            return decoder_contract(spec)
        case unknown:
            assert_never(unknown)


def engine_profile(spec: Spec, name: GraphName) -> Profile:
    """Shapes that an engine is built for: `export.batch` and `export.frames` of the spec.

    Guidance runs the denoiser on conditional and unconditional samples at once, so its largest batch is doubled where
    there is a condition to guide by. Engines are tuned for the largest batch and the clip's own length; those of a
    decoder that gets a clip in pieces, for such a piece, and they take the rest of a clip, however short.
    """
    shortest, longest = spec.export.batch
    doubled = 2 if name == "denoiser" and not isinstance(spec.condition, NoCondition) else 1
    own = spec.clip.frames
    low, high = (latent_frames(spec, frames) for frames in spec.export.frames or (own, own))
    middle = min(max(latent_frames(spec, own), low), high)
    if name == "vae_decoder" and vae_facts(spec.vae).per_frame:
        low, middle, high = spec.patch.time, frames_per_decode(spec, middle), frames_per_decode(spec, high)
    contract = contract_of(spec, name)
    return Profile(
        min=contract.shapes(batch=shortest, frames=low),
        opt=contract.shapes(batch=longest * doubled, frames=middle),
        max=contract.shapes(batch=longest * doubled, frames=high),
    )
