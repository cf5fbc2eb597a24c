"""What each kind can do: asked wherever it matters, in place of which kind it is. Imports neither torch nor pydantic.

Each table is one exhaustive match: a kind that is added to the language and forgotten here is a type error, and a
refusal that names it when it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, assert_never

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from sora_spec.language.schema.backbone import Temporal
    from sora_spec.language.schema.vae import LearnedVae, StreamingVae, TrainableVae, Vae


Axis = Literal["space", "time", "joint", "factorized"]
"""What a block attends along: the places of a frame, the frames of a place, all tokens, or the first two in turn."""


@dataclass(frozen=True)
class VaeFacts:
    """What a VAE is and can do."""

    learned: bool = True
    """It has weights, so that its latents are not the pixels."""
    trains: bool = False
    """`train --stage vae` trains it, and it has `training`, `decoder` and `tiling`."""
    per_frame: bool = False
    """It sees every frame by itself, so that time is not compressed and a clip can be decoded in pieces."""
    causal: bool = False
    """The first frame is kept apart: 1 + k·time frames become 1 + k. For others k·time frames become k."""
    streams: bool = False
    """It can run one latent frame at a time, and has `streaming`."""
    measured: bool = False
    """The spread of its latents is measured at the end of its training; that of others is in the spec."""


def vae_facts(vae: Vae) -> VaeFacts:
    """What the kind of a VAE can do."""
    match vae.kind:
        case "identity":
            return _IDENTITY
        case "image_kl":
            return _IMAGE_KL
        case "causal3d":
            return _CAUSAL3D
        case "cascade":
            return _CASCADE
        case kind:
            assert_never(kind)


_IDENTITY, _CASCADE = VaeFacts(learned=False, per_frame=True), VaeFacts()
_IMAGE_KL = VaeFacts(trains=True, per_frame=True)
_CAUSAL3D = VaeFacts(trains=True, causal=True, streams=True, measured=True)


def is_learned(vae: Vae) -> TypeIs[LearnedVae]:
    """Whether it has weights, so that its latents are not the pixels."""
    return vae_facts(vae).learned


def can_stream(vae: Vae) -> TypeIs[StreamingVae]:
    """Whether it can run one latent frame at a time, and has `streaming`."""
    return vae_facts(vae).streams


def is_trainable(vae: Vae) -> TypeIs[TrainableVae]:
    """Whether `train --stage vae` trains it, and it has the sections that this takes."""
    return vae_facts(vae).trains


def pattern(temporal: Temporal) -> tuple[Axis, ...]:
    """Axes of one block after another, which repeat over the depth; of windows, the axis within one."""
    match temporal.kind:
        case "none":
            return ("space",)
        case "joint":
            return ("joint",)
        case "alternating" | "inserted":
            return ("space", "time")
        case "factorized":
            return ("factorized",)
        case "windowed":
            return ("space", "joint")
        case kind:
            assert_never(kind)


def block_axes(temporal: Temporal, depth: int) -> tuple[Axis, ...]:
    """Axis of each block's attention."""
    axes = pattern(temporal)
    return tuple(axes[index % len(axes)] for index in range(depth))


def moves(temporal: Temporal) -> bool:
    """Whether any block sees several frames."""
    return pattern(temporal) != ("space",)


def attends_across_frames(temporal: Temporal) -> bool:
    """Whether there is attention across frames alone."""
    return not {"time", "factorized"}.isdisjoint(pattern(temporal))
