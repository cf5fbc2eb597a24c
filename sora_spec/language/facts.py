"""What each kind can do: asked wherever it matters, in place of which kind it is. Imports neither torch nor pydantic.

Each table is one exhaustive match: a kind that is added to the language and forgotten here is a type error, and a
refusal that names it when it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Literal, assert_never

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from sora_spec.language.schema.backbone import Temporal
    from sora_spec.language.schema.objective import Objective, Sampler
    from sora_spec.language.schema.vae import LearnedVae, StreamingVae, TrainableVae, Vae


Grid = tuple[int, int, int]
"""Frames, rows and columns of tokens."""


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


Entry = Literal["never", "tokens", "first_across_frames", "first_attention"]
"""Where the table of positions over frames enters: nowhere; all tokens before the first block; all tokens before the
first block that attends across frames (Latte); what the first attention across frames reads (Open-Sora's STDiT)."""


@dataclass(frozen=True)
class TemporalFacts:
    """How the blocks of a network see time."""

    moves: bool = True
    """Any block sees several frames."""
    across_frames: bool = False
    """There is attention across frames alone, which may have a kernel of its own."""
    frames_enter: Entry = "tokens"
    """Where a block learns which frame a token is of."""
    multiples: Grid = (1, 1, 1)
    """What must divide the token grid. Kinds that ask for more than 1 have `window`."""


def temporal_facts(temporal: Temporal) -> TemporalFacts:
    """How the blocks of a kind see time."""
    match temporal.kind:
        case "none":
            return TemporalFacts(moves=False, frames_enter="never")
        case "joint":
            return TemporalFacts()
        case "alternating" | "inserted":
            return TemporalFacts(across_frames=True, frames_enter="first_across_frames")
        case "factorized":
            everywhere = temporal.frame_positions == "tokens"
            return TemporalFacts(across_frames=True, frames_enter="tokens" if everywhere else "first_attention")
        case "windowed":
            return TemporalFacts(multiples=temporal.window)
        case kind:
            assert_never(kind)


def attended(temporal: Temporal, grid: Grid) -> tuple[tuple[int, ...], ...]:
    """How many tokens of a grid one query attends to: of each block until they repeat, in each of its attentions."""
    frames, rows, columns = grid
    places = rows * columns
    match temporal.kind:
        case "none":
            return ((places,),)
        case "joint":
            return ((frames * places,),)
        case "alternating" | "inserted":
            return (places,), (frames,)
        case "factorized":
            return ((places, frames),)
        case "windowed":
            return (places,), (prod(temporal.window),)
        case kind:
            assert_never(kind)


def period(temporal: Temporal) -> int:
    """Blocks after which their attention repeats."""
    return len(attended(temporal, (1, 1, 1)))


@dataclass(frozen=True)
class SamplerFacts:
    """What a sampler draws from, and how."""

    objective: Literal["ddpm", "interpolant"]
    """Kind of the objective whose networks it samples."""
    stages: int = 1
    """Calls of the network in one step."""
    stochastic: bool = False
    """It adds fresh noise in a step, or can be told to."""
    adaptive: bool = False
    """It finds out while it samples how many steps it takes, and has no `steps`."""


SAMPLERS = {
    "ddpm": SamplerFacts("ddpm", stochastic=True),
    "ddim": SamplerFacts("ddpm", stochastic=True),
    "dopri5": SamplerFacts("interpolant", stages=6, adaptive=True),
    "heun": SamplerFacts("interpolant", stages=2),
    "euler": SamplerFacts("interpolant"),
    "euler_maruyama": SamplerFacts("interpolant", stochastic=True),
}
"""By kind of `sampler`, those of an objective in the order in which they are offered."""


def sampler_facts(sampler: Sampler) -> SamplerFacts:
    """What the kind of a sampler does."""
    found = SAMPLERS.get(sampler.kind)
    assert found is not None, f"sampler.kind {sampler.kind!r} has no facts"
    return found


def steps_of(sampler: Sampler) -> int | None:
    """Steps that it is told to take; None for an adaptive one."""
    told: Any = sampler
    return None if sampler_facts(sampler).adaptive else told.steps


def samplers_of(objective: Objective) -> list[str]:
    """Kinds of samplers that draw from an objective."""
    return [kind for kind, facts in SAMPLERS.items() if facts.objective == objective.kind]
