"""Networks as a run folder left them."""

from __future__ import annotations

import torch

from sora_spec.builders.denoiser import Denoiser, build_denoiser
from sora_spec.builders.weights.codec_run import load_codec, tensors_of
from sora_spec.builders.weights.dit import own_state
from sora_spec.builders.weights.mismatch import check_same_shapes
from sora_spec.checkpoints import Weights, pick_weights
from sora_spec.errors import UserError
from sora_spec.run_folder import RunFolder

__all__ = ["load_codec", "load_denoiser"]


def load_denoiser(run: RunFolder, ema: bool = True, weights: Weights | None = None) -> Denoiser:
    """The denoiser of a run's newest whole checkpoint, on the CPU, in evaluation mode.

    `ema`: take the moving average, which a run that keeps one must have. `weights`: what was picked already.

    Raises UserError when the run has no checkpoint, or one that is damaged or does not fit its spec.
    """
    spec, weights = run.load_spec(), weights or pick_weights(run, "denoiser", ema)
    if weights is None:
        raise UserError(
            f"{run.path} has no checkpoint of the denoiser", f"train it first: sora-spec train {run.spec_path}"
        )
    state = tensors_of(weights)
    check_same_shapes(state, {name: tensor.shape for name, tensor in own_state(spec).items()})
    with torch.device("meta"):
        denoiser = build_denoiser(spec)
    denoiser.to_empty(device="cpu").load_state_dict(state, assign=True)  # nothing is initialised just to be replaced
    return denoiser.eval()
