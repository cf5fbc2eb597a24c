"""Engines of a bundle: which are wanted, which are there already, which have to be built. Torch-free."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sora_spec import output
from sora_spec.compile.bundle.bundle import Bundle
from sora_spec.compile.bundle.contract import engine_profile
from sora_spec.compile.bundle.manifest import Engine
from sora_spec.compile.export.targets import compute_capability, local_compute_capability
from sora_spec.compile.export.tensorrt_build import (
    FLAGS,
    Compiler,
    EngineRequest,
    build_engine,
    choose_compiler,
    unsupported_nodes,
)
from sora_spec.language.schema.spec import Spec
from sora_spec.recipe.parts import GraphName, graph_parts


def default_target(spec: Spec) -> str:
    """What `--trt` builds for without `--target`: this machine's GPU, else the spec's `hardware.gpu`."""
    local = local_compute_capability()
    return spec.hardware.gpu if local is None else f"sm{local}"


def plan_targets(targets: Sequence[str]) -> list[tuple[str, Compiler]]:
    """Each target with what builds for it. Raises UserError early: before minutes of export, not after."""
    return [(target, choose_compiler(compute_capability(target))) for target in targets]


def add_engines(bundle: Bundle, targets: Sequence[str], earlier: Bundle | None = None) -> list[Engine]:
    """Build all parts' engines for each target into `bundle`; returns them in order.

    An engine with the same key in the bundle, or in the `earlier` one that it replaces, is taken as it is.
    Raises UserError when a graph cannot be compiled for a target.
    """
    spec = bundle.load_spec()
    added: list[Engine] = []
    for target, compiler in plan_targets(targets):
        for part in graph_parts(spec):
            request = _request(bundle, spec, part.name, compute_capability(target))
            engine = reuse_engine(bundle, request.key(compiler), earlier)
            added.append(engine or _build(bundle, part.name, target, request, compiler))
    return added


def _request(bundle: Bundle, spec: Spec, part: GraphName, sm: int) -> EngineRequest:
    graph = bundle.part(part).file
    hashes = tuple(file.sha256 for file in bundle.manifest.files if file.path in (graph, f"{graph}.data"))
    return EngineRequest(bundle.path / graph, hashes, engine_profile(spec, part), sm)


def reuse_engine(bundle: Bundle, key: str, earlier: Bundle | None) -> Engine | None:
    """The engine with this key, copied over when it lies in the earlier bundle."""
    for owner in (bundle, earlier):
        for engine in owner.manifest.engines if owner is not None else ():
            if owner is None or engine.key != key:
                continue
            owner.check_engine(engine)
            output.note(f"{engine.path} is unchanged and not built again")
            if owner is not bundle:
                bundle.add_engine(engine, (owner.path / engine.path).read_bytes())
            return engine
    return None


def _build(bundle: Bundle, part: GraphName, target: str, request: EngineRequest, compiler: Compiler) -> Engine:
    started = time.perf_counter()
    with output.progress(f"building {part} for {target} (sm{request.sm}) with {compiler.name} {compiler.version}"):
        serialized = build_engine(request, compiler)
    engine = Engine(
        part=part,
        path=f"engines/sm{request.sm}/{compiler.folder}/{part}.engine",
        target=target,
        sm=f"sm{request.sm}",
        builder=compiler.name,
        version=compiler.version,
        profile=request.profile,
        flags=FLAGS,
        key=request.key(compiler),
        build_seconds=round(time.perf_counter() - started, 3),
    )
    bundle.add_engine(engine, serialized)
    return engine


def refused_nodes(bundle: Bundle, targets: Sequence[str]) -> dict[GraphName, list[str]]:
    """Nodes of each part that the TensorRT parser refuses, with its reasons."""
    _, compiler = plan_targets(targets)[0]
    return {part.name: unsupported_nodes(bundle.path / part.file, compiler) for part in bundle.manifest.parts}
