"""Networks as a run folder left them."""

from __future__ import annotations

import torch

from sora_spec.builders.denoiser import Denoiser, build_denoiser
from sora_spec.builders.weights.codec_run import checkpoint_state, load_codec
from sora_spec.builders.weights.dit import own_state
from sora_spec.builders.weights.mismatch import check_same_shapes
from sora_spec.errors import UserError
from sora_spec.run_folder import RunFolder

__all__ = ["load_codec", "load_denoiser"]


def load_denoiser(run: RunFolder, ema: bool = True) -> Denoiser:
    """The denoiser of a run's newest checkpoint, on the CPU, in evaluation mode.

    `ema`: take the moving average of the weights where the checkpoint has one.

    Raises UserError when the run has no checkpoint, or one that does not fit its spec.
    """
    spec, checkpoint = run.load_spec(), run.stage("denoiser").latest()
    if checkpoint is None:
        raise UserError(
            f"{run.path} has no checkpoint of the denoiser", f"train it first: sora-spec train {run.spec_path}"
        )
    state = checkpoint_state(checkpoint, ema)
    check_same_shapes(state, {name: tensor.shape for name, tensor in own_state(spec).items()})
    with torch.device("meta"):
        denoiser = build_denoiser(spec)
    denoiser.to_empty(device="cpu").load_state_dict(state, assign=True)  # nothing is initialised just to be replaced
    return denoiser.eval()
