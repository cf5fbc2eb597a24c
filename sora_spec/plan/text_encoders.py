"""Text encoders by name: they are not built here, so their sizes are published figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sora_spec.schema.spec import Spec


@dataclass(frozen=True)
class TextEncoder:
    """What a frozen text encoder costs."""

    parameters: int
    working: int
    """Parameters that every token passes: without the table of embeddings."""
    width: int
    tokens: int

    @property
    def forward_flops(self) -> int:
        """One prompt: 2 per parameter and token; attention among so few tokens is left out (under 2 %)."""
        return 2 * self.working * self.tokens


# Counted from the released configurations: parameters, of which in the embedding table, width.
_KNOWN = {
    "clip-vit-base-patch32": (63_165_952, 25_336_320, 512),
    "clip-vit-large-patch14": (123_060_480, 38_004_480, 768),
    "t5-v1_1-xxl": (4_762_310_656, 131_596_288, 4096),
    "umt5-xxl": (5_680_910_336, 1_050_148_864, 4096),
}


def find_encoder(spec: Spec) -> TextEncoder | None:
    """The encoder of a text condition; None without one, and for an encoder that is not known here."""
    condition = spec.condition
    if condition.kind != "text":
        return None
    name = condition.encoder.rstrip("/").rpartition("/")[2].lower()
    for known, (parameters, table, width) in _KNOWN.items():
        if name == known:
            return TextEncoder(parameters, parameters - table, width, condition.tokens)
    return None
