"""Open-Sora 1.0's STDiT: the network of `specs/stdit.yaml`, its checkpoint's names, its mask and its null prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.trace.compare import compare
from sora_spec.builders.weights.dit import from_official, to_official
from sora_spec.errors import UserError
from sora_spec.graph import Setting
from sora_spec.graph.eager.ops.attention import Kernel
from sora_spec.language.loading import load_spec
from sora_spec.language.schema.spec import Spec
from tests.support.reference_stdit import stdit

STDIT = Path(__file__).parents[3] / "specs" / "stdit.yaml"
TINY = [
    "backbone.depth=2",
    "backbone.width=32",
    "backbone.heads=2",
    "condition.encoder=my-encoder",
    "condition.width=20",
    "condition.tokens=7",
    "clip.frames=3",
    "clip.height=64",
    "clip.width=48",
]
SCALES = ["backbone.position.space_scale=0.5", "backbone.position.time_scale=0.75"]


def tiny(*changes: str) -> Spec:
    return load_spec(STDIT, [*TINY, *changes])


def official(spec: Spec) -> dict[str, Tensor]:
    """A checkpoint as Open-Sora writes it, with no weight at zero."""
    torch.manual_seed(0)
    state = to_official(build_denoiser(spec).state_dict(), spec)
    tables = ("pos_embed", "pos_embed_temporal")
    return {name: x if name in tables else x + 0.1 * torch.randn_like(x) for name, x in state.items()}


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0]])
    return torch.randn(2, 4, 3, 8, 6), torch.tensor([3.0, 700.0]), torch.randn(2, 7, 20), mask


def difference(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize(("changes", "scales"), [([], (1.0, 1.0)), (SCALES, (0.5, 0.75))])
def test_a_forward_pass_equals_the_straight_line(changes: list[str], scales: tuple[float, float]) -> None:
    spec = tiny(*changes)
    state = official(spec)
    network = build_denoiser(spec).eval()
    network.load_state_dict(from_official(state, spec))
    latents, time, prompts, mask = inputs()
    with torch.no_grad():
        assert difference(network(latents, time, prompts, mask), stdit(state, *inputs(), 2, scales)) < 2e-6
        assert difference(network(latents, time, prompts, mask.bool()), stdit(state, *inputs(), 2, scales)) < 2e-6
        everything = stdit(state, latents, time, prompts, torch.ones_like(mask), 2, scales)
        assert difference(network(latents, time, prompts), everything) < 2e-6


def test_the_published_names_and_shapes_are_the_checkpoints() -> None:
    # The state dict of `STDiT-XL/2` at 16x512x512, from the repository at v1.0.0.
    spec = load_spec(STDIT)
    with torch.device("meta"):
        state = to_official(build_denoiser(spec).state_dict(), spec)
    block = {
        "scale_shift_table": (6, 1152),
        "attn.qkv.weight": (3456, 1152),
        "attn.qkv.bias": (3456,),
        "attn.proj.weight": (1152, 1152),
        "attn.proj.bias": (1152,),
        "cross_attn.q_linear.weight": (1152, 1152),
        "cross_attn.q_linear.bias": (1152,),
        "cross_attn.kv_linear.weight": (2304, 1152),
        "cross_attn.kv_linear.bias": (2304,),
        "cross_attn.proj.weight": (1152, 1152),
        "cross_attn.proj.bias": (1152,),
        "mlp.fc1.weight": (4608, 1152),
        "mlp.fc1.bias": (4608,),
        "mlp.fc2.weight": (1152, 4608),
        "mlp.fc2.bias": (1152,),
        "attn_temp.qkv.weight": (3456, 1152),
        "attn_temp.qkv.bias": (3456,),
        "attn_temp.proj.weight": (1152, 1152),
        "attn_temp.proj.bias": (1152,),
    }
    expected: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, 1024, 1152),
        "pos_embed_temporal": (1, 16, 1152),
        "x_embedder.proj.weight": (1152, 4, 1, 2, 2),
        "x_embedder.proj.bias": (1152,),
        "t_embedder.mlp.0.weight": (1152, 256),
        "t_embedder.mlp.0.bias": (1152,),
        "t_embedder.mlp.2.weight": (1152, 1152),
        "t_embedder.mlp.2.bias": (1152,),
        "t_block.1.weight": (6912, 1152),
        "t_block.1.bias": (6912,),
        "y_embedder.y_embedding": (120, 4096),
        "y_embedder.y_proj.fc1.weight": (1152, 4096),
        "y_embedder.y_proj.fc1.bias": (1152,),
        "y_embedder.y_proj.fc2.weight": (1152, 1152),
        "y_embedder.y_proj.fc2.bias": (1152,),
        "final_layer.linear.weight": (32, 1152),
        "final_layer.linear.bias": (32,),
        "final_layer.scale_shift_table": (2, 1152),
    }
    expected |= {f"blocks.{i}.{name}": shape for i in range(28) for name, shape in block.items()}
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


def test_a_checkpoint_of_another_length_and_size_keeps_its_weights() -> None:
    state = official(tiny("clip.frames=5", "clip.height=32"))
    spec = tiny()
    loaded = from_official(state, spec)
    assert loaded["pos_embed"].shape == (1, 12, 32)
    assert torch.equal(loaded["condition_embed.null"], state["y_embedder.y_embedding"])
    assert torch.equal(loaded["blocks.1.temporal.out.weight"], state["blocks.1.attn_temp.proj.weight"])


@pytest.mark.parametrize(
    ("written", "read", "hint"),
    [
        ([], ["temporal.frame_positions=tokens"], "first_attention"),
        (["backbone.position.space_scale=0.5"], [], "space_scale to 0.5"),
        (["backbone.position.time_scale=0.5"], [], "time_scale to 0.5"),
        ([], ["condition.no_prompt=empty"], "no_prompt to table"),
        (["condition.no_prompt=empty"], [], "no_prompt to empty"),
        ([], ["condition.tokens=9"], "7 tokens of 20"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(written: list[str], read: list[str], hint: str) -> None:
    with pytest.raises(UserError) as refused:
        from_official(official(tiny(*written)), tiny(*read))
    assert hint in f"{refused.value} {refused.value.hint}"


def test_padding_is_not_read_and_the_mask_must_fit() -> None:
    spec = tiny()
    network = build_denoiser(spec).eval()
    network.load_state_dict(from_official(official(spec), spec))
    latents, time, prompts, mask = inputs()
    noisy = torch.where(mask[..., None] == 0, torch.full_like(prompts, 1e3), prompts)
    with torch.no_grad():
        assert torch.equal(network(latents, time, noisy, mask)[0], network(latents, time, prompts, mask)[0])
        assert difference(network(latents, time, noisy, mask), network(latents, time, prompts, mask)) < 1e-6
    with pytest.raises(AssertionError, match="mask"):
        network(latents, time, prompts, mask[:1])


def test_a_fresh_network_is_an_image_model_and_keeps_a_null_prompt() -> None:
    network: Any = build_denoiser(tiny())
    assert not network.blocks[0].temporal.out.weight.any()
    assert network.null_context.shape == (7, 20)
    assert network.null_context.std() == pytest.approx(20**-0.5, rel=0.2)
    assert "condition_embed.null" not in dict(network.named_parameters())
    assert build_denoiser(tiny("condition.no_prompt=empty")).null_context is None


@pytest.mark.parametrize("attention", ["flash", "efficient", "math", "cpu"])
@pytest.mark.parametrize("tokens", [7, 8])
def test_the_graph_equals_the_trace(attention: Kernel, tokens: int) -> None:
    spec = tiny(f"condition.tokens={tokens}")
    for precision, recompute in (("fp32", "none"), ("bf16", "blocks"), ("bf16", "selective")):
        found = compare(spec, "denoiser_step", Setting(2, precision, attention, recompute))
        assert found.divergence is None
        assert [row for row in found.rows if not row.equal] == []
