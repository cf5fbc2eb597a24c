"""The built network against the straight-line reference, value for value."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import tests.support.reference_dit as reference
from sora_spec.builders.blocks.adaln import attend
from sora_spec.builders.blocks.position import Rope3d, rope_axes, rotate, spatial_table, temporal_table
from sora_spec.builders.blocks.sequences import WithinFrames
from sora_spec.builders.conditions.time import TimeEmbedding
from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.weights.dit import from_official, own_state, to_official
from sora_spec.language.schema.backbone import Rope, Transformer, Windowed
from sora_spec.language.schema.spec import Spec
from sora_spec.language.shapes import derive_shapes
from tests.support.transformer_specs import CLASSES, OFFICIAL_SIZES, official_spec, transformer_spec

TEN = {"kind": "class", "classes": 10, "dropout": 0.1}
POOLED = {"kind": "text", "encoder": "clip", "width": 24, "pooled": True}
LATTE = {"temporal": "alternating", "frames": 6}
VDIT = {"temporal": "joint", "frames": 6}
WINDOWS = {"temporal": {"kind": "windowed", "window": [2, 2, 3]}, "frames": 4, "height": 64, "columns": 96}
ROPE = {"position": {"kind": "rope"}}


def official_state(spec: Spec, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random values under the official names; the frozen tables over frames as published."""
    shapes = {name: tuple(tensor.shape) for name, tensor in to_official(own_state(spec), spec).items()}
    state = reference.random_state(shapes, dtype=dtype)
    for name in ("temp_embed", "pos_embed_temporal"):
        if name in state:
            state[name] = reference.temporal_sincos(shapes[name][2], shapes[name][1])
    return state


def network_of(spec: Spec) -> reference.Network:
    assert isinstance(spec.backbone, Transformer)
    axes = None
    if isinstance(spec.backbone.position, Rope):
        head = spec.backbone.width // spec.backbone.heads
        side = 3 * head // 8 // 2 * 2
        axes = spec.backbone.position.axes or (head - 2 * side, side, side)
    theta = spec.backbone.position.theta if isinstance(spec.backbone.position, Rope) else 1e4
    window = spec.temporal.window if isinstance(spec.temporal, Windowed) else None
    return reference.Network(
        *(spec.backbone.heads, spec.patch.space, spec.patch.time, spec.temporal.kind, window), rope=axes, theta=theta
    )


def inputs_of(spec: Spec, frames: int | None = None, batch: int = 2) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    shapes = derive_shapes(spec)
    size = (batch, shapes.channels, frames or shapes.latent_frames, shapes.latent_height, shapes.latent_width)
    latents = torch.randn(size, generator=generator)
    time = torch.tensor([999.0, 0.37])[:batch]
    match spec.condition.kind:
        case "class":
            return latents, time, torch.tensor([spec.condition.classes, 3])[:batch]
        case "text":
            return latents, time, torch.randn(batch, spec.condition.width, generator=generator)
        case _:
            return latents, time, None


