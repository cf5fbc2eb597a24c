"""The parts that a system is made of, by name and role: planner, bundle and pipeline read this one list.

`docs/architecture.md` says how one adds a part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

GraphName = Literal["text_encoder", "denoiser", "vae_decoder"]
"""Parts that generating runs, each a graph of its own."""
PartName = Literal["vae_encoder", GraphName]
Role = Literal["encode text", "encode", "denoise", "decode"]
"""What a part does. Several may share a role, and then run in the order of the list."""

ROLES: dict[PartName, Role] = {
    "denoiser": "denoise",
    "vae_encoder": "encode",
    "vae_decoder": "decode",
    "text_encoder": "encode text",
}
"""In the order in which a plan lists them."""


@dataclass(frozen=True)
class GraphPart:
    """One part that generating runs."""

    name: GraphName
    section: Literal["backbone", "vae"]
    """Section of the spec whose `weights` may name its file."""

    @property
    def role(self) -> Role:
        """What it does."""
        return ROLES[self.name]


def graph_parts(spec: Spec) -> tuple[GraphPart, ...]:
    """What generating from `spec` runs, in the order in which it runs."""
    return GraphPart("denoiser", "backbone"), GraphPart("vae_decoder", "vae")


def unnamed_weights(spec: Spec) -> tuple[GraphPart, ...]:
    """Those parts with weights of which the spec names no file."""
    return tuple(
        part for part in graph_parts(spec) if getattr(getattr(spec, part.section), "weights", "has none") is None
    )
