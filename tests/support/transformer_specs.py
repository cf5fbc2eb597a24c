"""Specs of transformers for the tests of this folder."""

from __future__ import annotations

from typing import Any

from sora_spec.language.schema.spec import Spec

CLASSES = {"kind": "class", "classes": 1000, "dropout": 0.1}
OFFICIAL_SIZES = {"B/2": (12, 768, 12), "XL/2": (28, 1152, 16)}


def transformer_spec(
    *,
    depth: int = 4,
    width: int = 48,
    heads: int = 4,
    frames: int = 1,
    height: int = 64,
    columns: int = 64,
    channels: int = 4,
    patch: tuple[int, int] = (1, 2),
    temporal: str | dict[str, Any] = "none",
    condition: dict[str, Any] | None = None,
    objective: dict[str, Any] | None = None,
    **backbone: Any,
) -> Spec:
    """`height` and `columns` are pixels of the SD-VAE: eight to a latent. Unconditional unless `condition` is given."""
    return Spec.model_validate(
        {
            "version": 1,
            "name": "under-test",
            "clip": {"frames": frames, "height": height, "width": columns},
            "vae": {"kind": "image_kl", "channels": channels},
            "patch": {"time": patch[0], "space": patch[1]},
            "backbone": {"kind": "transformer", "depth": depth, "width": width, "heads": heads, **backbone},
            "temporal": {"kind": temporal} if isinstance(temporal, str) else temporal,
            "condition": condition or {"kind": "none"},
            "objective": objective or {"kind": "ddpm"},
            "sampler": {"kind": "heun"} if objective else {"kind": "ddpm"},
        }
    )


def official_spec(size: str, **changes: Any) -> Spec:
    """DiT of a published size at 256²; SiT and Latte by `changes`."""
    depth, width, heads = OFFICIAL_SIZES[size]
    sides = {"height": 256, "columns": 256}
    return transformer_spec(depth=depth, width=width, heads=heads, **(sides | changes))