def relative(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()


CASES: dict[str, tuple[dict[str, Any], int | None]] = {
    "dit": ({"condition": TEN}, None),
    "unconditional": ({}, None),
    "no variance": ({"learn_sigma": False}, None),
    "sit": ({"condition": TEN, "objective": {"kind": "interpolant"}}, None),
    "wide": ({"height": 64, "columns": 96}, None),
    "tall, patch 4": ({"height": 96, "columns": 64, "patch": (1, 4)}, None),
    "mlp ratio": ({"mlp_ratio": 2.5}, None),
    "qk norm": ({"qk_norm": True}, None),
    "no position": ({"position": {"kind": "none"}}, None),
    "rope": (ROPE | {"height": 64, "columns": 96}, None),
    "image model on frames": ({"frames": 3, "condition": TEN}, None),
    "latte": (LATTE | {"condition": TEN}, None),
    "latte, shorter clip": (LATTE, 1),
    "latte, longer clip": (LATTE, 9),
    "latte, odd depth": (LATTE | {"depth": 3}, None),
    "latte, rope, qk norm": (LATTE | ROPE | {"qk_norm": True, "columns": 96}, 4),
    "latte, no position": (LATTE | {"position": {"kind": "none"}}, None),
    "latte, patch of 2 frames": (LATTE | {"patch": (2, 2)}, 8),
    "vdit": (VDIT | {"condition": POOLED}, None),
    "vdit, patch of 2 frames": (VDIT | {"patch": (2, 2), "columns": 96}, None),
    "vdit, longer clip": (VDIT, 8),
    "vdit, rope": (VDIT | ROPE | {"columns": 96}, 5),
    "windows, masked full attention in the reference": (WINDOWS, None),
    "windows, odd depth, another clip": (WINDOWS | {"depth": 3}, 6),
    "windows, rope, qk norm": (WINDOWS | ROPE | {"qk_norm": True}, 6),
    "windows, patch of 2 frames": (WINDOWS | {"patch": (2, 2), "frames": 8}, None),
    "windows of one token": (WINDOWS | ROPE | {"temporal": {"kind": "windowed", "window": [1, 1, 1]}}, None),
    "vdit, rope with given axes": (VDIT | {"position": {"kind": "rope", "axes": [2, 6, 4], "theta": 100.0}}, None),
}


@pytest.mark.parametrize(("changes", "frames"), CASES.values(), ids=CASES.keys())
def test_forward_equals_the_reference(changes: dict[str, Any], frames: int | None) -> None:
    spec = transformer_spec(**changes)
    state = official_state(spec)
    model = build_denoiser(spec)
    model.load_state_dict(from_official(state, spec), strict=True)
    latents, time, condition = inputs_of(spec, frames)
    with torch.no_grad():
        got = model(latents, time, condition)
        expected = reference.forward(state, network_of(spec), latents, time, condition)
    assert got.shape == expected.shape
    assert expected.std() > 0.1  # the comparison is about something
    assert relative(got, expected) < 1e-5
    assert (got - expected).abs().max() < 1e-5 * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize("size", ["B/2", pytest.param("XL/2", marks=pytest.mark.slow)])
def test_dit_in_full_size_equals_the_reference(size: str) -> None:
    """A random state dict in the official layout, strictly loaded, and one forward."""
    depth, width, heads = OFFICIAL_SIZES[size]
    spec = official_spec(size, condition=CLASSES)
    state = reference.random_state(reference.layout(depth, width, 256, label_rows=1001))
    with torch.device("meta"):
        model = build_denoiser(spec)
    model.to_empty(device="cpu").load_state_dict(from_official(state, spec), strict=True, assign=True)
    latents, time, label = inputs_of(spec, batch=1)
    with torch.no_grad():
        got = model(latents, time, label)
        expected = reference.forward(state, reference.Network(heads), latents, time, label)
    assert relative(got, expected) < 1e-5


def test_gradients_equal_the_references_in_float64() -> None:
    spec = transformer_spec(depth=2, condition=TEN, qk_norm=True)
    # Weights are read as float32, so both sides hold float32's values; gradients are compared in all digits.
    state = {name: value.double() for name, value in official_state(spec).items()}
    model = build_denoiser(spec).double()
    model.load_state_dict(from_official(state, spec))
    latents, time, label = inputs_of(spec)
    latents = latents.double()
    model(latents, time, label).square().sum().backward()
    leaves = {name: value.clone().requires_grad_() for name, value in state.items() if name != "pos_embed"}
    frozen = {"pos_embed": state["pos_embed"]}
    reference.forward(leaves | frozen, network_of(spec), latents, time, label).square().sum().backward()
    gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    leading = {name: value.float().double() for name, value in gradients.items()}
    rest = {name: value - leading[name] for name, value in gradients.items()}
    parts = [from_official(part | frozen, spec) for part in (leading, rest)]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        expected = parts[0][name].double() + parts[1][name].double()
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-9, atol=1e-9, msg=name)


