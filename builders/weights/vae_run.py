"""VAEs with their trained weights: from a run folder, or from the file that the spec names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sora_spec.builders.vae.from_spec import VaeModule, build_vae
from sora_spec.builders.weights.files import read_state
from sora_spec.builders.weights.mismatch import check_same_shapes
from sora_spec.builders.weights.names import unprefixed
from sora_spec.builders.weights.sd_vae import load_sd_vae
from sora_spec.builders.weights.values import as_float32
from sora_spec.disk.checkpoints import (
    AVERAGE,
    MODEL,
    STATE,
    Damaged,
    Weights,
    check_measured,
    examine,
    part_of,
    pick_weights,
)
from sora_spec.disk.checkpoints import read_state as read_trained
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from sora_spec.language.facts import is_learned
from sora_spec.language.schema.spec import Spec
from sora_spec.language.schema.vae import ImageKlVae

UNTOLD = ("weights", "decoder", "tiling", "streaming", "training")
"""Fields of `vae` that do not change what the tensors mean."""


def load_vae(run: RunFolder, ema: bool = True, lacking: bool = False) -> VaeModule:
    """The VAE of a run, on the CPU, frozen, in evaluation mode.

    The vae stage's newest whole checkpoint counts first (its moving average where it keeps one, unless `ema` is off),
    then the file that `vae.weights` names. `lacking`: take the weights where the average is missing.

    Raises UserError when there is neither, when they are damaged, or when they do not fit the spec.
    """
    spec, weights = run.load_spec(), pick_weights(run, "vae", ema, lacking)
    if weights is None:
        return load_named_vae(spec, untrained=f"{run.path} has no checkpoint of the VAE")
    return filled(spec, tensors_of(weights))


def load_named_vae(spec: Spec, untrained: str | None = None) -> VaeModule:
    """The VAE with the weights that `vae.weights` names, on the CPU, frozen, in evaluation mode.

    `untrained` begins the message of the UserError that is raised when the spec names none and the VAE needs some.
    """
    state = named_state(spec)
    if state is None and is_learned(spec.vae):
        raise UserError(
            f"{untrained or f'{spec.name} is no run with a vae'}, and its vae.weights names no file",
            hint="train it first: sora-spec train SPEC --stage vae; or set vae.weights",
        )
    return filled(spec, state or {})


def draw_vae(spec: Spec, seed: int) -> VaeModule:
    """The VAE with the weights that training would start from, without a file; frozen, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_vae(spec).eval().requires_grad_(False)


def start_vae(vae: VaeModule, spec: Spec) -> bool:
    """Load `vae.weights` into a freshly built VAE before the vae stage trains it; False where the spec names none."""
    state = named_state(spec)
    if state is None:
        return False
    vae.load_state_dict(state)
    return True


def named_state(spec: Spec) -> dict[str, Tensor] | None:
    """The tensors of `vae.weights` under our names, or None where the spec names none."""
    vae = spec.vae
    if not is_learned(vae) or vae.weights is None:
        return None
    path = Path(vae.weights).expanduser()
    if (path / STATE).is_file():
        _check_told(told_spec(path).get("vae", {}), spec, path / STATE)
        state = checkpoint_state(path, spec)
    elif isinstance(vae, ImageKlVae):
        return load_sd_vae(vae.weights, vae)
    else:
        state = read_state(path)
    expected = expected_shapes(spec)
    state = unprefixed(state, tuple(expected), str(path))
    check_same_shapes(state, expected, where=str(path))
    return as_float32(state, str(path))


def told_spec(checkpoint: Path) -> dict[str, Any]:
    """The spec of the steps behind a checkpoint folder, as far as it was recorded.

    Raises UserError when `state.json` is damaged.
    """
    try:
        return read_trained(checkpoint).spec or {}
    except ValueError as error:
        raise UserError(f"{checkpoint} is damaged: {error}", "name another checkpoint, or copy this one again") from (
            error
        )


def _check_told(told: dict[str, Any], spec: Spec, where: Path) -> None:
    """Raise UserError where the VAE was another one: scale and groups cannot be read off its tensors."""
    given = spec.vae.model_dump(mode="json")
    wrong = [
        f"  vae.{key} was {value}, the spec says {given[key]}"
        for key, value in told.items()
        if key in given and key not in UNTOLD and given[key] != value
    ]
    if wrong:
        raise UserError("\n".join([f"{where}: the VAE is not the spec's:", *wrong]), "change these lines of the spec")


def checkpoint_state(checkpoint: Path, spec: Spec | None = None) -> dict[str, Tensor]:
    """Weights of a checkpoint folder that is named itself: its moving average where it keeps one.

    Raises UserError when it is damaged, as nothing takes the place of what was named, or not finished.
    """
    found = examine(checkpoint, None, (MODEL, AVERAGE))
    if isinstance(found, Damaged):
        raise UserError(f"{checkpoint} is damaged: {found.why}", "name another checkpoint, or copy this one again")
    if spec is not None:
        check_measured(found, spec, "sora-spec train RUN --stage vae --resume")
    return tensors_of(Weights(checkpoint, found.step, averaged=part_of(checkpoint, AVERAGE).exists()))


def tensors_of(weights: Weights) -> dict[str, Tensor]:
    """The tensors that `pick_weights` chose: the model's, replaced by their moving averages where those are meant."""
    state = read_state(part_of(weights.path, MODEL))
    return state | read_state(weights.part) if weights.averaged else state


def filled(spec: Spec, state: dict[str, Tensor]) -> VaeModule:
    """The VAE holding `state`, without initialising what is about to be replaced."""
    check_same_shapes(state, expected_shapes(spec))
    with torch.device("meta"):
        vae = build_vae(spec)
    vae.load_state_dict(state, assign=True)
    return vae.eval().requires_grad_(False)


def expected_shapes(spec: Spec) -> dict[str, torch.Size]:
    """Name and shape of every tensor of the spec's VAE."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in build_vae(spec).state_dict().items()}
