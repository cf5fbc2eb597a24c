"""Generation in tiles, streamed, and with one part at a time: the same clips, on every backend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from sora_spec.builders.weights.vae_run import load_vae
from sora_spec.cli.generate import generate
from sora_spec.compile.bundle.bundle import Bundle
from sora_spec.compile.bundle.contract import decoder_contract, engine_profile
from sora_spec.compile.export.exporter import ExportSettings, export_run
from sora_spec.compile.run.executors.onnx_stage import OnnxStage
from sora_spec.compile.run.executors.opening import open_pipeline
from sora_spec.compile.run.executors.torch_stage import TorchStage
from sora_spec.compile.run.pipeline import Pipeline, with_role
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError

TILING = {"kind": "spatial", "tile": 8, "overlap": 4}
TILED = "vae.tiling={kind: spatial, tile: 8, overlap: 4}"
IMAGE = {
    "kind": "image_kl",
    "compression": {"space": 2},
    "width": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "groups": 4,
}


@pytest.fixture(scope="module")
def tiled_run(toys: Any, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    spec = toys.spec(vae_with={"tiling": TILING, "streaming": True})
    return toys.run(tmp_path_factory.mktemp("runs") / "tiled", spec)


@pytest.fixture(scope="module")
def tiled_bundle(tiled_run: RunFolder) -> Bundle:
    return export_run(tiled_run, tiled_run.path.parent / "tiled-bundle", ExportSettings())


def frames_of(pipeline: Pipeline) -> NDArray[np.uint8]:
    return np.stack([clip.frames for clip in pipeline.generate([0, 1, 2], seed=5)])


def test_a_tiled_run_decodes_as_its_vae_does(tiled_run: RunFolder) -> None:
    """The pipeline tiles over numpy, the VAE over torch; the numbers are the same."""
    pipeline = open_pipeline(tiled_run, tiled_run.load_spec(), "torch")
    latents = np.random.default_rng(0).standard_normal((1, 4, 3, 8, 12)).astype(np.float32)
    with torch.inference_mode():
        wanted = load_vae(tiled_run).decode(torch.from_numpy(latents)).numpy()
    np.testing.assert_array_equal(pipeline.decode(latents, [0], 0), wanted)


def test_a_tiled_bundle_decodes_tiles(tiled_run: RunFolder, tiled_bundle: Bundle) -> None:
    spec = tiled_bundle.load_spec()
    (port,) = tiled_bundle.part("vae_decoder").inputs
    assert port.shape[-2:] == (4, 4) == decoder_contract(spec).inputs[0].shape[-2:]
    tiles, streaming = tiled_bundle.part("vae_decoder").notes
    assert tiles.startswith("decodes one of 15 overlapping tiles")
    assert "vae.streaming is not exported" in streaming
    assert tiled_bundle.part("denoiser").notes == ()
    eager, exported = open_pipeline(tiled_run, spec, "torch"), open_pipeline(tiled_bundle, spec, "onnx")
    wanted, found = frames_of(eager), frames_of(exported)
    assert wanted.shape == (3, 5, 16, 24, 3)
    assert wanted.std() > 5, "a flat video would prove nothing"
    assert np.abs(wanted.astype(int) - found).max() <= 1


def test_tiles_and_streaming_can_be_asked_of_a_run(tiny_run: RunFolder, tiny_bundle: Bundle, tmp_path: Path) -> None:
    """They do not touch the weights, so they need not have been trained with."""
    spec = tiny_run.load_spec()
    whole = open_pipeline(tiny_run, spec, "torch")
    asked = spec.model_copy(update={"vae": spec.vae.model_copy(update={"streaming": True})})
    streamed = open_pipeline(tiny_run, asked, "torch")
    latents = np.random.default_rng(0).standard_normal((1, 4, 3, 8, 12)).astype(np.float32)
    np.testing.assert_allclose(streamed.decode(latents, [0], 0), whole.decode(latents, [0], 0), atol=2e-5)
    generate(tiny_run.path, [TILED, "vae.streaming=true"], count=1, steps=1, out=tmp_path / "clips")
    assert (tmp_path / "clips" / "000-label0-seed0.mp4").is_file()
    with pytest.raises(UserError, match=r"vae\.tiling of a bundle is fixed"):
        generate(tiny_bundle.path, [TILED], count=1)


def test_per_frame_vaes_tile_each_piece_of_a_long_clip(toys: Any, tmp_path: Path) -> None:
    spec = toys.spec(vae=IMAGE | {"tiling": TILING}, clip_with={"frames": 20})
    run = toys.run(tmp_path / "run", spec)
    pipeline = open_pipeline(run, spec, "torch")
    latents = np.random.default_rng(0).standard_normal((1, 4, 20, 8, 12)).astype(np.float32)
    with torch.inference_mode():
        wanted = load_vae(run).decode(torch.from_numpy(latents)).numpy()
    np.testing.assert_allclose(pipeline.decode(latents, [0], 0), wanted, atol=1e-5)


@pytest.mark.parametrize(("asked", "passes"), [(1, [1] * 7), (3, [3, 3, 1]), (16, [7])])
def test_a_clip_is_decoded_in_passes_of_so_many_frames(
    toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int, passes: list[int]
) -> None:
    """As the VAE decodes it whole, but for the order in which a larger batch of convolutions adds up."""
    spec = toys.spec(vae=IMAGE, clip_with={"frames": 7}, export={"decode_frames": asked})
    run = toys.run(tmp_path / "run", spec)
    pipeline = open_pipeline(run, spec, "torch")
    decoder, seen = with_role(pipeline.stages, "decode"), list[int]()

    def watched(inputs: dict[str, NDArray[Any]], inner: Any = decoder.run) -> dict[str, NDArray[Any]]:
        seen.append(inputs["latents"].shape[2])
        return inner(inputs)

    monkeypatch.setattr(decoder, "run", watched)
    latents = np.random.default_rng(0).standard_normal((1, 4, 7, 8, 12)).astype(np.float32)
    with torch.inference_mode():
        wanted = load_vae(run).decode(torch.from_numpy(latents)).numpy()
    np.testing.assert_allclose(pipeline.decode(latents, [0], 0), wanted, atol=1e-5)
    assert seen == passes
    profile = engine_profile(spec, "vae_decoder")
    low, high = (shapes["latents"][2] for shapes in (profile.min, profile.max))
    assert all(low <= frames <= high for frames in seen), "an engine must take every pass"


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_offloaded_clips_have_the_bits_of_resident_ones(backend: Any, tiny_run: RunFolder, tiny_bundle: Bundle) -> None:
    source = tiny_run if backend == "torch" else tiny_bundle
    spec = source.load_spec()
    resident = open_pipeline(source, spec, backend)
    offloaded = open_pipeline(source, spec, backend, offload=True)
    np.testing.assert_array_equal(frames_of(offloaded), frames_of(resident))
    assert offloaded.denoiser.runtime == resident.denoiser.runtime


def loads(monkeypatch: pytest.MonkeyPatch, kind: type) -> list[str]:
    """Opened and closed stages of a kind, in order."""
    found: list[str] = []
    for method in ("_open", "_close"):
        original = getattr(kind, method)

        def noted(stage: Any, method: str = method, original: Any = original) -> None:
            found.append(f"{method[1:]} {stage.name}")
            original(stage)

        monkeypatch.setattr(kind, method, noted)
    return found


@pytest.mark.parametrize("offload", [False, True])
def test_one_part_is_loaded_at_a_time(
    offload: bool, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = loads(monkeypatch, OnnxStage)
    generate(tiny_bundle.path, count=3, steps=1, out=tmp_path / "clips", offload=offload)
    turn = ["open denoiser", "close denoiser", "open vae_decoder", "close vae_decoder"]
    batches = 2  # of the spec's two clips at a time
    assert found == (turn * batches if offload else ["open denoiser", "open vae_decoder"])
    assert json.loads((tmp_path / "clips" / "generate.json").read_text())["offload"] is offload


def test_a_closed_onnx_stage_has_no_session(tiny_bundle: Bundle) -> None:
    pipeline = open_pipeline(tiny_bundle, tiny_bundle.load_spec(), "onnx", offload=True)
    for stage in pipeline.stages:
        assert isinstance(stage, OnnxStage)
        assert stage.session is None
        with stage.using(), stage.using():
            assert stage.session is not None
        assert stage.session is None


def test_eager_stages_wait_on_the_cpu(tiny_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights move to the device and back; `meta` stands for a device of its own."""
    moves: list[tuple[str, str]] = []
    original = nn.Module.to

    def noted(module: nn.Module, device: Any) -> nn.Module:
        moves.append((type(module).__name__, str(device)))
        return original(module, "cpu")

    monkeypatch.setattr(nn.Module, "to", noted)
    pipeline = open_pipeline(tiny_run, tiny_run.load_spec(), "torch", offload=True)
    assert moves == []
    for stage in pipeline.stages:
        assert isinstance(stage, TorchStage)
        stage.device = torch.device("meta")
        with stage.using():
            pass
    assert moves == [
        ("DenoiserGraph", "meta"),
        ("DenoiserGraph", "cpu"),
        ("DecoderGraph", "meta"),
        ("DecoderGraph", "cpu"),
    ]