# Conventions, one perturbation each.


def test_time_embedding_is_cosines_first_and_float32_in_any_dtype() -> None:
    embed = TimeEmbedding(256)
    with torch.no_grad():
        for linear in (embed.fc1, embed.fc2):
            linear.weight.copy_(torch.eye(256))
            linear.bias.zero_()
    time = torch.tensor([0.0, 0.5, 999.0])
    rates = torch.tensor([1e4 ** (-i / 128) for i in range(128)], dtype=torch.float64)
    angles = time.double()[:, None] * rates
    wave = torch.cat([angles.cos(), angles.sin()], dim=1)
    silu = wave / (1 + (-wave).exp())
    torch.testing.assert_close(embed(time).double(), silu, rtol=0, atol=1e-4)
    assert embed(time)[0, :128].eq(embed(time)[0, 0]).all()  # cos 0 in the first half
    half = embed.bfloat16()(time)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), silu, rtol=0, atol=1e-2)  # rates in bfloat16 would be off by whole turns


def test_spatial_table_is_the_published_one() -> None:
    torch.testing.assert_close(spatial_table(64, 3, 5), reference.sincos_2d(64, 3, 5), rtol=0, atol=1e-7)
    table = spatial_table(64, 3, 5).reshape(3, 5, 64)
    assert torch.equal(table[0, 4, :32], table[2, 4, :32])  # the first half tells the column
    assert torch.equal(table[2, 0, 32:], table[2, 4, 32:])  # the second the row
    assert torch.equal(table[0, 0, :16], torch.zeros(16))  # and each is sines before cosines
    torch.testing.assert_close(temporal_table(32, 7), reference.temporal_sincos(32, 7), rtol=0, atol=1e-7)


def test_rope_turns_complex_pairs_and_knows_only_distances() -> None:
    axes = rope_axes(Rope(kind="rope"), 72)
    assert axes == (20, 26, 26)
    assert rope_axes(Rope(kind="rope"), 64) == (16, 24, 24)
    rope = Rope3d(axes, 10_000.0, (512, 4, 6))
    q = torch.randn(1, 1, 3 * 24, 72)
    places = [(f, r, c) for f in range(3) for r in range(4) for c in range(6)]
    network = reference.Network(heads=1, rope=axes)
    expected = reference.rope_turn(q, reference.rope_angles(network, places))
    torch.testing.assert_close(rotate(q, rope.joint(3, torch.float32)), expected, rtol=0, atol=1e-5)
    same = torch.randn(72).expand(1, 1, 3 * 24, 72)
    turned = rotate(same, rope.joint(3, torch.float32))[0, 0]
    scores = (turned @ turned.T).reshape(3, 4, 6, 3, 4, 6)
    torch.testing.assert_close(scores[0, 1, 2, 1, 2, 4], scores[1, 2, 3, 2, 3, 5], rtol=1e-4, atol=1e-4)


def loaded(spec: Spec, state: dict[str, Tensor]) -> Any:
    model = build_denoiser(spec)
    model.load_state_dict(from_official(state, spec))
    return model


@pytest.mark.parametrize("part", range(3), ids=["q", "k", "v"])
def test_rows_of_qkv_are_queries_then_keys_then_values(part: int) -> None:
    spec = transformer_spec(depth=1)
    state = official_state(spec)
    width = 48
    model = loaded(spec, state).blocks[0].attention
    x = torch.randn(1, 16, width)
    weight, bias = state["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.bias"]
    q, k, v = (
        (x @ weight[i : i + width].T + bias[i : i + width]).reshape(1, 16, 4, 12).transpose(1, 2)
        for i in (0, width, 2 * width)
    )
    split = reference.softmax_attention(q, k, v).transpose(1, 2).reshape(1, 16, width)
    split = split @ state["blocks.0.attn.proj.weight"].T + state["blocks.0.attn.proj.bias"]
    with torch.no_grad():
        torch.testing.assert_close(model(x), split, rtol=1e-5, atol=1e-5)
        model.qkv.weight[part * width : (part + 1) * width] *= 1.5
        assert not torch.allclose(model(x), split, atol=1e-3)


