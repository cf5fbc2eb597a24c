"""`sora-spec plan`: what a spec needs on a machine, whether it fits, and what would make it fit."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sora_spec import output
from sora_spec.cli.arguments import MODES, STAGES, check_svg, complete_spec, one_of, one_spec
from sora_spec.errors import UserError

if TYPE_CHECKING:
    from sora_spec.graph.eager.ops.attention import Kernel
    from sora_spec.language.schema.spec import Spec
    from sora_spec.language.source import Document
    from sora_spec.plan.job import Job, Question, RmsNorm
    from sora_spec.plan.planner import Plan
    from sora_spec.plan.search.axes import Field
    from sora_spec.plan.search.sweep import Row

_FIELDS: tuple[Field, ...] = ("batch", "frames", "resolution", "gpus")
_FORMATS = ("table", "csv", "json")
_KERNELS: tuple[Kernel, ...] = ("flash", "efficient", "math")
_RMS_NORMS: tuple[RmsNorm, ...] = ("fused", "composite")


def plan(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC [KEY=VALUE]...",
            help="A file, `-` for standard input, or the name of a packaged spec; and overrides.",
            autocompletion=complete_spec,
        ),
    ],
    gpu: Annotated[str, typer.Option(metavar="NAME", help="Device of the table; the spec's when left out.")] = "",
    count: Annotated[str, typer.Option(metavar="N", help="Number of devices; the spec's when left out.")] = "",
    mode: Annotated[str, typer.Option(metavar="train|generate", help="What is to be done.")] = "train",
    stage: Annotated[str, typer.Option(metavar="denoiser|vae", help="What is trained.")] = "denoiser",
    batch: Annotated[str, typer.Option(metavar="N", help="Clips generated at a time.")] = "",
    one_at_a_time: Annotated[
        bool, typer.Option("--one-at-a-time", help="Generate with one part in device memory at a time.")
    ] = False,
    solve: Annotated[
        str, typer.Option(metavar="batch|frames|resolution|gpus", help="Find the most, or fewest GPUs, that fits.")
    ] = "",
    sweep: Annotated[bool, typer.Option("--sweep", help="A table over devices and settings.")] = False,
    over: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=A,B,…", help="With --sweep: a setting and its values; may be given several times."),
    ] = None,
    format: Annotated[str, typer.Option(metavar="table|csv|json", help="Of a sweep.")] = "table",
    plot: Annotated[str, typer.Option(metavar="FILE.svg", help="With --sweep: draw it, beside what is printed.")] = "",
    hardware: Annotated[str, typer.Option(metavar="FILE", help="Your own devices, as in hardware.yaml.")] = "",
    attention: Annotated[
        str, typer.Option(metavar="flash|efficient|math", help="Attention kernel; the one PyTorch picks when left out.")
    ] = "",
    temporal_attention: Annotated[
        str, typer.Option(metavar="flash|efficient|math", help="The same across frames, where it is another one.")
    ] = "",
    rms_norm: Annotated[
        str, typer.Option(metavar="fused|composite", help="RMS norm in one kernel, as PyTorch does it, or written out.")
    ] = "",
    tf32: Annotated[
        bool, typer.Option("--tf32", help="Let fp32 matrix products use TF32, as train.tf32 does.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Only the verdict.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Build the real module and compare prediction and truth.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON (specs/plan.schema.json).")] = False,
) -> None:
    """Say what a spec needs on a machine: memory, time, cost; and what would make it fit. Needs no PyTorch.

    Exit code 0: it fits. 1: it does not.
    """
    # A short process that makes few cycles: looking for them is a fifth of its time.
    gc.disable()
    from sora_spec.plan.job import Question
    from sora_spec.plan.search.listing import number

    asked = Question(
        gpu=gpu,
        hardware=hardware,
        mode=one_of("--mode", mode, MODES),
        stage=one_of("--stage", stage, STAGES),
        placement="sequential" if one_at_a_time else "resident",
        tf32=tf32,
        attention=one_of("--attention", attention, _KERNELS) if attention else None,
        temporal_attention=one_of("--temporal-attention", temporal_attention, _KERNELS) if temporal_attention else None,
        rms_norm=one_of("--rms-norm", rms_norm, _RMS_NORMS) if rms_norm else None,
    )
    one_of("--format", format, _FORMATS)
    check_svg("--plot", plot)
    _check_together(asked, count, batch, sweep, solve, verify, check, as_json, format, bool(over), bool(plot))
    path, overrides = one_spec(arguments)
    document = _read(path, overrides)
    if sweep:
        _sweep(document, asked, count, batch, over or [], "json" if as_json else format, plot)
        return
    spec, job = _job(document, replace(asked, count=number("--count", count), batch=number("--batch", batch)))
    if verify:
        _verify(path, overrides, job, document, as_json)
        return
    if solve:
        field = one_of("--solve", solve, _FIELDS)
        given = [option for option, text in (("--batch", batch), ("--count", count)) if text]
        _solve(job, field, spec, given, as_json)
        return
    _plan(job, spec, document, check, as_json)


def _check_together(
    asked: Question,
    count: str,
    batch: str,
    sweep: bool,
    solve: str,
    verify: bool,
    check: bool,
    as_json: bool,
    format: str,
    over: bool,
    plot: bool,
) -> None:
    """Options that would have no effect are refused: what was asked is what is answered."""
    ways = [name for name, given in (("--sweep", sweep), ("--solve", bool(solve)), ("--verify", verify)) if given]
    if len(ways) > 1:
        raise UserError(f"{ways[0]} and {ways[1]} are two questions", "ask one at a time")
    if check and ways:
        raise UserError(f"--check and {ways[0]} are two questions", "leave one of the two out")
    for option, given in (("--gpu", asked.gpu), ("--count", count)) if not sweep else ():
        if "," in given:
            raise UserError(f"{option} {given} names several", "add --sweep, which plans them all")
    alone = (("--over", over), ("--plot", plot), ("--format", format != "table"))
    for option, given in alone if not sweep else ():
        if given:
            raise UserError(f"{option} belongs to --sweep", "add --sweep, or leave it out")
    if as_json and format == "csv":
        raise UserError("--json and --format csv are two forms", "leave one of the two out")
    generating = (("--batch", bool(batch)), ("--one-at-a-time", asked.placement == "sequential"))
    for option, given in generating if asked.mode == "train" else ():
        if given:
            key = "; a training's clips are train.batch" if option == "--batch" else ""
            raise UserError(f"{option} is about generating{key}", "add --mode generate, or leave it out")
    if asked.mode == "generate" and asked.stage != "denoiser":
        raise UserError("--stage is about training, and a generation runs every part", "leave --stage out")


def _read(path: str, overrides: list[str]) -> Document:
    from sora_spec.language.packaged import find_spec_file
    from sora_spec.language.source import load_document

    return load_document(find_spec_file(path), overrides)


def _job(document: Document, question: Question) -> tuple[Spec, Job]:
    """The spec as written, and the job that is asked of it."""
    from sora_spec.language.spec_errors import SpecErrors
    from sora_spec.plan.job import planned_job
    from sora_spec.plan.layout import asked_device, checked_for

    checked, typed = checked_for(document, question.count)
    if not checked.ok:
        raise SpecErrors(checked.diagnostics)
    spec = checked.record()
    device = asked_device(spec, question.gpu, question.hardware or None, typed)
    return spec, planned_job(spec, device, question, typed)


def _plan(job: Job, spec: Spec, document: Document, check: bool, as_json: bool) -> None:
    from sora_spec.plan.planner import make_plan

    made = make_plan(job)
    if check and not as_json:
        from sora_spec.plan.show.report import headline

        output.data(headline(made))
        raise typer.Exit(0 if made.fits else 1)
    _print(made, spec, document, as_json)
    raise typer.Exit(0 if made.fits else 1)


def _print(made: Plan, spec: Spec, document: Document, as_json: bool) -> None:
    from sora_spec.plan.search.fastest import find_fastest
    from sora_spec.plan.search.fixes import find_fixes
    from sora_spec.plan.search.solve import solve

    fixes = [] if made.fits else find_fixes(made.job, spec)
    largest = solve(made.job, "batch", spec) if made.fits else None
    fastest = find_fastest(made.job, spec) if made.fits else None
    if as_json:
        from sora_spec.plan.show.values import plan_values

        output.data(json.dumps(plan_values(made, fixes, largest, document, fastest), indent=2))
    else:
        from sora_spec.plan.show.report import report

        output.data(report(made, fixes, largest, document, fastest))


def _verify(path: str, overrides: list[str], job: Job, document: Document, as_json: bool) -> None:
    from sora_spec.plan.verifying import parts_of, verification_text, verify

    if path == "-":
        raise UserError("--verify reads the spec twice, which standard input cannot be", "write the spec to a file")
    with output.progress("tracing the real modules"):
        found = verify(path, overrides, parts_of(job))
    output.data(json.dumps(found, indent=2) if as_json else verification_text(found, document))
    raise typer.Exit(0 if all(part["equal"] for part in found) else 1)


def _solve(job: Job, field: Field, spec: Spec, given: list[str], as_json: bool) -> None:
    from sora_spec.plan.search.solve import check_free, solve
    from sora_spec.plan.show.report import arguments, headline
    from sora_spec.plan.show.values import solution_values

    check_free(job, field, given)
    found = solve(job, field, spec)
    if found is None:
        _unsolved(job, field, spec, as_json)
    elif as_json:
        output.data(json.dumps(solution_values(found), indent=2))
    else:
        value = f"{found.value} ({'as it is' if found.value == found.was else f'was {found.was}'})"
        output.data("\n".join([value, headline(found.plan), *arguments(found.overrides, found.options, "  ")]))
    raise typer.Exit(0 if found is not None else 1)


def _unsolved(job: Job, field: Field, spec: Spec, as_json: bool) -> None:
    """Why there is no such value, and what makes the job fit all the same."""
    from sora_spec.plan.planner import make_plan
    from sora_spec.plan.search.fixes import find_fixes
    from sora_spec.plan.search.solve import least_of
    from sora_spec.plan.show.report import unsolved, unsolved_reason
    from sora_spec.plan.show.values import fix_values

    plan, least = make_plan(job), least_of(job, field)
    fixes = find_fixes(job, spec)
    if as_json:
        reason = unsolved_reason(field, least, plan)
        values = {"value": None, "reason": reason, "fixes": [fix_values(fix, plan) for fix in fixes]}
        output.data(json.dumps(values, indent=2))
    else:
        output.data(unsolved(field, least, plan, fixes))


def _sweep(
    document: Document, asked: Question, count: str, batch: str, over: list[str], format: str, plot: str
) -> None:
    from sora_spec.plan.search.listing import listed_counts, number
    from sora_spec.plan.search.sweep import parse_axes, render, sweep

    axes = parse_axes(over)
    names, counts = _names(document, asked.gpu, [axis.path for axis in axes]), listed_counts("--count", count)
    rows = sweep(document, replace(asked, batch=number("--batch", batch)), names, counts, axes)
    if plot:
        _plot(rows, document, plot)
    output.data(render(rows, format))
    if not any(row.plan is not None and row.plan.fits for row in rows):
        raise typer.Exit(1)


def _names(document: Document, gpu: str, axes: list[str]) -> list[str]:
    """Devices of a sweep: those of `--gpu`; none where the specs say it, as an argument or an axis; else all.

    Raises UserError for an axis over what an argument has given.
    """
    from sora_spec.language.source import locate
    from sora_spec.plan.search.listing import listed

    given = {path: locate(document.root, path) for path in (*axes, "hardware.gpu")} if document.root else {}
    typed = [path for path, (span, written) in given.items() if written and span.text.origin == "argument"]
    if twice := [path for path in typed if path in axes]:
        raise UserError(f"{twice[0]} is given, and swept by --over", "leave one of the two out")
    names = listed("--gpu", gpu)
    if names and "hardware.gpu" in typed:
        raise UserError("--gpu and hardware.gpu both name devices", "leave one of the two out")
    if names or "hardware.gpu" in typed or any(path in ("hardware", "hardware.gpu") for path in axes):
        return names
    return ["all"]


def _plot(rows: list[Row], document: Document, path: str) -> None:
    from sora_spec.plan.show.plot import plot_sweep

    try:
        Path(path).write_text(plot_sweep(rows, document.text.name), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}", "name a file in a folder that exists") from error
    output.note(f"drew {path}")
