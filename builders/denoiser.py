"""`backbone`, `temporal`, `patch` and `condition` sections → denoising network."""

from __future__ import annotations

from sora_spec.builders.backbones.interface import Denoiser
from sora_spec.builders.backbones.temporal import TEMPORAL
from sora_spec.builders.backbones.transformer import Layout, TransformerDenoiser
from sora_spec.language.abilities import refuse_unbuilt
from sora_spec.language.schema.backbone import Transformer
from sora_spec.language.schema.condition import NoCondition
from sora_spec.language.schema.spec import Spec
from sora_spec.language.shapes import derive_shapes

__all__ = ["Denoiser", "build_denoiser"]


def build_denoiser(spec: Spec) -> Denoiser:
    """The network of a spec with DiT's initialisation, in fp32; runs under `torch.device("meta")` too.

    Raises UserError for a backbone or temporal layer that can be described but not built.
    """
    refuse_unbuilt(spec, "network")
    backbone = spec.backbone
    assert isinstance(backbone, Transformer), "others are refused"
    shapes = derive_shapes(spec)
    pattern = TEMPORAL[spec.temporal.kind](spec.temporal, shapes.grid)
    condition = None if isinstance(spec.condition, NoCondition) else spec.condition
    return TransformerDenoiser(backbone, Layout(shapes, spec.patch, pattern, condition, spec.temporal))
