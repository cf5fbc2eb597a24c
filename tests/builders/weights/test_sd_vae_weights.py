"""Released autoencoder checkpoints: strict loading from each layout, and the way back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sora_spec.builders.vae.image_kl import ImageKlModule
from sora_spec.builders.weights.sd_vae import from_official, load_sd_vae, to_diffusers, to_ldm
from sora_spec.errors import UserError
from sora_spec.language.schema.vae import Compression, ImageKlVae

SMALL = ImageKlVae(
    kind="image_kl",
    compression=Compression(time=1, space=4),
    width=8,
    multipliers=(1, 2, 2),
    blocks=1,
    groups=4,
    channels=3,
)
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

# Pairs read off diffusers' convert_vae scripts for the published four-level model: ldm's name, diffusers' name.
PUBLISHED_PAIRS = {
    "encoder.conv_in.weight": "encoder.conv_in.weight",
    "encoder.down.1.block.0.nin_shortcut.weight": "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
    "encoder.down.2.block.1.norm2.bias": "encoder.down_blocks.2.resnets.1.norm2.bias",
    "encoder.down.0.downsample.conv.weight": "encoder.down_blocks.0.downsamplers.0.conv.weight",
    "encoder.mid.block_1.conv1.weight": "encoder.mid_block.resnets.0.conv1.weight",
    "encoder.mid.block_2.conv2.bias": "encoder.mid_block.resnets.1.conv2.bias",
    "encoder.mid.attn_1.norm.weight": "encoder.mid_block.attentions.0.group_norm.weight",
    "encoder.mid.attn_1.q.weight": "encoder.mid_block.attentions.0.to_q.weight",
    "decoder.mid.attn_1.proj_out.bias": "decoder.mid_block.attentions.0.to_out.0.bias",
    "decoder.up.3.block.0.conv1.weight": "decoder.up_blocks.0.resnets.0.conv1.weight",
    "decoder.up.0.block.2.conv2.weight": "decoder.up_blocks.3.resnets.2.conv2.weight",
    "decoder.up.1.block.0.nin_shortcut.bias": "decoder.up_blocks.2.resnets.0.conv_shortcut.bias",
    "decoder.up.1.upsample.conv.weight": "decoder.up_blocks.2.upsamplers.0.conv.weight",
    "decoder.norm_out.weight": "decoder.conv_norm_out.weight",
    "decoder.conv_out.bias": "decoder.conv_out.bias",
    "quant_conv.weight": "quant_conv.weight",
    "post_quant_conv.bias": "post_quant_conv.bias",
}


@pytest.fixture
def official() -> dict[str, Tensor]:
    """Random values under ldm's names, made without our renaming."""
    torch.manual_seed(0)
    return {name: torch.randn_like(value) for name, value in ImageKlModule(SMALL).state_dict().items()}


def old_diffusers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    def old(name: str) -> str:
        for new, before in OLD_NAMES.items():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{before}.")
        return name

    return {old(name): value for name, value in to_diffusers(state).items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert set(a) == set(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_diffusers_names_are_the_published_ones() -> None:
    with torch.device("meta"):
        state = ImageKlModule(ImageKlVae(kind="image_kl")).state_dict()
    numbered = {name: torch.full((1, 1, 1, 1), float(number)) for number, name in enumerate(state)}
    theirs = {float(value.sum()): name for name, value in to_diffusers(numbered).items()}
    assert len(theirs) == 248
    assert {ours: theirs[float(numbered[ours].sum())] for ours in PUBLISHED_PAIRS} == PUBLISHED_PAIRS


def test_diffusers_attention_is_a_matrix(official: dict[str, Tensor]) -> None:
    theirs = to_diffusers(official)["encoder.mid_block.attentions.0.to_k.weight"]
    assert torch.equal(theirs, official["encoder.mid.attn_1.k.weight"][:, :, 0, 0])


@pytest.mark.parametrize("layout", ["ldm", "full", "diffusers", "old diffusers"])
def test_every_layout_loads_strictly_and_comes_back(layout: str, official: dict[str, Tensor]) -> None:
    given = {
        "ldm": to_ldm(official),
        "full": to_ldm(official, "first_stage_model.") | {"model.diffusion_model.out.2.bias": torch.zeros(4)},
        "diffusers": to_diffusers(official),
        "old diffusers": old_diffusers(official),
    }[layout]
    ours = from_official(given, SMALL)
    assert_same(ours, official)
    ImageKlModule(SMALL).load_state_dict(ours, strict=True)


def test_all_that_does_not_fit_is_in_one_report(official: dict[str, Tensor]) -> None:
    given = to_diffusers(official)
    del given["encoder.conv_in.bias"]
    given["surplus.weight"] = torch.zeros(2)
    given["post_quant_conv.weight"] = torch.zeros(5, 5, 1, 1)
    with pytest.raises(UserError) as caught:
        from_official(given, SMALL)
    for part in ("encoder.conv_in.bias", "surplus.weight", "(5, 5, 1, 1)", "(3, 3, 1, 1)"):
        assert part in caught.value.message
    assert caught.value.hint == "the file's latents have 5 channels, vae.channels is 3"


def test_files_and_folders_are_read(tmp_path: Path, official: dict[str, Tensor]) -> None:
    torch.save({"state_dict": to_ldm(official) | {"loss.logvar": torch.zeros(())}}, tmp_path / "model.ckpt")
    assert_same(load_sd_vae(tmp_path / "model.ckpt", SMALL), official)
    folder = tmp_path / "pipeline" / "vae"
    folder.mkdir(parents=True)
    save_file(
        {k: v.contiguous() for k, v in to_diffusers(official).items()}, folder / "diffusion_pytorch_model.safetensors"
    )
    (folder / "config.json").write_text(
        json.dumps({"latent_channels": 3, "block_out_channels": [8, 16, 16], "scaling_factor": 0.18215})
    )
    assert_same(load_sd_vae(folder.parent, SMALL), official)
    assert_same(load_sd_vae(folder, SMALL), official)


def test_a_config_that_disagrees_is_told_with_both_values(tmp_path: Path) -> None:
    config = {"latent_channels": 16, "block_out_channels": [8, 16, 32], "scaling_factor": 0.13025, "norm_num_groups": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        load_sd_vae(tmp_path, SMALL)
    lines = caught.value.message.splitlines()[1:]
    assert len(lines) == 3
    assert "latent_channels is 16, but vae.channels gives 3" in lines[0]
    assert "block_out_channels is [8, 16, 32], but vae.width · vae.multipliers gives [8, 16, 16]" in lines[1]
    assert "scaling_factor is 0.13025, but vae.scale gives 0.18215" in lines[2]
