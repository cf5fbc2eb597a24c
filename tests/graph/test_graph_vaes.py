"""VAEs whole, in tiles and one latent frame at a time: the graph equals PyTorch's trace of the real modules."""

from __future__ import annotations

from typing import Any

import pytest

from sora_spec.builders.trace.compare import compare
from sora_spec.graph import Component, Setting, count, graph_from_spec, memory
from sora_spec.language.loading import spec_from_values
from sora_spec.language.schema.spec import Spec

IMAGE = {
    "kind": "image_kl",
    "compression": {"space": 4},
    "width": 8,
    "multipliers": [1, 2, 2],
    "blocks": 1,
    "groups": 4,
}
CAUSAL = {
    "kind": "causal3d",
    "compression": {"time": 4, "space": 8},
    "channels": 4,
    "width": 4,
    "multipliers": [1, 2, 2, 4],
    "blocks": 1,
}
VAES: list[Component] = ["vae_encode", "vae_decode"]


def spec_of(vae: dict[str, Any], frames: int = 9, height: int = 64, width: int = 96, **changes: Any) -> Spec:
    return spec_from_values(
        {
            "version": 1,
            "name": "pieces",
            "clip": {"frames": frames, "height": height, "width": width},
            "vae": vae | changes,
            "patch": {"time": 1, "space": 1},
            "backbone": {"kind": "transformer", "depth": 1, "width": 16, "heads": 2, "learn_sigma": False},
            "objective": {"kind": "interpolant"},
            "sampler": {"kind": "euler"},
        }
    )


def tiled(tile: int, overlap: int) -> dict[str, Any]:
    return {"kind": "spatial", "tile": tile, "overlap": overlap}


def agree(spec: Spec, component: Component, setting: Setting) -> None:
    found = compare(spec, component, setting)
    assert found.divergence is None
    assert [row for row in found.rows if not row.equal] == []


@pytest.mark.parametrize("component", VAES)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("tiling", [(32, 16), (64, 0), (64, 16), (128, 32)], ids=str)
@pytest.mark.parametrize("vae", [IMAGE, CAUSAL], ids=["image_kl", "causal3d"])
def test_tiles_equal_the_trace(vae: dict[str, Any], tiling: tuple[int, int], batch: int, component: Component) -> None:
    setting = Setting(batch=batch, attention="efficient", rounding=512 if batch == 2 else 1)
    agree(spec_of(vae, tiling=tiled(*tiling)), component, setting)


@pytest.mark.parametrize("component", VAES)
@pytest.mark.parametrize("frames", [1, 5, 9, 13, 17, 33])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_streaming_equals_the_trace(component: Component, frames: int, precision: Any) -> None:
    """From three middle pieces on, one stands for all of them; the trace runs every one."""
    agree(spec_of(CAUSAL, frames, 32, 32, streaming=True), component, Setting(batch=2, precision=precision))


@pytest.mark.parametrize("component", VAES)
@pytest.mark.parametrize("time", [1, 2])
def test_tiled_streaming_equals_the_trace(component: Component, time: int) -> None:
    vae = CAUSAL | {"compression": {"time": time, "space": 8}, "channels": 1}
    agree(spec_of(vae, 1 + 4 * time, 64, 64, streaming=True, tiling=tiled(48, 16)), component, Setting())


@pytest.mark.parametrize("component", VAES)
def test_streaming_does_the_arithmetic_of_the_whole_in_less_memory(component: Component) -> None:
    whole, streamed = (graph_from_spec(spec_of(CAUSAL, 33, streaming=streams), component) for streams in (False, True))
    assert count(streamed).forward_flops == count(whole).forward_flops
    assert memory(streamed).peak_bytes < memory(whole).peak_bytes / 2
    assert memory(streamed).parameter_bytes == memory(whole).parameter_bytes


@pytest.mark.parametrize("component", VAES)
@pytest.mark.parametrize(("height", "width"), [(32, 112), (112, 32), pytest.param(112, 176, marks=pytest.mark.slow)])
@pytest.mark.parametrize("vae", [IMAGE, CAUSAL | {"streaming": True}], ids=["image_kl", "causal3d"])
def test_one_tile_stands_for_all_like_it(vae: dict[str, Any], height: int, width: int, component: Component) -> None:
    spec = spec_of(vae, 9, height, width, tiling=tiled(32, 16))
    graph, full = (graph_from_spec(spec, component, Setting(batch=2, full=each)) for each in (False, True))
    assert len(graph.ops) < 0.8 * len(full.ops)
    assert count(graph) == count(full)
    assert memory(graph, itemise=False) == memory(full, itemise=False)
    agree(spec, component, Setting(attention="efficient"))


PERCEPTUAL = {"perceptual": {"kind": "lpips", "weights": "nowhere"}}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("vae", [IMAGE, CAUSAL], ids=["image_kl", "causal3d"])
def test_perceptual_training_equals_the_trace(vae: dict[str, Any], batch: int, precision: Any) -> None:
    spec = spec_of(vae, 5, 32, 48, training=PERCEPTUAL)
    agree(spec, "vae_step", Setting(batch=batch, precision=precision, attention="efficient"))


def test_vgg_has_the_parameters_of_its_paper() -> None:
    """14,714,688 in the convolutions of VGG-16 (torchvision), and the five heads' 1,472."""
    graphs = [graph_from_spec(spec_of(IMAGE, training=each), "vae_step") for each in ({}, PERCEPTUAL)]
    plain, perceptual = (sum(r.numel for r in graph.residents if r.role == "buffer") for graph in graphs)
    assert perceptual - plain == 14_714_688 + 1_472 + 6
    assert count(graphs[0]).parameters == count(graphs[1]).parameters