@pytest.mark.parametrize(
    ("chunk", "effect"),
    list(enumerate(["shift_msa", "scale_msa", "gate_msa", "shift_mlp", "scale_mlp", "gate_mlp"])),
)
def test_order_of_the_modulation(chunk: int, effect: str) -> None:
    """One perturbed row changes what its name says: with all else zero, only gates let anything through."""
    spec = transformer_spec(depth=1)
    block: Any = loaded(spec, official_state(spec)).blocks[0]
    width, c, x = 48, torch.zeros(1, 48), torch.randn(1, 1, 16, 48)
    gates = {"msa": 2, "mlp": 5}
    with torch.no_grad():
        block.modulation.weight.zero_()
        block.modulation.bias.zero_()
        torch.testing.assert_close(block(x, c), x)
        branch = effect.split("_")[1]
        block.modulation.bias[gates[branch] * width : (gates[branch] + 1) * width] = 1.0
        normal = torch.nn.functional.layer_norm(x, (width,), eps=1e-6)
        run = partial(attend, WithinFrames(), block.attention) if branch == "msa" else lambda y, _: block.mlp(y)
        torch.testing.assert_close(block(x, c), x + run(normal, None))
        block.modulation.bias[chunk * width + 7] += 0.5
        bumped = torch.zeros(width).index_fill(0, torch.tensor([7]), 0.5)
        expected = {
            "shift": lambda: x + run(normal + bumped, None),
            "scale": lambda: x + run(normal * (1 + bumped), None),
            "gate": lambda: x + (1 + bumped) * run(normal, None),
        }[effect.split("_")[0]]()
        torch.testing.assert_close(block(x, c), expected)


@pytest.mark.parametrize(("patch", "frames"), [((1, 2), 1), ((2, 2), 4), ((1, 4), 2)])
def test_patches_come_back_channel_last(patch: tuple[int, int], frames: int) -> None:
    """Cut a clip into patches with loops, channel last; the head's reshape must restore the clip."""
    spec = transformer_spec(patch=patch, frames=frames, temporal="joint", columns=96, learn_sigma=False)
    model: Any = build_denoiser(spec)
    t, p = patch
    clip = torch.randn(1, 4, frames, 8, 12)
    inside = [(i, j, k) for i in range(t) for j in range(p) for k in range(p)]
    corners = [(f, r, c) for f in range(0, frames, t) for r in range(0, 8, p) for c in range(0, 12, p)]
    cut = [torch.stack([clip[0, :, f + i, r + j, c + k] for i, j, k in inside]).flatten() for f, r, c in corners]
    tokens = torch.stack(cut).reshape(1, frames // t, (8 // p) * (12 // p), -1)
    head = model.patch_out
    head.norm = head.proj = torch.nn.Identity()
    head.modulation = torch.nn.Linear(48, 2 * tokens.shape[-1])
    torch.nn.init.zeros_(head.modulation.weight)
    torch.nn.init.zeros_(head.modulation.bias)
    torch.testing.assert_close(head(tokens, torch.zeros(1, 48)), clip)


def test_sit_keeps_the_second_half_of_its_channels() -> None:
    """The published head has 2·C channels under an interpolant too; dropping the second half is the loss's business."""
    spec = official_spec("XL/2", condition=CLASSES, objective={"kind": "interpolant"})
    assert own_state(spec)["patch_out.proj.weight"].shape == (32, 1152)
    small = transformer_spec(objective={"kind": "interpolant"})
    assert build_denoiser(small)(*inputs_of(small)).shape[1] == 8
