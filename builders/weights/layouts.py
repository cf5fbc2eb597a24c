"""A run's weights in the layouts that others read: the published programs', and diffusers'."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor

from sora_spec.builders.blocks.position import spatial_table
from sora_spec.builders.weights import sd_vae
from sora_spec.builders.weights.diffusers_dit import diffusers_from_flat
from sora_spec.builders.weights.dit import from_official, is_stdit, to_official
from sora_spec.builders.weights.wan import not_wans, to_wan, wan_config
from sora_spec.disk.run_folder import replacing_folder, write_atomically
from sora_spec.errors import UserError
from sora_spec.language.schema.backbone import AdaLnZero, Alternating, Joint, NoTemporal, Sincos, Transformer
from sora_spec.language.schema.condition import ClassCondition
from sora_spec.language.schema.spec import Spec
from sora_spec.language.schema.vae import ImageKlVae
from sora_spec.language.shapes import derive_shapes

Layout = Literal["official", "diffusers"]
WEIGHTS, CONFIG = "diffusion_pytorch_model.safetensors", "config.json"
"""What diffusers reads of a folder."""
SUFFIXES = (".pt", ".safetensors")


@dataclass(frozen=True)
class Origin:
    """Which weights these are; stored beside them."""

    run: str
    spec: str
    stage: str
    step: int
    average: bool

    def text(self) -> dict[str, str]:
        """As safetensors' metadata, which holds text only."""
        return {
            "format": "pt",
            "run": self.run,
            "spec": self.spec,
            "stage": self.stage,
            "step": str(self.step),
            "average": str(self.average).lower(),
        }


@dataclass(frozen=True)
class Arranged:
    """Tensors in a layout."""

    state: dict[str, Tensor]
    nest: str
    """Where the published programs look for them in a `.pt` file."""
    config: dict[str, Any] | None
    """diffusers' `config.json`."""


def arrange_denoiser(state: Mapping[str, Tensor], spec: Spec, layout: Layout) -> Arranged:
    """A denoiser's tensors in a layout, checked to come back as they were.

    Raises UserError where the layout has no such network, with the fields that say so.
    """
    if not not_wans(spec):
        arranged = to_wan(state, spec, diffusers=layout == "diffusers")
        _check_return(from_official(arranged, spec, "what is written"), state)
        return Arranged(_dense(arranged), "model", wan_config(spec) if layout == "diffusers" else None)
    odd = list(_beyond_official(spec) if layout == "official" else _beyond_diffusers(spec, state))
    if odd:
        raise UserError(
            f"{spec.name} has no counterpart in the {layout} layout: {'; '.join(odd)}",
            "its own layout is that of model.safetensors and ema.safetensors in the run's checkpoints",
        )
    official = to_official(state, spec)
    arranged = official if layout == "official" else diffusers_from_flat(official)
    _check_return(from_official(arranged, spec, "what is written"), state)
    return Arranged(_dense(arranged), "ema", None if layout == "official" else _dit_config(spec))


def check_vae(spec: Spec, layout: Layout) -> ImageKlVae:
    """The VAE's section. Raises UserError where the layout has no such VAE."""
    if not isinstance(spec.vae, ImageKlVae):
        raise UserError(
            f"{spec.name} has no counterpart in the {layout} layout: vae.kind is {spec.vae.kind}",
            "VAEs that others read are those of vae.kind image_kl",
        )
    return spec.vae


def arrange_vae(state: Mapping[str, Tensor], spec: Spec, layout: Layout) -> Arranged:
    """A VAE's tensors as ldm's, or as diffusers' AutoencoderKL. Raises UserError as `check_vae` does."""
    vae = check_vae(spec, layout)
    arranged = sd_vae.to_ldm(state) if layout == "official" else sd_vae.to_diffusers(state)
    _check_return(sd_vae.from_official(arranged, vae), state)
    return Arranged(_dense(arranged), "state_dict", None if layout == "official" else _vae_config(vae))


def check_target(target: Path, layout: Layout, force: bool) -> None:
    """Raise UserError when weights in `layout` cannot or must not be written to `target`."""
    file = target.suffix in SUFFIXES
    if layout == "official" and not file:
        raise UserError(f"{target} is no name for a file of weights", "end it in .pt or .safetensors")
    if layout == "diffusers" and target.suffix == ".pt":
        raise UserError(f"{target}: diffusers reads safetensors", "name a folder, or a file that ends in .safetensors")
    if not target.exists() and not target.is_symlink():
        return
    if file and not target.is_file():
        raise UserError(f"{target} is not a file", "name another with --out")
    if not file and (not target.is_dir() or target.is_symlink()):
        raise UserError(f"{target} is not a folder", "name another with --out")
    if not file and any(child.name not in (WEIGHTS, CONFIG) for child in target.iterdir()):
        raise UserError(f"{target} holds other files, so it is left alone", "name another folder with --out")
    if not force and (file or any(target.iterdir())):
        raise UserError(f"{target} exists already", "replace it with --force, or name another with --out")


