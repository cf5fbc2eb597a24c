"""Wan 2.1's network and its checkpoints, against a straight-line statement of it in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sora_spec.builders.denoiser import Denoiser, build_denoiser
from sora_spec.builders.weights.dit import from_official, load_official, own_state
from sora_spec.builders.weights.layouts import arrange_denoiser
from sora_spec.builders.weights.wan import to_wan
from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from tests.support import reference_wan
from tests.support.transformer_specs import transformer_spec

WORDS: dict[str, Any] = {
    "conditioning": {"kind": "cross_attention", "norm": True, "qk_norm": True},
    "position": {"kind": "rope", "axes": [4, 4, 4]},
    "qk_norm": True,
    "qk_norm_over": "width",
    "time_input": "noise_level",
    "learn_sigma": False,
    "mlp_ratio": 1.7,
}
TEXT = {"kind": "text", "encoder": "mine", "tokens": 5, "width": 20}


def wan_spec(**changes: Any) -> Spec:
    given = {"depth": 2, "width": 24, "heads": 2, "frames": 3, "height": 48, "columns": 64, "temporal": "joint"}
    given |= {"condition": TEXT, "objective": {"kind": "interpolant"}} | WORDS
    return transformer_spec(**(given | changes))


def awake(spec: Spec) -> Denoiser:
    torch.manual_seed(0)
    network = build_denoiser(spec)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return network.eval().requires_grad_(False)


def published(spec: Spec) -> dict[str, Tensor]:
    return to_wan(awake(spec).state_dict(), spec)


def test_the_network_is_wans_to_rounding() -> None:
    spec = wan_spec()
    network, time, text = awake(spec), torch.tensor([0.25, 0.9]), torch.randn(2, 5, 20)
    latents = torch.randn(2, 4, 3, 6, 8)
    theirs = reference_wan.forward(to_wan(network.state_dict(), spec), 2, latents, 1000 * (1 - time), text)
    assert theirs.std() > 0.1
    assert (network(latents, time, text) + theirs).norm() / theirs.norm() < 1e-5


@pytest.mark.parametrize("diffusers", [False, True])
def test_both_layouts_come_back_bit_for_bit(diffusers: bool) -> None:
    spec = wan_spec()
    own = awake(spec).state_dict()
    theirs = to_wan(own, spec, diffusers)
    assert len(theirs) == 15 + 2 * 27
    again = from_official(theirs, spec)
    assert again.keys() == own.keys()
    assert all(torch.equal(again[name], own[name]) for name in own)


@pytest.mark.parametrize(
    ("depth", "width", "heads", "ratio", "parameters"),
    [(30, 1536, 12, 8960 / 1536, 1_418_996_800), (40, 5120, 40, 13824 / 5120, 14_288_491_584)],
)
def test_published_sizes_have_the_published_number_of_parameters(
    depth: int, width: int, heads: int, ratio: float, parameters: int
) -> None:
    # diffusers' WanTransformer3DModel of Wan2.1-T2V-1.3B and -14B: 825 and 1,095 tensors.
    changes = {"depth": depth, "width": width, "heads": heads, "mlp_ratio": ratio, "channels": 16}
    condition = TEXT | {"tokens": 512, "width": 4096}
    spec = wan_spec(**changes, condition=condition, position={"kind": "rope", "axes": [44, 42, 42]})
    state = to_wan(own_state(spec), spec, diffusers=True)
    assert sum(tensor.numel() for tensor in state.values()) == parameters
    assert len(state) == 15 + 27 * depth


def test_a_folder_of_diffusers_is_read_and_its_heads_are_compared(tmp_path: Path) -> None:
    spec = wan_spec()
    folder = tmp_path / "transformer"
    folder.mkdir()
    arranged = arrange_denoiser(awake(spec).state_dict(), spec, "diffusers")
    save_file(arranged.state, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(arranged.config))
    own = awake(spec).state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in load_official(tmp_path, spec).items())
    (folder / "config.json").write_text(json.dumps(arranged.config | {"num_attention_heads": 4}))
    with pytest.raises(UserError, match="of 4 heads") as caught:
        load_official(tmp_path, spec)
    assert caught.value.hint == "set backbone.heads=4"


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"depth": 3}, "set backbone.depth=2"),
        ({"qk_norm_over": "head"}, "set backbone.qk_norm_over=width"),
        ({"time_input": "time"}, "set backbone.time_input=noise_level"),
        ({"temporal": "alternating"}, "set temporal.kind=joint"),
        # Tensors have the same shapes with other axes, so that nothing else would tell.
        ({"position": {"kind": "rope", "axes": [8, 2, 2]}}, "set backbone.position={kind: rope, axes: [4, 4, 4]}"),
        ({"position": {"kind": "rope", "axes": [4, 4, 4], "theta": 500.0}}, "axes: [4, 4, 4]"),
        ({"channels": 8}, "set vae.channels=4"),
    ],
)
def test_a_spec_of_another_network_is_told_the_fields(changes: dict[str, Any], hint: str) -> None:
    with pytest.raises(UserError, match="is Wan's network") as caught:
        from_official(published(wan_spec()), wan_spec(**changes))
    assert caught.value.hint is not None
    assert hint in caught.value.hint


def test_other_sizes_and_the_image_to_video_network_are_refused() -> None:
    spec = wan_spec()
    with pytest.raises(UserError, match=r"wrong shape.*"):
        from_official(published(wan_spec(mlp_ratio=2.0)), spec)
    with pytest.raises(UserError, match="image-to-video"):
        from_official(published(spec) | {"img_emb.proj.0.bias": torch.zeros(3)}, spec)
    short = published(spec)
    del short["blocks.1.self_attn.k.weight"]
    with pytest.raises(UserError, match="missing"):
        from_official(short, spec)
