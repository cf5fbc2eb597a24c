"""`backbone`, `temporal`, `patch` and `condition` sections → denoising network."""

from __future__ import annotations

from sora_spec.builders.backbones.interface import Denoiser
from sora_spec.builders.backbones.temporal import TEMPORAL
from sora_spec.builders.backbones.transformer import Layout, TransformerDenoiser
from sora_spec.errors import UserError
from sora_spec.language.schema.backbone import AdaLnLora, CrossAttention, Learned, Transformer
from sora_spec.language.schema.condition import ClassCondition, NoCondition, TextCondition
from sora_spec.language.schema.spec import Spec
from sora_spec.language.shapes import derive_shapes

__all__ = ["Denoiser", "build_denoiser"]


def build_denoiser(spec: Spec) -> Denoiser:
    """The network of a spec with DiT's initialisation, in fp32; runs under `torch.device("meta")` too.

    Raises UserError for a backbone, temporal layer or condition that can be described but not built.
    """
    backbone = spec.backbone
    if not isinstance(backbone, Transformer):
        raise _unbuildable(spec, "backbone.kind", backbone.kind, "transformer")
    if isinstance(backbone.conditioning, AdaLnLora):
        known = "adaln_zero, adaln_single, cross_attention"
        raise _unbuildable(spec, "backbone.conditioning.kind", backbone.conditioning.kind, known)
    if isinstance(backbone.position, Learned):
        raise _unbuildable(spec, "backbone.position.kind", backbone.position.kind, "sincos, rope, none")
    attends = isinstance(backbone.conditioning, CrossAttention)
    if spec.temporal.kind not in TEMPORAL:
        raise _unbuildable(spec, "temporal.kind", spec.temporal.kind, ", ".join(TEMPORAL))
    shapes, condition = derive_shapes(spec), _condition(spec, attends)
    pattern = TEMPORAL[spec.temporal.kind](spec.temporal, shapes.grid)
    layout = Layout(shapes, spec.patch, pattern, condition, spec.temporal)
    return TransformerDenoiser(backbone, layout)


def _condition(spec: Spec, attends: bool) -> ClassCondition | TextCondition | None:
    match spec.condition:
        case NoCondition():
            return None
        case TextCondition() if not spec.condition.pooled and not attends:
            raise _unbuildable(spec, "condition.pooled", False, "true: the prompt's one pooled vector")
        case condition:
            return condition


def _unbuildable(spec: Spec, path: str, value: object, known: str) -> UserError:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return UserError(
        f"{spec.name}: {path} {text} can be validated and planned, but not built",
        hint=f"what can be built for {path}: {known}",
    )
