"""Checkpoints of Stable Diffusion's autoencoder ⇄ ours, which has ldm's names (248 tensors for the published one).

Layouts that are read: ldm's own, bare or under `first_stage_model.` in a full Stable Diffusion checkpoint, and
diffusers' AutoencoderKL, with either naming of the attention (`query key value proj_attn`, and `to_q to_k to_v
to_out.0` since diffusers 0.18). diffusers stores the attention's 1x1 convolutions as matrices and counts the decoder's
levels from the lowest resolution, ldm from the highest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sora_spec.builders.vae.image_kl import ImageKlModule
from sora_spec.builders.weights.files import read_config, read_state
from sora_spec.builders.weights.mismatch import check_same_shapes
from sora_spec.builders.weights.names import unprefixed
from sora_spec.builders.weights.values import as_float32
from sora_spec.errors import UserError
from sora_spec.language.schema.vae import ImageKlVae

LDM_PREFIX = "first_stage_model."
ANCHORS = ("encoder.conv_in.weight", "post_quant_conv.weight", "decoder.conv_in.weight")
"""Names that every layout has, by which a prefix is told."""
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
MATRICES = ("to_q", "to_k", "to_v", "to_out.0")

# ldm → diffusers, in order; `{up}` is the decoder level counted from the other end.
RENAMES: tuple[tuple[str, str], ...] = (
    (r"encoder\.down\.(\d+)\.block\.(\d+)\.", r"encoder.down_blocks.\1.resnets.\2."),
    (r"encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"decoder\.up\.(\d+)\.block\.(\d+)\.", r"decoder.up_blocks.{up}.resnets.\2."),
    (r"decoder\.up\.(\d+)\.upsample\.", r"decoder.up_blocks.{up}.upsamplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
)


def load_sd_vae(path: str | Path, vae: ImageKlVae) -> dict[str, Tensor]:
    """State of `ImageKlModule(vae)` from a checkpoint file or a diffusers folder (of a pipeline or of the VAE alone).

    Raises UserError when the file cannot be read, its tensors do not fit the spec (all of them are listed), or the
    folder's config.json disagrees with it.
    """
    check_config(Path(path).expanduser(), vae)
    return from_official(read_state(path, subfolder="vae"), vae, str(path))


def from_official(state: Mapping[str, Tensor], vae: ImageKlVae, where: str = "the checkpoint") -> dict[str, Tensor]:
    """Any known layout → ours in float32. `where`: what messages call the checkpoint.

    Raises UserError listing every missing, unexpected and mis-shaped tensor, and those that are no finite numbers.
    """
    names = shapes(vae)
    state = unprefixed(without_extras(state), ANCHORS, where)
    if any(".down_blocks." in name or ".mid_block." in name for name in state):
        ours = {theirs: name for name, theirs in diffusers_names(names).items()}
        state = {new_attention_name(name): tensor for name, tensor in state.items()}
        state = {ours.get(name, name): tensor for name, tensor in state.items()}
    state = {name: as_convolution(tensor, names.get(name)) for name, tensor in state.items()}
    check_same_shapes(state, names, explain(state, vae), where)
    return as_float32(state, where)


def to_ldm(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Ours → ldm's layout; with prefix `first_stage_model.` as inside a full Stable Diffusion checkpoint."""
    return {prefix + name: tensor for name, tensor in state.items()}


def to_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours → diffusers' AutoencoderKL (0.18 and later), the attention's projections as matrices."""
    names = diffusers_names(state)
    return {
        theirs: state[name].flatten(1) if theirs.endswith(matrix_endings()) else state[name]
        for name, theirs in names.items()
    }


def shapes(vae: ImageKlVae) -> dict[str, torch.Size]:
    """Name and shape of every tensor of the VAE, without allocating it."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in ImageKlModule(vae).state_dict().items()}


