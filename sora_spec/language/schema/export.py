"""`export`: what `sora-spec export` makes of a trained model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sora_spec.language.schema.section import Frames, Section, Small

Backend = Literal["onnx", "tensorrt"]


class Export(Section):
    """Precision, backends and the range of shapes that the exported model must take."""

    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision of the exported weights and activations."""
    backends: Annotated[tuple[Backend, ...], Field(strict=False, min_length=1)] = ("onnx",)
    """What is written into the bundle."""
    batch: Annotated[tuple[Small, Small], Field(strict=False)] = (1, 8)
    """Smallest and largest batch of an engine. Guidance doubles the batch of a generation."""
    frames: Annotated[tuple[Frames, Frames], Field(strict=False)] | None = None
    """Shortest and longest clip of an engine, in pixel frames; the clip's own length when left out."""
    decode_frames: Frames = 16
    """Frames that `generate` decodes in one pass where the VAE sees each frame on its own (`image_kl`)."""
    offload: bool = False
    """Whether `generate` keeps only the part that is running on the device; `--offload` does so too."""
