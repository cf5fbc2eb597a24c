"""`sora-spec doctor`: what works on this machine, what is missing, and the command that mends it."""

from __future__ import annotations

from typing import Annotated

import typer

from sora_spec import output
from sora_spec.cli.probes import Finding, as_json, core_road_works, find_all

_ROADS = {
    "check": "Check specs",
    "train": "Train",
    "export": "Export",
    "generate": "Generate",
    "engines": "TensorRT engines (optional)",
    "machine": "This machine",
}
_COLOURS = {"ok": "32", "missing": "31;1", "absent": "33"}


def doctor(json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False) -> None:
    """Check this machine: packages, VAEs, ONNX Runtime providers, TensorRT, GPU, memory and disk.

    Exit code 0: a spec can be checked, trained, exported and generated from here. 1: something of that is missing.
    """
    findings = find_all()
    if json:
        output.data(as_json(findings))
    else:
        output.data("\n".join(_lines(findings)))
    if not core_road_works(findings):
        raise typer.Exit(1)


def _lines(findings: list[Finding]) -> list[str]:
    lines = list[str]()
    for road, title in _ROADS.items():
        lines.append(title)
        for finding in findings:
            if finding.road == road:
                lines.append(f"  {_painted(finding.status)}  {finding.name:<13} {finding.detail}")
                if finding.mend and finding.status != "ok":
                    lines.append(f"  {'':<7}  {'':<13} → {finding.mend}")
    return lines


def _painted(status: str) -> str:
    word = f"{status:<7}"
    return output.painted(word, _COLOURS[status]) if output.coloured() else word
