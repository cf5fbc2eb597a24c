"""Diagnostics as text: `full` for people, `concise` for editors, `json` for programs, `github` for workflow logs.

JSON is one object: `version` (1), `ok`, and `specs`, a list of `{spec, ok, diagnostics}`. A diagnostic has `code`,
`severity`, `message`, `path` (dotted, may be empty), `file`, `line`, `column`, `end_line`, `end_column` (from 1; null
where there is no text), `label`, `notes` (each `file`, `line`, `column`, `label`) and `help`. Keys are only ever added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sora_spec import output
from sora_spec.characters import in_one_line, visible_name
from sora_spec.language.diagnostics import Diagnostic
from sora_spec.language.snippet import Mark, Paint, render_snippet

MAX_SHOWN = 50
"""Problems shown in full; the rest are counted."""

_COLOURS = {"error": "31;1", "warning": "33;1", "note": "34;1", "frame": "34", "help": "36;1", "message": "1"}


def _plain(text: str, role: str) -> str:
    return text


def _coloured(text: str, role: str) -> str:
    return output.painted(text, _COLOURS[role])


def render_full(diagnostics: Sequence[Diagnostic], colour: bool = False) -> str:
    """Every problem with its source lines, carets and help, and a last line that counts them."""
    paint = _coloured if colour else _plain
    blocks = [_block(diagnostic, paint) for diagnostic in diagnostics[:MAX_SHOWN]]
    return "\n\n".join([*blocks, _summary(diagnostics)])


def _block(diagnostic: Diagnostic, paint: Paint) -> str:
    head = paint(f"{diagnostic.severity}[{diagnostic.code}]", diagnostic.severity)
    lines = [f"{head}: {paint(in_one_line(diagnostic.message), 'message')}"]
    indent = " "
    if diagnostic.span is not None:
        marks = [Mark(diagnostic.span, in_one_line(diagnostic.label), primary=True)]
        marks += [Mark(note.span, in_one_line(note.label), primary=False) for note in diagnostic.notes]
        lines += render_snippet(marks, diagnostic.severity, paint)
        indent = " " * max(len(str(mark.span.line)) for mark in marks)
        if diagnostic.help:
            lines.append(paint(f"{indent} |", "frame"))
    if diagnostic.help:
        lines.append(f"{indent} {paint('= help:', 'help')} {in_one_line(diagnostic.help)}")
    return "\n".join(lines)


def _summary(diagnostics: Sequence[Diagnostic]) -> str:
    errors = sum(diagnostic.severity == "error" for diagnostic in diagnostics)
    warnings = len(diagnostics) - errors
    counts = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((errors, "error"), (warnings, "warning")) if n]
    hidden = len(diagnostics) - MAX_SHOWN
    more = f"; the last {hidden} are not shown" if hidden > 0 else ""
    first = next((item for item in diagnostics if item.severity == "error"), diagnostics[0])
    return f"{', '.join(counts)}{more}. `sora-spec explain {first.code}` says more."


def render_concise(diagnostics: Sequence[Diagnostic]) -> str:
    """One line per problem: `file:line:column: code message`."""
    return "\n".join(f"{visible_name(item.where())}: {item.code} {in_one_line(item.message)}" for item in diagnostics)


def render_github(diagnostics: Sequence[Diagnostic]) -> str:
    """Workflow commands that GitHub shows beside the changed lines."""
    return "\n".join(_github_line(item) for item in diagnostics)


def _github_line(item: Diagnostic) -> str:
    place = f"file={_escaped(item.file)}"
    if item.span is not None:
        end_line, end_column = item.span.end_position
        place = f"file={_escaped(item.span.text.name)},line={item.span.line},col={item.span.column}"
        place += f",endLine={end_line},endColumn={end_column}"
    message = item.message + (f"\n{item.help}" if item.help else "")
    return f"::{item.severity} {place},title={item.code}::{_escaped(message, data=True)}"


def _escaped(text: str, data: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text if data else text.replace(":", "%3A").replace(",", "%2C")


def diagnostic_values(item: Diagnostic) -> dict[str, Any]:
    """A diagnostic as JSON values; the module's docstring names the keys."""
    span = item.span
    end_line, end_column = span.end_position if span else (None, None)
    return {
        "code": item.code,
        "severity": item.severity,
        "message": item.message,
        "path": item.path,
        "file": span.text.name if span else item.file,
        "line": span.line if span else None,
        "column": span.column if span else None,
        "end_line": end_line,
        "end_column": end_column,
        "label": item.label,
        "notes": [
            {"file": n.span.text.name, "line": n.span.line, "column": n.span.column, "label": n.label}
            for n in item.notes
        ],
        "help": item.help,
    }


def report_values(results: Sequence[tuple[str, Sequence[Diagnostic]]]) -> dict[str, Any]:
    """The JSON report over all specs."""
    specs = [
        {
            "spec": name,
            "ok": all(item.severity != "error" for item in diagnostics),
            "diagnostics": [diagnostic_values(item) for item in diagnostics],
        }
        for name, diagnostics in results
    ]
    return {"version": 1, "ok": all(spec["ok"] for spec in specs), "specs": specs}
