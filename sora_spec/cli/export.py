"""`sora-spec export`: a run folder becomes a bundle, a bundle gets engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sora_spec import output
from sora_spec.errors import UserError
from sora_spec.language.packaged import install_command

if TYPE_CHECKING:
    from sora_spec.compile.bundle.bundle import Bundle
    from sora_spec.compile.run.executors.opening import Source
    from sora_spec.compile.run.executors.spec_source import SpecSource
    from sora_spec.disk.run_folder import RunFolder

Precision = Literal["fp32", "fp16", "bf16"]


def export(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN|BUNDLE|SPEC", help="Run folder or spec to export, or bundle to add engines to."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Fields of a spec to set, such as backbone.weights=FILE."),
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write ONNX graphs only, whatever `export.backends` says.")
    ] = False,
    trt: Annotated[bool, typer.Option("--trt", help="Also build TensorRT engines.")] = False,
    target: Annotated[
        list[str] | None,
        typer.Option(help="GPU to build engines for: rtx4090, a6000, sm89; may be given several times."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Bundle to write; RUN/bundle, or bundles/NAME of a spec.")
    ] = None,
    precision: Annotated[Precision | None, typer.Option(help="In place of the spec's `export.precision`.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier bundle.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Report what TensorRT's parser refuses; exit 1 if anything.")
    ] = False,
    no_ema: Annotated[
        bool, typer.Option("--no-ema", help="Export the denoiser's weights, not their moving average.")
    ] = False,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Draw what a spec names no weights for, to try an engine.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report.")] = False,
) -> None:
    """Export a trained run to a bundle: ONNX graphs of its parts, checked against eager, and engines.

    Prints the bundle's path. A bundle appears whole or not at all. Given a bundle, `--trt --target GPU` adds engines. A
    spec is exported with the weights that it names: `sora-spec export dit backbone.weights=FILE vae.weights=FOLDER`.
    """
    from sora_spec.compile.bundle.bundle import Bundle
    from sora_spec.compile.run.executors.opening import open_source

    if onnx and (trt or target):
        raise UserError(
            "--onnx asks for graphs only, --trt and --target for engines", "leave --onnx out: graphs come first"
        )
    opened = open_source(source, "export", overrides or (), random_weights)
    _refuse_overrides(opened, overrides or [], no_ema)
    if check:
        _find_compiler(opened, target)
    if isinstance(opened, Bundle):
        _refuse_for_bundle(opened, out, precision, engines=bool(trt or target or check))
        bundle = opened
        _add_engines(bundle, target, wanted=bool(trt or target))
    else:
        engines = bool(trt or target) or (not onnx and "tensorrt" in opened.load_spec().export.backends)
        bundle = _export_run(opened, out or _default_target(opened), target, precision, force, not no_ema, engines)
    refused = _refused(bundle, target) if check else {}
    _report(bundle, refused, as_json, check)
    if any(refused.values()):
        raise typer.Exit(1)


def _refuse_overrides(source: Source, overrides: list[str], no_ema: bool) -> None:
    """What only a spec, or only a run, can be told."""
    from sora_spec.compile.run.executors.spec_source import SpecSource

    if isinstance(source, SpecSource):
        if no_ema:
            raise UserError("--no-ema goes with a run folder: a spec names its weights", "leave --no-ema out")
    elif overrides:
        raise UserError(
            f"{overrides[0]!r}: the spec of {source.path} is fixed by training",
            "fields can be set for a spec: sora-spec export SPEC backbone.weights=FILE",
        )


def _default_target(source: RunFolder | SpecSource) -> Path:
    from sora_spec.disk.run_folder import RunFolder

    return source.path / "bundle" if isinstance(source, RunFolder) else Path("bundles") / source.load_spec().name


def _refuse_for_bundle(bundle: Bundle, out: Path | None, precision: str | None, engines: bool) -> None:
    if out is not None or precision is not None:
        option = "--out" if out is not None else "--precision"
        raise UserError(f"{bundle.path} is a bundle already; {option} goes with a run folder", "sora-spec export RUN")
    if not engines:
        raise UserError(
            f"{bundle.path} is a bundle already", f"add engines: sora-spec export {bundle.path} --trt --target GPU"
        )


def _export_run(
    run: RunFolder | SpecSource,
    out: Path,
    target: list[str] | None,
    precision: Precision | None,
    force: bool,
    ema: bool,
    engines: bool,
) -> Bundle:
    try:
        from sora_spec.compile.export.exporter import ExportSettings, export_run
    except ImportError as error:
        raise UserError(f"export needs more packages: {error}", install_command("export,run")) from error

    targets = _targets(run, target) if engines else ()
    return export_run(run, out, ExportSettings(precision=precision, ema=ema, force=force, targets=tuple(targets)))


def _find_compiler(source: Source, target: list[str] | None) -> None:
    """Fail before the export rather than after it where there is no TensorRT to check with."""
    from sora_spec.compile.export.engines import plan_targets

    plan_targets(_targets(source, target))


def _targets(source: Source, target: list[str] | None) -> list[str]:
    from sora_spec.compile.export.engines import default_target

    return target or [default_target(source.load_spec())]


def _add_engines(bundle: Bundle, target: list[str] | None, wanted: bool) -> None:
    if wanted:
        from sora_spec.compile.export.engines import add_engines

        add_engines(bundle, _targets(bundle, target))


def _refused(bundle: Bundle, target: list[str] | None) -> dict[Any, list[str]]:
    from sora_spec.compile.export.engines import refused_nodes

    return refused_nodes(bundle, _targets(bundle, target))


def _report(bundle: Bundle, refused: dict[Any, list[str]], as_json: bool, check: bool) -> None:
    manifest = bundle.manifest
    for part in manifest.parts:
        output.note(f"{part.name}: opset {part.opset}, {part.nodes} nodes, {_parity_text(part.parity)}")
    for name in manifest.source.random:
        output.warn(
            f"{name}: its weights are random, as the manifest says: this bundle tries engines, it makes no video"
        )
    for engine in manifest.engines:
        output.note(f"{engine.path}: {engine.sm} ({engine.target}), built in {engine.build_seconds:.1f} s")
    for name, nodes in refused.items():
        for node in nodes:
            output.note(f"{name}: refused: {node}")
    if check and not any(refused.values()):
        output.note("TensorRT's parser takes every node of all graphs")
    if as_json:
        checked = {"refused": refused} if check else {}
        output.data(json.dumps({"bundle": str(bundle.path), **checked, **manifest.model_dump(mode="json")}, indent=2))
    else:
        output.data(str(bundle.path))
        output.hint(f"sora-spec generate {bundle.path}")


def _parity_text(parity: Any) -> str:
    if parity is None:
        return "not compared (no CPU backend runs bf16)"
    worst = max(case.max_abs for case in parity.cases)
    text = f"relative L2 to eager ≤ {parity.worst:.1e}, max ≤ {worst:.1e} over {len(parity.cases)} shapes"
    return text + (" (perturbed weights)" if parity.perturbed else "")
