"""`sora-spec validate`: every problem of every spec, at its line."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

from sora_spec import output
from sora_spec.cli.arguments import complete_spec, split_arguments
from sora_spec.errors import UserError
from sora_spec.language.diagnostics import Diagnostic
from sora_spec.language.loading import check
from sora_spec.language.packaged import find_spec_file
from sora_spec.language.source import load_document

FORMATS = ("full", "concise", "json", "github")
Results = list[tuple[str, list[Diagnostic]]]


def _complete_format(incomplete: str) -> list[str]:
    return [name for name in FORMATS if name.startswith(incomplete)]


def validate(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC... [KEY=VALUE]...",
            help="Files, `-` for standard input, names of packaged specs; overrides apply to all of them.",
            autocompletion=complete_spec,
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            metavar="full|concise|json|github",
            help="For people, one line each, for programs, or for GitHub's logs.",
            autocompletion=_complete_format,
        ),
    ] = "full",
    hardware: Annotated[str, typer.Option(metavar="FILE", help="Your own devices, as in hardware.yaml.")] = "",
) -> None:
    """Check specs and report every problem at its line. The report goes to stdout, what is fine to stderr.

    Exit code 0: all fine. 1: a spec has an error. 2: a file cannot be read.
    """
    if format not in FORMATS:
        raise UserError(f"there is no format {format}", f"formats: {', '.join(FORMATS)}")
    specs, overrides = split_arguments(arguments)
    if not specs:
        raise UserError("no spec to check, only overrides", "sora-spec validate SPEC KEY=VALUE")
    results: Results = [(spec, _problems(spec, overrides, hardware)) for spec in specs]
    _print(results, format)
    raise typer.Exit(_exit_code(results))


def _problems(spec: str, overrides: Sequence[str], hardware: str) -> list[Diagnostic]:
    document = load_document(find_spec_file(spec), overrides)
    checked = check(document)
    unknown_device = any(diagnostic.code == "E330" for diagnostic in checked.diagnostics)
    if hardware and unknown_device and checked.values and checked.ok:
        from sora_spec.plan.devices.hardware import find_device

        with suppress(UserError):
            find_device(checked.values.hardware.gpu, hardware)
            return check(document, ("E330",)).diagnostics
    return checked.diagnostics


def _print(results: Results, format: str) -> None:
    """Print what there is to say; the renderers are imported only then."""
    everything = [diagnostic for _, diagnostics in results for diagnostic in diagnostics]
    if format == "json":
        from sora_spec.language import report

        output.json_data(report.report_values(results), indent=2)
    elif everything:
        output.data(_render(everything, format), command=format == "github")
    for spec, diagnostics in results:
        if not any(diagnostic.severity == "error" for diagnostic in diagnostics):
            output.note(f"ok  {spec}")


def _render(diagnostics: Sequence[Diagnostic], format: str) -> str:
    from sora_spec.language import report

    if format == "concise":
        return report.render_concise(diagnostics)
    if format == "github":
        return report.render_github(diagnostics)
    return report.render_full(diagnostics, output.coloured())


def _exit_code(results: Results) -> int:
    errors = [item for _, diagnostics in results for item in diagnostics if item.severity == "error"]
    if any(item.code == "E101" for item in errors):
        return 2
    return 1 if errors else 0
