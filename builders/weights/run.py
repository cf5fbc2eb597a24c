"""Networks as a run folder left them."""

from __future__ import annotations

import torch
from torch import Tensor

from sora_spec.builders.denoiser import Denoiser, build_denoiser
from sora_spec.builders.weights.dit import load_official, own_state
from sora_spec.builders.weights.mismatch import check_same_shapes
from sora_spec.builders.weights.vae_run import load_vae, tensors_of
from sora_spec.disk.checkpoints import Weights, pick_weights
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec

__all__ = ["draw_denoiser", "load_denoiser", "load_named_denoiser", "load_vae"]


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
    return _holding(spec, state)


def load_named_denoiser(spec: Spec) -> Denoiser:
    """The denoiser with exactly the weights that `backbone.weights` names, on the CPU, in evaluation mode.

    Raises UserError when it names none, or they do not fit as they are: nothing is left at its start.
    """
    if spec.backbone.weights is None:
        raise UserError(f"{spec.name}: backbone.weights names no file", "add backbone.weights=FILE")
    return _holding(spec, load_official(spec.backbone.weights, spec))


def draw_denoiser(spec: Spec, seed: int) -> Denoiser:
    """The denoiser with the weights that training would start from, without a file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_denoiser(spec).eval()


def _holding(spec: Spec, state: dict[str, Tensor]) -> Denoiser:
    with torch.device("meta"):
        denoiser = build_denoiser(spec)
    denoiser.to_empty(device="cpu").load_state_dict(state, assign=True)  # nothing is initialised just to be replaced
    return denoiser.eval()
