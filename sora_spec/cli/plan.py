"""`sora-spec plan`: what a spec needs on a machine, whether it fits, and what would make it fit."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sora_spec import output
from sora_spec.cli.arguments import MODES, STAGES, OneSpec, check_svg, one_of, one_spec
from sora_spec.errors import UserError

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec
    from sora_spec.language.source import Document
    from sora_spec.plan.axes.all_axes import Field
    from sora_spec.plan.job import Job, Question
    from sora_spec.plan.planner import Plan
    from sora_spec.plan.search.sweep import Row

_FORMATS = ("table", "csv", "json")


def plan(
    arguments: OneSpec,
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

    Exit code 0: it fits. 1: it does not. What this program cannot do however much memory there is, it says first.
    """
    # A short process that makes few cycles: looking for them is a fifth of its time.
    gc.disable()
    from sora_spec.language.packaged import find_spec_file
    from sora_spec.language.source import load_document
    from sora_spec.plan.axes.all_axes import FIELDS
    from sora_spec.plan.job import KERNELS, RMS_NORMS
    from sora_spec.plan.question import laid_over, planned, question_from
    from sora_spec.plan.search.listing import number

    path, overrides = one_spec(arguments)
    given: dict[str, str | bool] = {"--check": check, "--sweep": sweep, "--solve": solve, "--verify": verify}
    given |= {"--gpu": gpu, "--count": count, "--over": bool(over), "--plot": plot}
    given |= {"--format": "" if one_of("--format", format, _FORMATS) == "table" else format, "--json": as_json}
    given |= {"--batch": batch, "--one-at-a-time": one_at_a_time, "--stage": "" if stage == "denoiser" else stage}
    _check_together(given, one_of("--mode", mode, MODES) == "generate")
    asked = question_from(
        overrides,
        gpu="" if sweep else gpu,
        count=None if sweep else number("--count", count),
        hardware=hardware,
        mode=mode,
        stage=one_of("--stage", stage, STAGES),
        batch=number("--batch", batch),
        placement="sequential" if one_at_a_time else "resident",
        tf32=tf32,
        attention=one_of("--attention", attention, KERNELS) if attention else None,
        temporal_attention=one_of("--temporal-attention", temporal_attention, KERNELS) if temporal_attention else None,
        rms_norm=one_of("--rms-norm", rms_norm, RMS_NORMS) if rms_norm else None,
    )
    document = load_document(find_spec_file(path))
    if sweep:
        fits = _sweep(laid_over(document, asked.arguments), asked, gpu, count, over or [], given)
    else:
        made, spec, laid = planned(document, asked)
        if verify:
            fits = _verify(path, overrides, made.job, laid, as_json)
        elif solve:
            options = [option for option in ("--batch", "--count") if given[option]]
            fits = _solve(made, one_of("--solve", solve, FIELDS), spec, options, as_json)
        else:
            fits = _plan(made, spec, laid, check, as_json)
    raise typer.Exit(0 if fits else 1)


def _check_together(given: dict[str, str | bool], generates: bool) -> None:
    """Options that would have no effect are refused: what was asked is what is answered."""
    ways = [name for name in ("--check", "--sweep", "--solve", "--verify") if given[name]]
    if len(ways) > 1:
        hint = "leave one of the two out" if given["--check"] else "ask one at a time"
        raise UserError(f"{ways[0]} and {ways[1]} are two questions", hint)
    for option in ("--gpu", "--count") if not given["--sweep"] else ():
        if "," in str(given[option]):
            raise UserError(f"{option} {given[option]} names several", "add --sweep, which plans them all")
    for option in ("--over", "--plot", "--format") if not given["--sweep"] else ():
        if given[option]:
            raise UserError(f"{option} belongs to --sweep", "add --sweep, or leave it out")
    check_svg("--plot", str(given["--plot"]))
    if given["--json"] and given["--format"] == "csv":
        raise UserError("--json and --format csv are two forms", "leave one of the two out")
    for option in ("--batch", "--one-at-a-time") if not generates else ():
        if given[option]:
            key = "; a training's clips are train.batch" if option == "--batch" else ""
            raise UserError(f"{option} is about generating{key}", "add --mode generate, or leave it out")
    if generates and given["--stage"]:
        raise UserError("--stage is about training, and a generation runs every part", "leave --stage out")


def _plan(made: Plan, spec: Spec, document: Document, check: bool, as_json: bool) -> bool:
    from sora_spec.plan.question import advise
    from sora_spec.plan.show.report import headline, lack_lines, report
    from sora_spec.plan.show.values import plan_values

    if check and not as_json:
        output.data("\n".join([headline(made), *lack_lines(made, document)]))
    elif as_json:
        output.data(json.dumps(plan_values(made, advise(made, spec), document), indent=2))
    else:
        output.data(report(made, advise(made, spec), document))
    return made.fits


def _verify(path: str, overrides: list[str], job: Job, document: Document, as_json: bool) -> bool:
    from sora_spec.plan.verifying import parts_of, verification_text, verify

    if path == "-":
        raise UserError("--verify reads the spec twice, which standard input cannot be", "write the spec to a file")
    with output.progress("tracing the real modules"):
        found = verify(path, overrides, parts_of(job))
    output.data(json.dumps(found, indent=2) if as_json else verification_text(found, document))
    return all(part["equal"] for part in found)


def _solve(made: Plan, field: Field, spec: Spec, given: list[str], as_json: bool) -> bool:
    from sora_spec.plan.search.fixes import find_fixes
    from sora_spec.plan.search.solve import check_free, least_of, solve
    from sora_spec.plan.show.report import arguments, headline, unsolved, unsolved_reason
    from sora_spec.plan.show.values import fix_values, solution_values

    check_free(made.job, field, given)
    found = solve(made.job, field, spec)
    if found is not None and as_json:
        output.data(json.dumps(solution_values(found), indent=2))
    elif found is not None:
        value = f"{found.words[0]} ({'as it is' if found.words[0] == found.was else f'was {found.was}'})"
        output.data("\n".join([value, headline(found.plan), *arguments(found.overrides, found.options, "  ")]))
    else:  # why there is no such value, and what makes the job fit all the same
        least, fixes = least_of(made.job, field), find_fixes(made.job, spec)
        reason, listed = unsolved_reason(field, least, made), [fix_values(fix, made) for fix in fixes]
        values = {"value": None, "reason": reason, "fixes": listed}
        output.data(json.dumps(values, indent=2) if as_json else unsolved(field, least, made, fixes))
    return found is not None


def _sweep(
    document: Document, asked: Question, gpu: str, count: str, over: list[str], given: dict[str, str | bool]
) -> bool:
    from sora_spec.plan.search.listing import listed_counts
    from sora_spec.plan.search.sweep import parse_axes, render, sweep

    axes, plot = parse_axes(over), str(given["--plot"])
    names, counts = _names(document, gpu, [axis.path for axis in axes]), listed_counts("--count", count)
    rows = sweep(document, asked, names, counts, axes)
    if plot:
        _plot(rows, document, plot)
    output.data(render(rows, "json" if given["--json"] else str(given["--format"] or "table")))
    return any(row.plan is not None and row.plan.fits for row in rows)


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
