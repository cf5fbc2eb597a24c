"""Weights that training starts from."""

from __future__ import annotations

from sora_spec.builders.backbones.interface import Denoiser
from sora_spec.builders.weights.dit import load_official
from sora_spec.schema.spec import Spec


def load_start(denoiser: Denoiser, spec: Spec) -> bool:
    """Load `backbone.weights` into a freshly built network, before it is sharded; False where the spec names none.

    Official DiT, SiT, Latte and Open-Sora 1.0 files, diffusers folders and our own safetensors are told apart by their
    names.

    Raises UserError when the file cannot be read or does not fit.
    """
    if spec.backbone.weights is None:
        return False
    denoiser.load_state_dict(load_official(spec.backbone.weights, spec))
    return True
