"""Weights that training starts from."""

from __future__ import annotations

from sora_spec.builders.backbones.interface import Denoiser
from sora_spec.builders.weights.dit import read_weights
from sora_spec.builders.weights.image_start import start_state
from sora_spec.language.schema.spec import Spec


def load_start(denoiser: Denoiser, spec: Spec) -> bool:
    """Load `backbone.weights` into a freshly built network, before it is sharded; False where the spec names none.

    Official DiT, SiT, Latte and Open-Sora 1.0 files, diffusers folders and our own safetensors are told apart by their
    names. An image model's weights may start a video model, and a table of other labels is left out; both are said.

    Raises UserError when the file cannot be read or does not fit.
    """
    path = spec.backbone.weights
    if path is None:
        return False
    denoiser.load_state_dict(start_state(read_weights(path, spec), denoiser.state_dict(), spec, str(path)))
    return True
