"""Run folder, or spec with weights → bundle: all parts exported, checked, measured and described."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch

from sora_spec import output
from sora_spec.builders.vae.from_spec import unset_pieces
from sora_spec.builders.weights.digest import hash_weights
from sora_spec.compile.bundle.bundle import CLASSES, SPEC, Bundle, record_file, write_manifest, writing_bundle
from sora_spec.compile.bundle.contract import contract_of
from sora_spec.compile.bundle.manifest import ExportedPart, Manifest, Parity, Precision, Source
from sora_spec.compile.export.engines import add_engines, plan_targets
from sora_spec.compile.export.graph_loading import load_networks
from sora_spec.compile.export.graph_modules import GraphModule, cast_weights
from sora_spec.compile.export.onnx_export import OPSETS, ExportedGraph, export_onnx
from sora_spec.compile.export.parity import answers_zero, measure_parity, plan_comparison
from sora_spec.compile.run.executors.onnx_stage import OnnxStage, import_onnxruntime
from sora_spec.compile.run.executors.opening import source_spec
from sora_spec.compile.run.executors.spec_source import SpecSource
from sora_spec.compile.run.executors.torch_stage import TorchStage
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from sora_spec.language.loading import dump_spec
from sora_spec.language.schema.spec import Spec
from sora_spec.language.tiles import cut_of, streams
from sora_spec.recipe.parts import ROLES, GraphName, graph_parts

PACKAGES = ("sora-spec", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy")


@dataclass(frozen=True)
class ExportSettings:
    """What the command line asks of an export."""

    precision: Precision | None = None
    """In place of the spec's `export.precision`."""
    ema: bool = True
    force: bool = False
    targets: tuple[str, ...] = ()
    """GPUs to build engines for."""


class Module(NamedTuple):
    """One part's module in fp32."""

    name: GraphName
    module: GraphModule


def export_run(source: RunFolder | SpecSource, target: Path, settings: ExportSettings) -> Bundle:
    """Export all parts of `source` into the bundle `target`, which appears whole or not at all.

    Raises UserError when a part has no weights, cannot be traced, or differs from eager by more than the limit.
    """
    overrides = [f"export.precision={settings.precision}"] if settings.precision else []
    spec = source_spec(source, overrides)
    import_onnxruntime()
    plan_targets(settings.targets)
    with writing_bundle(target, settings.force) as folder:
        networks = load_networks(source, settings.ema)
        unset_pieces(networks.vae)  # the graph decodes one tile, of whole length
        modules = [Module(part.name, networks.graph(part.name)) for part in graph_parts(spec)]
        parts = tuple(export_part(spec, module, folder) for module in modules)
        manifest = write_bundle_files(folder, source.classes(), spec, parts, networks.origin)
        add_engines(Bundle(folder, manifest), settings.targets, _earlier(target))
    return Bundle.open(target)


def _earlier(target: Path) -> Bundle | None:
    """The bundle that is about to be replaced, whose engines may serve again; None when there is no whole one."""
    try:
        return Bundle.open(target, verify=False)
    except UserError:
        return None


def write_bundle_files(
    folder: Path, classes: list[str] | None, spec: Spec, parts: tuple[ExportedPart, ...], origin: Source
) -> Manifest:
    """Write spec, class names and manifest beside the exported graphs."""
    text = dump_spec(spec)
    (folder / SPEC).write_text(text)
    if classes is not None:
        (folder / CLASSES).write_text(json.dumps(classes) + "\n")
    manifest = Manifest(
        name=spec.name,
        spec_sha256=hashlib.sha256(text.encode()).hexdigest(),
        precision=spec.export.precision,
        source=origin,
        packages=installed_packages(PACKAGES),
        parts=parts,
        files=tuple(record_file(folder, file) for file in sorted(folder.iterdir()) if file.is_file()),
    )
    write_manifest(folder, manifest)
    return manifest


def export_part(spec: Spec, module: Module, folder: Path) -> ExportedPart:
    """Export one part into `folder` and measure it."""
    started = time.perf_counter()
    contract, precision = contract_of(spec, module.name), spec.export.precision
    path = folder / f"{module.name}.onnx"
    with output.progress(f"exporting {module.name}"):
        graph = export_onnx(_in_precision(module, precision), contract, path, OPSETS[precision])
    seconds = time.perf_counter() - started
    with output.progress(f"comparing {module.name} with eager"):
        parity = _parity(spec, module, graph)
    return ExportedPart(
        name=module.name,
        role=ROLES[module.name],
        file=path.name,
        inputs=contract.inputs,
        outputs=contract.outputs,
        axes=contract.axes,
        opset=graph.opset,
        ir_version=graph.ir_version,
        nodes=graph.nodes,
        weights_sha256=hash_weights(module.module),
        parity=parity,
        export_seconds=round(seconds, 3),
        notes=_notes(spec, module.name),
    )


def _notes(spec: Spec, part: GraphName) -> tuple[str, ...]:
    """What the graph does otherwise than the run, or for itself."""
    found: list[str] = []
    if part == "vae_decoder" and (tiles := cut_of(spec)) is not None:
        found.append(f"decodes one of {tiles.tiles} overlapping tiles, as vae.tiling says; generate puts them together")
    if part == "vae_decoder" and streams(spec):
        found.append("decodes all frames at once: vae.streaming is not exported, and memory grows with the clip")
    return tuple(found)


def _in_precision(module: Module, precision: Precision) -> GraphModule:
    """The module itself in fp32, else a copy whose weights are cast."""
    return module.module if precision == "fp32" else cast_weights(copy.deepcopy(module.module), precision)


def _parity(spec: Spec, module: Module, graph: ExportedGraph) -> Parity | None:
    if spec.export.precision == "bf16":
        output.warn(f"{module.name}: no CPU backend runs bf16, so the graph is checked but not compared with eager")
        return None
    if answers_zero(spec, _eager(spec, module)):
        return _parity_of_twin(spec, module, graph)
    return _measure(spec, module, graph.path)


def _eager(spec: Spec, module: Module) -> TorchStage:
    return TorchStage(module.name, module.module, contract_of(spec, module.name))


def _measure(spec: Spec, module: Module, path: Path) -> Parity:
    contract = contract_of(spec, module.name)
    comparison = plan_comparison(spec, contract, module.module)
    exported = OnnxStage(module.name, path, contract, cpu_only=True)
    return measure_parity(comparison, _eager(spec, module), exported, spec.export.precision)


def _parity_of_twin(spec: Spec, module: Module, graph: ExportedGraph) -> Parity:
    """Measure a copy with perturbed weights, exported the same way: agreement on zeros would say nothing."""
    output.warn(f"{module.name} is untrained: it answers zero to every input; parity is measured on perturbed weights")
    twin = Module(module.name, copy.deepcopy(module.module))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.module.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    path = graph.path.with_name(f".twin-{graph.path.name}")
    try:
        export_onnx(_in_precision(twin, spec.export.precision), contract_of(spec, twin.name), path, graph.opset)
        return _measure(spec, twin, path).model_copy(update={"perturbed": True})
    finally:
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.data").unlink(missing_ok=True)


def installed_packages(names: Sequence[str]) -> dict[str, str]:
    """Versions of those of `names` that are installed."""
    found: dict[str, str] = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
