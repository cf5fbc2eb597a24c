"""Exported graphs against eager modules, with ONNX's own checker and ONNX Runtime as judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

import sora_spec.compile.export.onnx_export as exporting
from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.vae.from_spec import build_vae
from sora_spec.builders.weights.run import load_denoiser
from sora_spec.builders.weights.vae_run import load_vae
from sora_spec.compile.bundle.bundle import Bundle
from sora_spec.compile.bundle.contract import Contract, contract_of
from sora_spec.compile.bundle.manifest import Port, Profile, Range
from sora_spec.compile.export.exporter import ExportSettings, export_run
from sora_spec.compile.export.graph_modules import DecoderGraph, DenoiserGraph
from sora_spec.compile.export.onnx_export import export_onnx
from sora_spec.compile.export.parity import plan_comparison
from sora_spec.compile.run.executors.onnx_stage import OnnxStage
from sora_spec.compile.run.executors.tensorrt_stage import within_profile
from sora_spec.disk.run_folder import RunFolder
from sora_spec.language.schema.spec import Spec

PLAIN = {"position": {"kind": "sincos"}, "qk_norm": False, "depth": 1}
IMAGE = {"vae": {"kind": "identity"}, "clip": {"frames": 1, "height": 8, "width": 12, "fps": 8}}
DENOISERS: dict[str, dict[str, Any]] = {
    "joint-sincos-ddpm": {
        **IMAGE,
        "clip": {"frames": 4, "height": 8, "width": 12, "fps": 8},
        "temporal": {"kind": "joint"},
        "backbone_with": PLAIN | {"learn_sigma": True},
        "objective": {"kind": "ddpm"},
        "sampler": {"kind": "ddim", "steps": 4},
    },
    "joint-rope-patch2": {
        **IMAGE,
        "clip": {"frames": 4, "height": 8, "width": 12, "fps": 8},
        "patch": {"time": 2, "space": 4},
        "temporal": {"kind": "joint"},
        "backbone_with": {"depth": 1},
    },
    "none-sincos-unconditional": {
        **IMAGE,
        "temporal": {"kind": "none"},
        "condition": {"kind": "none"},
        "sampler": {"kind": "euler"},
        "backbone_with": PLAIN,
    },
}
IMAGE_KL = {
    "kind": "image_kl",
    "compression": {"time": 1, "space": 2},
    "width": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "groups": 4,
}
REFUSED_BY_TENSORRT = {"SplitToSequence", "SequenceAt", "SequenceConstruct", "ConcatFromSequence", "Loop", "If"}


def check_graph(path: Path) -> None:
    """ONNX's full check, strict shape inference, no op that TensorRT refuses."""
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert not {node.op_type for node in model.graph.node} & REFUSED_BY_TENSORRT
    assert model.ir_version == 10
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [20]


def run_session(session: onnxruntime.InferenceSession, inputs: list[Any]) -> NDArray[Any]:
    """The one output for numpy inputs in the graph's order."""
    names = [port.name for port in session.get_inputs()]
    outputs: list[Any] = list(session.run(None, dict(zip(names, inputs, strict=True))))
    assert len(outputs) == 1
    return outputs[0]


def worst_error(module: torch.nn.Module, path: Path, spec: Spec, lengths: tuple[int, ...]) -> float:
    """Largest relative L2 over batches 1, 2 and 3 and the given numbers of latent frames."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    errors: list[float] = []
    for batch in (1, 2, 3):
        for frames in lengths:
            inputs = []
            for port in session.get_inputs():
                named: dict[Any, int] = {"batch": batch, "frames": frames}
                shape: list[Any] = [named.get(extent, extent) for extent in port.shape]
                if port.type == "tensor(int64)":
                    inputs.append(torch.randint(0, 4, shape, generator=generator))
                else:
                    inputs.append(torch.randn(shape, generator=generator))
            with torch.no_grad():
                wanted = module(*inputs).numpy()
            found = run_session(session, [value.numpy() for value in inputs])
            assert found.shape == wanted.shape
            assert np.abs(wanted).max() > 1e-3, "an output of zeros would prove nothing"
            errors.append(float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted)))
    return max(errors)


@pytest.mark.parametrize("kind", DENOISERS)
def test_denoiser_graph_equals_eager(toys: Any, kind: str, tmp_path: Path) -> None:
    spec = toys.spec(**DENOISERS[kind])
    module = DenoiserGraph(toys.perturb(build_denoiser(spec)).eval())
    path = tmp_path / "denoiser.onnx"
    export_onnx(module, contract_of(spec, "denoiser"), path, opset=20)
    check_graph(path)
    unit = spec.patch.time
    assert worst_error(module, path, spec, (unit, 5 * unit)) <= 1e-4


def test_image_decoder_with_weights_beside_the_graph(
    toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "EXTERNAL_DATA_BYTES", 1024)
    spec = toys.spec(vae=IMAGE_KL)
    module = DecoderGraph(toys.perturb(build_vae(spec)).eval())
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        export_onnx(module, contract_of(spec, "vae_decoder"), tmp_path / folder / "vae_decoder.onnx", opset=20)
    path = tmp_path / "one" / "vae_decoder.onnx"
    check_graph(path)
    assert worst_error(module, path, spec, (1, 4)) <= 1e-4
    assert sorted(file.name for file in path.parent.iterdir()) == ["vae_decoder.onnx", "vae_decoder.onnx.data"]
    assert (path.parent / "vae_decoder.onnx.data").stat().st_size > 10 * 1024
    for file in path.parent.iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), "two exports are equal to the byte"


def test_causal_decoder_and_alternating_denoiser_of_a_bundle(tiny_bundle: Bundle, tiny_run: RunFolder) -> None:
    spec = tiny_bundle.load_spec()
    for name, module in (
        ("denoiser", DenoiserGraph(load_denoiser(tiny_run))),
        ("vae_decoder", DecoderGraph(load_vae(tiny_run))),
    ):
        path = tiny_bundle.path / f"{name}.onnx"
        check_graph(path)
        assert worst_error(module, path, spec, (1, 6)) <= 1e-4


def test_bundle_records_parity_of_every_part(tiny_bundle: Bundle) -> None:
    for part in tiny_bundle.manifest.parts:
        assert part.parity is not None
        shapes = {(case.batch, case.frames) for case in part.parity.cases}
        assert len({batch for batch, _ in shapes}) == 3
        assert len({frames for _, frames in shapes}) == 2
        assert 0 < part.parity.worst <= 1e-4
        assert not part.parity.perturbed


def test_untrained_network_is_measured_on_perturbed_weights(toys: Any, tmp_path: Path) -> None:
    """A fresh adaLN-zero network answers zero: comparing zeros would always pass, or divide by zero."""
    spec = toys.spec(**DENOISERS["none-sincos-unconditional"])
    bundle = export_run(toys.run(tmp_path / "run", spec, perturbed=False), tmp_path / "bundle", ExportSettings())
    parity = bundle.part("denoiser").parity
    assert parity is not None
    assert parity.perturbed
    assert 0 < parity.worst <= 1e-4
    session = onnxruntime.InferenceSession(str(bundle.path / "denoiser.onnx"))
    output = run_session(session, [np.ones((1, 3, 1, 8, 12), np.float32), np.ones(1, np.float32)])
    assert not output.any(), "the bundle holds the run's own weights"
    identity = onnx.load(bundle.path / "vae_decoder.onnx")
    assert [node.op_type for node in identity.graph.node] == ["Identity"]


def test_half_precision_stays_within_its_limit(toys: Any, tmp_path: Path) -> None:
    spec = toys.spec(**DENOISERS["none-sincos-unconditional"])
    run = toys.run(tmp_path / "run", spec)
    bundle = export_run(run, tmp_path / "bundle", ExportSettings(precision="fp16"))
    assert bundle.load_spec().export.precision == "fp16"
    parity = bundle.part("denoiser").parity
    assert parity is not None
    assert 1e-5 < parity.worst < 5e-3
    model = onnx.load(bundle.path / "denoiser.onnx")
    weights = [tensor for tensor in model.graph.initializer if tensor.name.endswith("qkv.weight")]
    assert weights or any(node.op_type == "Attention" for node in model.graph.node)
    assert all(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in weights)
    assert {node.op_type for node in model.graph.node} >= {"Attention"}


class Prompts(torch.nn.Module):
    """A text encoder in miniature: tokens and their mask to features. It sees no frames."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mixed = torch.nn.Embedding(11, 8), torch.nn.Linear(8, 8)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        features = self.table(tokens) * mask.unsqueeze(-1)
        return torch.tanh(self.mixed(features - features.mean(1, keepdim=True)))


def test_a_part_without_frames_is_exported_and_run(toys: Any, tmp_path: Path) -> None:
    ports = [Port(name=name, dtype="int64", shape=("batch", 5)) for name in ("tokens", "mask")]
    context = Port(name="context", dtype="float32", shape=("batch", 5, 8))
    contract, module = Contract(tuple(ports), (context,), {"batch": Range(min=1)}), Prompts().eval()
    path = tmp_path / "encoder.onnx"
    export_onnx(module, contract, path, opset=20)
    check_graph(path)
    assert plan_comparison(toys.spec(), contract, module).lengths == (0,)
    stage = OnnxStage("denoiser", path, contract, cpu_only=True)
    for batch in (1, 2, 3):
        tokens = torch.randint(0, 11, (batch, 5))
        mask = (torch.arange(5) < torch.randint(1, 6, (batch, 1))).long()
        with torch.no_grad():
            wanted = module(tokens, mask).numpy()
        found = stage.run({"tokens": tokens.numpy(), "mask": mask.numpy()})["context"]
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    shapes = [{port.name: (batch, 5) for port in ports} for batch in (1, 2, 4)]
    narrowed = within_profile(contract, Profile(min=shapes[0], opt=shapes[1], max=shapes[2]))
    assert narrowed.axes == {"batch": Range(min=1, max=4)}
