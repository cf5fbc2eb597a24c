"""Transformers that attend to text, and adaLN-single, against PixArt-α as the package diffusers builds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sora_spec.builders.denoiser import Denoiser, build_denoiser
from sora_spec.language.schema.spec import Spec
from tests.support.transformer_specs import transformer_spec

REFERENCE = Path(__file__).parent / "pixart_reference.safetensors"  # by make_pixart_reference.py
CROSS = {"kind": "cross_attention"}


def text(tokens: int, width: int) -> dict[str, Any]:
    return {"kind": "text", "encoder": "my-encoder", "tokens": tokens, "width": width}


def text_spec(depth: int = 2, width: int = 32, heads: int = 2, **changes: Any) -> Spec:
    settings = {"conditioning": CROSS, "condition": text(7, 24)} | changes
    return transformer_spec(depth=depth, width=width, heads=heads, **settings)


def from_diffusers(weights: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Weights of `PixArtTransformer2DModel` under our names."""
    found = {"patch_in.proj.weight": weights["pos_embed.proj.weight"].flatten(1)}
    found["patch_in.proj.bias"] = weights["pos_embed.proj.bias"]
    found["patch_out.modulation.weight"] = weights["scale_shift_table"]
    pairs = {
        "time_embed.fc1": "adaln_single.emb.timestep_embedder.linear_1",
        "time_embed.fc2": "adaln_single.emb.timestep_embedder.linear_2",
        "modulation": "adaln_single.linear",
        "condition_embed.fc1": "caption_projection.linear_1",
        "condition_embed.fc2": "caption_projection.linear_2",
        "patch_out.proj": "proj_out",
    }
    for i in range(depth):
        ours, theirs = f"blocks.{i}", f"transformer_blocks.{i}"
        found[f"{ours}.modulation.weight"] = weights[f"{theirs}.scale_shift_table"]
        pairs |= {f"{ours}.attention.out": f"{theirs}.attn1.to_out.0", f"{ours}.cross.q": f"{theirs}.attn2.to_q"}
        pairs |= {f"{ours}.cross.out": f"{theirs}.attn2.to_out.0"}
        pairs |= {f"{ours}.mlp.fc1": f"{theirs}.ff.net.0.proj", f"{ours}.mlp.fc2": f"{theirs}.ff.net.2"}
        for part in ("weight", "bias"):
            qkv = [weights[f"{theirs}.attn1.to_{name}.{part}"] for name in "qkv"]
            kv = [weights[f"{theirs}.attn2.to_{name}.{part}"] for name in "kv"]
            found |= {f"{ours}.attention.qkv.{part}": torch.cat(qkv), f"{ours}.cross.kv.{part}": torch.cat(kv)}
    for ours, theirs in pairs.items():
        found |= {f"{ours}.{part}": weights[f"{theirs}.{part}"] for part in ("weight", "bias")}
    return found


def awake(spec: Spec) -> Denoiser:
    """The spec's network with no weight at zero."""
    torch.manual_seed(0)
    model = build_denoiser(spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def test_a_forward_pass_equals_that_of_diffusers() -> None:
    stored = load_file(REFERENCE)
    weights = {name.removeprefix("model."): value for name, value in stored.items() if name.startswith("model.")}
    model = build_denoiser(text_spec()).eval()
    loaded = model.load_state_dict(from_diffusers(weights, depth=2), strict=False)
    assert loaded.missing_keys == ["pos_embed"]  # a fixed table, which diffusers does not store
    assert loaded.unexpected_keys == []
    with torch.no_grad():
        output = model(stored["latents"][:, :, None], stored["time"], stored["context"])[:, :, 0]
    torch.testing.assert_close(output, stored["output"], rtol=1e-5, atol=3e-6)


def test_parameters_are_those_of_pixart_xl_2() -> None:
    # 610,856,096: diffusers' PixArtTransformer2DModel with the configuration of PixArt-XL-2-256x256.
    sides = {"height": 256, "columns": 256}
    with torch.device("meta"):
        model = build_denoiser(text_spec(28, 1152, 16, condition=text(120, 4096), **sides))
    assert sum(p.numel() for p in model.parameters()) == 610_856_096


def test_parameters_are_those_of_stdit_xl_2() -> None:
    # Open-Sora 1.0 logs 724 M, counted in 1024²: PixArt-XL/2 and in each block a second attention of 4·D² + 4·D.
    changes = {"height": 256, "columns": 256, "frames": 16, "temporal": "factorized"}
    with torch.device("meta"):
        model = build_denoiser(text_spec(28, 1152, 16, condition=text(120, 4096), **changes))
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == 610_856_096 + 28 * (4 * 1152**2 + 4 * 1152)
    assert int(parameters / 1024**2) == 724


@pytest.mark.parametrize("temporal", ["none", "joint", "alternating", "factorized"])
@pytest.mark.parametrize("modulation", ["single", "zero"])
def test_every_parameter_has_a_gradient_and_a_fresh_network_gives_zero(temporal: str, modulation: str) -> None:
    spec = text_spec(4, frames=4, temporal=temporal, conditioning=CROSS | {"modulation": modulation})
    latents, time, context = torch.randn(2, 4, 4, 8, 8), torch.tensor([3.0, 700.0]), torch.randn(2, 7, 24)
    with torch.no_grad():
        assert not build_denoiser(spec)(latents, time, context).any()
    model = awake(spec).train()
    model(latents, time, context).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_every_frame_reads_the_text_and_its_order_does_not_matter() -> None:
    model = awake(text_spec(frames=4))
    latents, time, context = torch.randn(1, 4, 4, 8, 8), torch.tensor([300.0]), torch.randn(1, 7, 24)
    with torch.no_grad():
        output, other = model(latents, time, context), model(latents, time, context + 1)
        assert ((output - other).abs().amax(dim=(0, 1, 3, 4)) > 1e-3).all()
        torch.testing.assert_close(model(latents, time, context.flip(1)), output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("condition", [{"kind": "none"}, {"kind": "class", "classes": 5}])
def test_adaln_single_is_adaln_zero_whose_layers_differ_by_a_constant(condition: dict[str, Any]) -> None:
    single: Any = awake(transformer_spec(depth=3, conditioning={"kind": "adaln_single"}, condition=condition))
    zero: Any = build_denoiser(transformer_spec(depth=3, condition=condition)).eval()
    state = single.state_dict()
    shared = (state.pop("modulation.weight"), state.pop("modulation.bias"))
    for i in range(3):
        table = state.pop(f"blocks.{i}.modulation.weight").flatten()
        state |= {f"blocks.{i}.modulation.weight": shared[0], f"blocks.{i}.modulation.bias": shared[1] + table}
    state.pop("patch_out.modulation.weight")
    zero.load_state_dict(state, strict=False)
    x, c = torch.randn(2, 1, 16, 48), torch.randn(2, 48)
    with torch.no_grad():
        for one, other in zip(single.blocks, zero.blocks, strict=True):
            expected = other(x, torch.nn.functional.silu(c))
            torch.testing.assert_close(one(x, single.modulations(c)[1]), expected, rtol=1e-5, atol=1e-5)