def write_weights(arranged: Arranged, origin: Origin, target: Path) -> None:
    """Write a file, or a folder as diffusers reads it; whole or not at all."""
    if target.suffix not in SUFFIXES:
        with replacing_folder(target) as folder:
            write_atomically(folder / WEIGHTS, save(arranged.state, origin.text()))
            (folder / CONFIG).write_text(json.dumps(arranged.config, indent=2) + "\n")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".safetensors":
        write_atomically(target, save(arranged.state, origin.text()))
        return
    stream = io.BytesIO()  # torch's own writer says of a full disk only that it is at an unexpected place
    torch.save({arranged.nest: arranged.state, "source": dict(vars(origin))}, stream)
    write_atomically(target, stream.getvalue())


def _dense(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that own their memory, as files need them."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


def _check_return(found: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        # diffusers stores no table of positions; it was compared with the computed one before.
        assert name == "pos_embed" or torch.equal(found[name], tensor.float()), f"{name} does not come back"


def _beyond_official(spec: Spec) -> Iterator[str]:
    backbone = spec.backbone
    assert isinstance(backbone, Transformer)
    if is_stdit(spec):
        return
    if not isinstance(backbone.conditioning, AdaLnZero):
        yield f"backbone.conditioning.kind is {backbone.conditioning.kind}"
    if not isinstance(spec.temporal, NoTemporal | Alternating | Joint):
        yield f"temporal.kind is {spec.temporal.kind}"
    if not isinstance(spec.temporal, Joint):  # OpenDiT's has both
        if not isinstance(backbone.position, Sincos):
            yield f"backbone.position.kind is {backbone.position.kind}"
        if backbone.qk_norm:
            yield "backbone.qk_norm is true"
        if spec.patch.time > 1:
            yield f"patch.time is {spec.patch.time}"


def _beyond_diffusers(spec: Spec, state: Mapping[str, Tensor]) -> Iterator[str]:
    backbone, shapes = spec.backbone, derive_shapes(spec)
    assert isinstance(backbone, Transformer)
    yield from _beyond_official(spec)
    if not isinstance(spec.temporal, NoTemporal):
        yield f"temporal.kind is {spec.temporal.kind}, and its DiT is an image model"
    if not isinstance(spec.condition, ClassCondition) or spec.condition.dropout == 0:
        yield "its DiT has labels and a null label (condition.kind class, condition.dropout above 0)"
    if backbone.mlp_ratio != 4:
        yield f"backbone.mlp_ratio is {backbone.mlp_ratio:g}, its is 4"
    if shapes.latent_height != shapes.latent_width:
        yield f"clips are {shapes.width}x{shapes.height}, its are square"
    table, (_, rows, columns) = state.get("pos_embed"), shapes.grid
    if table is not None and not torch.allclose(table, spatial_table(backbone.width, rows, columns), rtol=0, atol=5e-3):
        yield "its table of positions is computed, and the weights' is another"


def _dit_config(spec: Spec) -> dict[str, Any]:
    backbone, shapes = spec.backbone, derive_shapes(spec)
    assert isinstance(backbone, Transformer)
    assert isinstance(spec.condition, ClassCondition)
    return {
        "_class_name": "DiTTransformer2DModel",
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "attention_head_dim": backbone.width // backbone.heads,
        "dropout": 0.0,
        "in_channels": shapes.channels,
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "norm_type": "ada_norm_zero",
        "num_attention_heads": backbone.heads,
        "num_embeds_ada_norm": spec.condition.classes,
        "num_layers": backbone.depth,
        "out_channels": shapes.out_channels,
        "patch_size": spec.patch.space,
        "sample_size": shapes.latent_height,
        "upcast_attention": False,
    }


def _vae_config(vae: ImageKlVae) -> dict[str, Any]:
    levels = len(vae.multipliers)
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": [vae.width * multiplier for multiplier in vae.multipliers],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "in_channels": 3,
        "latent_channels": vae.channels,
        "layers_per_block": vae.blocks,
        "norm_num_groups": vae.groups,
        "out_channels": 3,
        "scaling_factor": vae.scale,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }
