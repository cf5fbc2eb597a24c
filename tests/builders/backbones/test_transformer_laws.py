"""Laws that hold for every transformer: what may see what, in which precision, under which wrapper."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.export import Dim
from torch.utils.checkpoint import checkpoint

from sora_spec.builders.denoiser import Denoiser, build_denoiser
from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from tests.support.transformer_specs import transformer_spec

TEN = {"kind": "class", "classes": 10, "dropout": 0.1}
KINDS = ["none", "joint", "alternating", "factorized"]
POSITIONS = ["sincos", "rope", "none"]


def awake(spec: Spec, seed: int = 0) -> Denoiser:
    """The spec's network with every zero of the initialisation replaced, so that every layer matters."""
    torch.manual_seed(seed)
    model = build_denoiser(spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def video(batch: int = 2, frames: int = 4, side: int = 8, seed: int = 1) -> Tensor:
    return torch.randn(batch, 4, frames, side, side, generator=torch.Generator().manual_seed(seed))


def video_spec(temporal: str | dict[str, Any], position: str = "sincos", **changes: Any) -> Spec:
    return transformer_spec(frames=4, temporal=temporal, position={"kind": position}, **changes)


@pytest.mark.parametrize("temporal", KINDS)
def test_a_sample_does_not_depend_on_its_batch(temporal: str) -> None:
    model = awake(video_spec(temporal, condition=TEN))
    x, time, label = video(3), torch.tensor([0.0, 500.0, 999.0]), torch.tensor([1, 10, 2])
    with torch.no_grad():
        together = model(x, time, label)
        apart = torch.cat([model(x[i : i + 1], time[i : i + 1], label[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("position", POSITIONS)
def test_without_temporal_layers_frames_can_be_permuted(position: str) -> None:
    model = awake(video_spec("none", position))
    x, time, order = video(), torch.tensor([3.0, 700.0]), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        torch.testing.assert_close(model(x[:, :, order], time), model(x, time)[:, :, order], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(x[:, :, 1:2], time), model(x, time)[:, :, 1:2], rtol=1e-5, atol=1e-5)


def frames_that_change(model: Denoiser, changed: int) -> list[bool]:
    x, time = video(1), torch.tensor([300.0])
    other = x.clone()
    other[:, :, changed] += 1
    with torch.no_grad():
        difference = (model(x, time) - model(other, time)).abs().amax(dim=(0, 1, 3, 4))
    return (difference > 1e-4).tolist()


@pytest.mark.parametrize("temporal", ["joint", "alternating", "factorized"])
@pytest.mark.parametrize("position", POSITIONS)
def test_temporal_layers_let_every_frame_see_every_other(temporal: str, position: str) -> None:
    assert frames_that_change(awake(video_spec(temporal, position)), changed=2) == [True] * 4


@pytest.mark.parametrize("position", POSITIONS)
def test_closed_gates_of_temporal_blocks_leave_an_image_model(position: str) -> None:
    model: Any = awake(video_spec("alternating", position))
    with torch.no_grad():
        for block in model.blocks[1::2]:
            block.modulation.weight[2 * 48 : 3 * 48] = block.modulation.bias[2 * 48 : 3 * 48] = 0
            block.modulation.weight[5 * 48 :] = block.modulation.bias[5 * 48 :] = 0
    assert frames_that_change(model, changed=2) == [False, False, True, False]
    if position != "sincos":  # whose table over frames tells them apart even then
        x, time = video(), torch.tensor([3.0, 700.0])
        with torch.no_grad():
            single = torch.cat([model(frame, time) for frame in x.split(1, dim=2)], dim=2)
            torch.testing.assert_close(model(x, time), single, rtol=1e-5, atol=1e-5)


def test_without_positions_a_joint_model_treats_all_tokens_alike() -> None:
    model = awake(video_spec("joint", "none"))
    x, time = video(), torch.tensor([3.0, 700.0])
    with torch.no_grad():
        flipped = model(x.flip(2).roll(2, dims=4), time)
        torch.testing.assert_close(flipped, model(x, time).flip(2).roll(2, dims=4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temporal", KINDS)
@pytest.mark.parametrize("position", POSITIONS)
def test_every_parameter_has_a_gradient(temporal: str, position: str) -> None:
    text = {"kind": "text", "encoder": "clip", "width": 24, "pooled": True}
    model = awake(video_spec(temporal, position, qk_norm=True, condition=text)).train()
    model(video(), torch.tensor([3.0, 700.0]), torch.randn(2, 24)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_clips_may_be_hundreds_of_frames_longer() -> None:
    model = awake(transformer_spec(depth=2, width=16, heads=2, frames=2, height=16, columns=16, temporal="alternating"))
    with torch.no_grad():
        long = model(video(1, 512, side=2), torch.tensor([9.0]))
    assert long.shape == (1, 8, 512, 2, 2)
    assert long.isfinite().all()


def test_another_size_than_the_specs_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"\(4, 4\), the spec's are \(8, 8\)"):
        build_denoiser(transformer_spec(position={"kind": "none"}))(video(side=4), torch.zeros(2))


# Precision and moves.


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("position", POSITIONS)
def test_low_precision_weights_take_and_return_float32(dtype: torch.dtype, position: str) -> None:
    model = awake(video_spec("alternating", position, condition=TEN, qk_norm=True))
    arguments = (video(), torch.tensor([998.0, 999.0]), torch.tensor([1, 2]))
    with torch.no_grad():
        exact, rounded = model(*arguments), copy.deepcopy(model).to(dtype)(*arguments)
    assert rounded.dtype == torch.float32
    assert ((rounded - exact).norm() / exact.norm()).item() < 0.05


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("temporal", KINDS)
def test_a_network_made_on_meta_is_whole_after_loading(temporal: str, position: str) -> None:
    spec = video_spec(temporal, position, condition=TEN)
    model = awake(spec)
    with torch.device("meta"):
        other = build_denoiser(spec)
    other.to_empty(device="cpu").load_state_dict(model.state_dict())
    arguments = (video(frames=6), torch.tensor([3.0, 700.0]), torch.tensor([1, 2]))
    with torch.no_grad():
        assert torch.equal(other(*arguments), model(*arguments))


def test_recomputation_from_outside_changes_nothing() -> None:
    model = awake(video_spec("alternating", "rope")).train()
    arguments = (video(), torch.tensor([3.0, 700.0]))
    model(*arguments).square().mean().backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    for block in model.blocks:
        block.forward = (lambda run: lambda *a: checkpoint(run, *a, use_reentrant=False))(block.forward)
    model(*arguments).square().mean().backward()
    assert all(torch.equal(p.grad, expected[name]) for name, p in model.named_parameters() if p.grad is not None)


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
def test_sharding_with_bf16_compute_equals_a_bf16_module() -> None:
    """Blocks and root wrapped as training does it. The root must not round its inputs: time 999 is no bfloat16."""
    model = awake(video_spec("alternating", "rope", condition=TEN, qk_norm=True))
    arguments = (video(), torch.tensor([998.0, 999.0]), torch.tensor([1, 2]))
    with torch.no_grad():
        expected = copy.deepcopy(model).bfloat16()(*arguments)
    mesh = init_device_mesh("cpu", (1,))
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for unit in [*model.blocks, model]:
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    output = model.train()(*arguments)
    torch.testing.assert_close(output, expected, rtol=1e-2, atol=1e-2)
    output.square().mean().backward()
    assert all(p.dtype == torch.float32 and p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("temporal", "position"),
    [("alternating", "sincos"), ("alternating", "rope"), ("joint", "rope"), ({"kind": "windowed"}, "rope")],
)
def test_export_takes_any_batch_and_any_number_of_frames(temporal: Any, position: str) -> None:
    unit = 1 if isinstance(temporal, str) else 2
    temporal = temporal if isinstance(temporal, str) else temporal | {"window": [unit, 2, 4]}
    model = awake(video_spec(temporal, position, depth=2, condition=TEN, qk_norm=True))
    batch, frames = Dim("batch", min=1, max=64), Dim("units", min=1, max=512 // unit)
    shapes = ({0: batch, 2: unit * frames}, {0: batch}, {0: batch})
    example = (video(2, 3 * unit), torch.tensor([3.0, 700.0]), torch.tensor([1, 2]))
    program = torch.export.export(model, example, dynamic_shapes=shapes).module()
    for size, length in ((1, 1 if unit == 1 else 2 * unit), (3, 7 * unit)):  # `export` sets one window apart, ONNX not
        arguments = (video(size, length), torch.linspace(0, 999, size), torch.arange(size))
        with torch.no_grad():
            torch.testing.assert_close(program(*arguments), model(*arguments), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temporal": "inserted"}, ("`temporal: {kind: inserted}`", "none, joint, alternating, factorized, windowed")),
        ({"conditioning": {"kind": "adaln_lora"}}, ("`backbone.conditioning: {kind: adaln_lora}`", "adaln_zero")),
        ({"position": {"kind": "learned"}}, ("`backbone.position: {kind: learned}`", "sincos, rope, none")),
    ],
)
def test_what_cannot_be_built_is_named(changes: dict[str, Any], words: tuple[str, str]) -> None:
    with pytest.raises(UserError) as caught:
        build_denoiser(transformer_spec(**changes))
    assert words[0] in caught.value.message
    assert words[1] in (caught.value.hint or "")


def test_a_cascade_backbone_is_refused() -> None:
    values = transformer_spec().model_dump() | {"backbone": {"kind": "cascade"}}
    with pytest.raises(UserError, match=r"cannot be built: nothing builds `backbone: \{kind: cascade\}` yet"):
        build_denoiser(Spec.model_validate(values))