def diffusers_names(names: Mapping[str, object]) -> dict[str, str]:
    """Our name → diffusers' name."""
    levels = 1 + max(int(match[1]) for name in names if (match := re.match(r"decoder\.up\.(\d+)\.", name)))
    return {name: diffusers_name(name, levels) for name in names}


def diffusers_name(name: str, levels: int) -> str:
    """One name. `up.0` is the highest resolution here and the last of the up_blocks there."""
    if match := re.fullmatch(r"(\w+)\.mid\.attn_1\.(\w+)\.(weight|bias)", name):
        return f"{match[1]}.mid_block.attentions.0.{ATTENTION[match[2]]}.{match[3]}"
    level = re.match(r"decoder\.up\.(\d+)\.", name)
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name.replace("{up}", str(levels - 1 - int(level[1]))) if level else name


def new_attention_name(name: str) -> str:
    """diffusers' names before 0.18 → after."""
    for old, new in OLD_ATTENTION.items():
        name = name.replace(f".attentions.0.{old}.", f".attentions.0.{new}.")
    return name


def matrix_endings() -> tuple[str, ...]:
    """Ends of the diffusers names whose tensors are matrices there and 1x1 convolutions here."""
    return tuple(f".attentions.0.{name}.weight" for name in MATRICES)


def as_convolution(tensor: Tensor, shape: torch.Size | None) -> Tensor:
    """A matrix as a 1x1 convolution where one is expected; anything else as it is."""
    if shape is not None and len(shape) == 4 and tensor.ndim == 2:
        return tensor[:, :, None, None]
    return tensor


def without_extras(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The autoencoder's tensors: out of a full checkpoint, and without the loss network of its training."""
    inside = next((name for name in state if LDM_PREFIX in name), None)
    if inside is not None:  # perhaps behind a wrapper's prefix
        prefix = inside[: inside.index(LDM_PREFIX) + len(LDM_PREFIX)]
        state = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
    return {name: x for name, x in state.items() if not name.startswith(("loss.", "model_ema."))}


def check_config(path: Path, vae: ImageKlVae) -> None:
    """Compare a diffusers config.json, in the folder or beside the file, with the spec.

    Raises UserError with both values: scale and groups cannot be read off the tensors.
    """
    folder = path / "vae" if (path / "vae").is_dir() else path
    config_path = (folder if folder.is_dir() else folder.parent) / "config.json"
    config = read_config(config_path)
    if config is None or (folder.is_file() and config.get("_class_name") != "AutoencoderKL"):
        return
    expected = {
        "latent_channels": ("vae.channels", vae.channels),
        "block_out_channels": ("vae.width · vae.multipliers", [vae.width * m for m in vae.multipliers]),
        "layers_per_block": ("vae.blocks", vae.blocks),
        "norm_num_groups": ("vae.groups", vae.groups),
        "scaling_factor": ("vae.scale", vae.scale),
    }
    wrong = [
        f"  {key} is {config[key]}, but {field} gives {value}"
        for key, (field, value) in expected.items()
        if key in config and config[key] != value
    ]
    if config.get("shift_factor"):
        wrong.append(f"  shift_factor is {config['shift_factor']}, but this VAE only scales its latents")
    if wrong:
        raise UserError(
            "\n".join([f"{config_path} disagrees with the spec:", *wrong]), hint="change these lines of the spec"
        )


def explain(state: Mapping[str, Tensor], vae: ImageKlVae) -> list[str]:
    """Lines of the spec that the tensors contradict, where they can be read off them."""
    found: list[str] = []
    latents, first = state.get("post_quant_conv.weight"), state.get("encoder.conv_in.weight")
    if latents is not None and latents.shape[0] != vae.channels:
        found.append(f"the file's latents have {latents.shape[0]} channels, vae.channels is {vae.channels}")
    if first is not None and first.shape[0] != vae.width:
        found.append(f"the file's first level has {first.shape[0]} channels, vae.width is {vae.width}")
    return found
