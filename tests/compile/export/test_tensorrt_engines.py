"""Engines built ahead of time by the real TensorRT-RTX compiler, and what is said where there is none or no GPU."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import sora_spec.compile.export.engines as engines
import sora_spec.compile.export.tensorrt_build as tensorrt_build
from sora_spec.builders.diffusion.torch_arrays import TorchArrays
from sora_spec.cli.export import export
from sora_spec.compile.bundle.bundle import Bundle
from sora_spec.compile.bundle.contract import decoder_contract, engine_profile
from sora_spec.compile.bundle.manifest import Profile
from sora_spec.compile.export.targets import compute_capability
from sora_spec.compile.run.executors.tensorrt_stage import (
    DeviceEngineStage,
    HostEngineStage,
    load_engines,
    within_profile,
)
from sora_spec.errors import UserError
from sora_spec.language.packaged import install_command

needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="needs the extra [rtx]")


@pytest.fixture(scope="module")
def built(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with engines for an RTX 4090 and an A6000, through the command line's own function."""
    path = Path(shutil.copytree(tiny_bundle.path, tmp_path_factory.mktemp("engines") / "bundle"))
    export(path, trt=True, target=["rtx4090", "A6000"], check=True)
    return Bundle.open(path)


@needs_rtx
def test_engines_of_all_parts_for_both_gpus(built: Bundle) -> None:
    assert [(engine.sm, engine.part) for engine in built.manifest.engines] == [
        ("sm89", "denoiser"),
        ("sm89", "vae_decoder"),
        ("sm86", "denoiser"),
        ("sm86", "vae_decoder"),
    ]
    for engine in built.manifest.engines:
        content = (built.path / engine.path).read_bytes()
        assert len(content) > 10_000
        assert engine.path == f"engines/{engine.sm}/rtx-{engine.version}/{engine.part}.engine"
        (record,) = [file for file in built.manifest.files if file.path == engine.path]
        assert (record.bytes, record.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        settings = json.loads((built.path / engine.path).with_suffix(".json").read_text())
        assert settings["key"] == engine.key
        assert settings["profile"]["max"]["latents"] == (
            [4, 4, 3, 8, 12] if engine.part == "denoiser" else [2, 4, 3, 8, 12]
        )


@needs_rtx
def test_unchanged_engines_are_not_built_again(built: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "build_engine", lambda *_: pytest.fail("built again"))
    before = (built.path / "manifest.json").read_bytes()
    export(built.path, trt=True, target=["rtx4090"])
    assert (built.path / "manifest.json").read_bytes() == before


@needs_rtx
def test_engines_of_a_replaced_bundle_serve_again(
    built: Bundle, tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "build_engine", lambda *_: pytest.fail("built again"))
    fresh = Bundle.open(shutil.copytree(tiny_bundle.path, tmp_path / "fresh"))
    engines.add_engines(fresh, ["rtx4090"], earlier=built)
    assert [engine.key for engine in fresh.manifest.engines] == [engine.key for engine in built.manifest.engines[:2]]
    Bundle.open(fresh.path, verify=True)


@needs_rtx
def test_engine_key_follows_everything_it_depends_on(built: Bundle) -> None:
    spec = built.load_spec()
    compiler = tensorrt_build.choose_compiler(89)
    profile = engine_profile(spec, "denoiser")
    wider = engine_profile(built.load_spec(["export.batch=[1,4]"]), "denoiser")
    request = tensorrt_build.EngineRequest(built.path / "denoiser.onnx", ("a", "b"), profile, 89)
    others = [
        tensorrt_build.EngineRequest(request.onnx, ("a", "c"), profile, 89),
        tensorrt_build.EngineRequest(request.onnx, ("a", "b"), wider, 89),
        tensorrt_build.EngineRequest(request.onnx, ("a", "b"), profile, 86),
    ]
    keys = {request.key(compiler), *(other.key(compiler) for other in others)}
    assert len(keys) == 4
    moved = tensorrt_build.EngineRequest(Path("elsewhere.onnx"), ("a", "b"), profile, 89)
    assert moved.key(compiler) == request.key(compiler)


@needs_rtx
def test_edited_engine_is_refused_when_it_is_loaded(built: Bundle, tmp_path: Path) -> None:
    bundle = Bundle.open(shutil.copytree(built.path, tmp_path / "copy"))
    engine = bundle.manifest.engines[0]
    content = bytearray((bundle.path / engine.path).read_bytes())
    content[-1] ^= 1
    (bundle.path / engine.path).write_bytes(content)
    with pytest.raises(UserError, match="was edited"):
        Bundle.open(bundle.path).check_engine(engine)


def save_model(path: Path, nodes: list[Any], inputs: dict[str, list[Any]], output: list[Any], opset: int) -> Profile:
    """Write a small float model; returns a profile of batch 1 to 2."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, output)
    graph = helper.make_graph(nodes, "graph", values, [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    small = {name: (1, *shape[1:]) for name, shape in inputs.items()}
    large = {name: (2, *shape[1:]) for name, shape in inputs.items()}
    return Profile(min=small, opt=large, max=large)


@needs_rtx
def test_refused_op_is_named(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Det", ["y"], ["result"], name="the_determinant")]
    profile = save_model(path, nodes, {"x": ["batch", 4, 4]}, ["batch"], opset=20)
    compiler = tensorrt_build.choose_compiler(89)
    with pytest.raises(UserError, match=r"the_determinant \(Det\): is not supported"):
        tensorrt_build.build_engine(tensorrt_build.EngineRequest(path, ("a",), profile, 89), compiler)
    assert tensorrt_build.unsupported_nodes(path, compiler) == ["the_determinant (Det): is not supported"]


@needs_rtx
def test_builder_says_why_it_fails(tmp_path: Path) -> None:
    """fp32 attention as one op has no fused kernel: the reason why fp32 is exported at opset 20."""
    path = tmp_path / "graph.onnx"
    inputs = {name: ["batch", 2, 16, 32] for name in ("q", "k", "v")}
    node = helper.make_node("Attention", list(inputs), ["result"], name="attention")
    profile = save_model(path, [node], inputs, ["batch", 2, 16, 32], opset=23)
    request = tensorrt_build.EngineRequest(path, ("a",), profile, 89)
    with pytest.raises(UserError, match=r"cannot build graph\.onnx for sm89: .*[Aa]ttention"):
        tensorrt_build.build_engine(request, tensorrt_build.choose_compiler(89))


@pytest.mark.parametrize(
    ("name", "sm"),
    [
        ("rtx4090", 89),
        ("RTX 4090", 89),
        ("NVIDIA GeForce RTX 4090", 89),
        ("4090", 89),
        ("a6000", 86),
        ("RTX A6000", 86),
        ("rtx3090", 86),
        ("a100-80gb", 80),
        ("a100-40gb", 80),
        ("l40s", 89),
        ("rtx5090", 120),
        ("sm86", 86),
    ],
)
def test_gpu_names(name: str, sm: int) -> None:
    assert compute_capability(name) == sm


def test_unknown_gpu_is_refused_with_a_guess() -> None:
    with pytest.raises(UserError, match="unknown GPU 'rtx4900'") as failure:
        compute_capability("rtx4900")
    assert failure.value.hint is not None
    assert "did you mean rtx4090?" in failure.value.hint


def test_gpu_without_ahead_of_time_target_names_command_and_machine() -> None:
    with pytest.raises(UserError, match="no ahead-of-time target sm90") as failure:
        tensorrt_build.choose_compiler(90)
    assert "sora-spec export BUNDLE --trt --target sm90" in str(failure.value.hint)


def test_without_tensorrt_the_message_says_what_to_run_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_build.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="no TensorRT here that can build for sm89") as failure:
        tensorrt_build.choose_compiler(89)
    assert install_command("rtx") in str(failure.value.hint)
    assert "sora-spec export BUNDLE --trt --target sm89" in str(failure.value.hint)


def test_engines_need_a_device(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import sora_spec.compile.run.executors.tensorrt_stage as stage

    monkeypatch.setattr(stage, "local_compute_capability", lambda: None)
    with pytest.raises(UserError, match="no CUDA device or no driver"):
        load_engines(tiny_bundle, tiny_bundle.load_spec())
    monkeypatch.setattr(stage, "local_compute_capability", lambda: 75)
    with pytest.raises(UserError, match="no engine of denoiser, vae_decoder for sm75") as failure:
        load_engines(tiny_bundle, tiny_bundle.load_spec())
    assert "--trt --target sm75" in str(failure.value.hint)


class HostMemory:
    """Device memory on the host: addresses are keys, and use after free is an error."""

    stream = 7

    def __init__(self) -> None:
        self.buffers: dict[int, bytearray] = {}
        self.given = 0

    def allocate(self, size: int) -> int:
        self.given += 1
        self.buffers[self.given] = bytearray(size)
        return self.given

    def free(self, address: int) -> None:
        del self.buffers[address]

    def upload(self, address: int, value: np.ndarray[Any, Any]) -> None:
        assert value.nbytes <= len(self.buffers[address])
        self.buffers[address][: value.nbytes] = value.tobytes()

    def download(self, address: int, out: np.ndarray[Any, Any]) -> None:
        out[...] = np.frombuffer(self.buffers[address][: out.nbytes], out.dtype).reshape(out.shape)


class DoublingEngine:
    """Stands for an engine and its context: video = 2·latents, as three channels."""

    def __init__(self, memory: HostMemory) -> None:
        self.memory = memory
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def create_execution_context(self) -> DoublingEngine:
        return self

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "latents"
        self.shape = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert name == "video"
        return self.shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == self.memory.stream
        values = np.frombuffer(self.memory.buffers[self.addresses["latents"]], np.float32)
        count = int(np.prod(self.shape))
        self.memory.buffers[self.addresses["video"]][: 4 * count] = (2 * values[:count]).tobytes()
        return True


def test_engine_stage_moves_arrays_through_device_buffers(toys: Any) -> None:
    spec = toys.spec(vae={"kind": "identity"}, clip={"frames": 3, "height": 8, "width": 12}, export={"batch": [1, 4]})
    memory = HostMemory()
    contract = within_profile(decoder_contract(spec), engine_profile(spec, "vae_decoder"))
    stage = HostEngineStage(memory, "vae_decoder", lambda: DoublingEngine(memory), contract, "stand-in")
    for batch in (2, 4, 1):
        latents = np.random.default_rng(batch).standard_normal((batch, 3, 3, 8, 12), np.float32)
        np.testing.assert_array_equal(stage.run({"latents": latents})["video"], 2 * latents)
    assert len(memory.buffers) == 2, "buffers are kept and replaced by larger ones"
    assert memory.given == 4
    with pytest.raises(UserError, match="takes 1 to 4 batch"):
        stage.run({"latents": np.zeros((5, 3, 3, 8, 12), np.float32)})
    with pytest.raises(UserError, match="takes 1 to 3 frames"):
        stage.run({"latents": np.zeros((1, 3, 4, 8, 12), np.float32)})


class AddressedEngine(DoublingEngine):
    """The same over plain addresses of this process's memory."""

    def __init__(self) -> None:
        super().__init__(HostMemory())

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 0
        source, target = (
            np.ctypeslib.as_array(ctypes.cast(self.addresses[name], ctypes.POINTER(ctypes.c_float)), self.shape)
            for name in ("latents", "video")
        )
        target[...] = 2 * source
        return True


def test_engine_stage_reads_and_writes_tensors_where_they_are(toys: Any) -> None:
    spec = toys.spec(vae={"kind": "identity"}, clip={"frames": 3, "height": 8, "width": 12}, export={"batch": [1, 4]})
    contract = within_profile(decoder_contract(spec), engine_profile(spec, "vae_decoder"))
    arrays = TorchArrays(torch.device("cpu"))
    stage = DeviceEngineStage(arrays, "vae_decoder", AddressedEngine, contract, "stand-in")
    latents = torch.randn(2, 3, 3, 8, 12)
    found = stage.compute({"latents": latents})["video"]
    torch.testing.assert_close(found, 2 * latents, rtol=0, atol=0)
    np.testing.assert_array_equal(stage.run({"latents": latents.numpy()})["video"], 2 * latents.numpy())
