"""Hostile specs: every trick of YAML in every kind of field, texts that are none, and overrides of every sort.

Each is refused with its code at its line and column, or accepted with the value that was written; then it is planned.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sora_spec.language.loading import check, dump_spec
from sora_spec.language.report import render_concise, render_full, render_github, report_values
from sora_spec.language.source import Document, load_document, parse_document
from sora_spec.language.span import Text
from tests.hostile.case import Case, sora_spec_here
from tests.hostile.spec_tables import BASE, FIELDS, OVERRIDES, TEXTS, VALUES, Field


def _with(path: str, value: str) -> tuple[str, tuple[int, int]]:
    """The base in which `path` is `value`, and where the value stands."""
    text, places = _text_of({**BASE, path: value})
    return text, places[path]


_TOP = list(dict.fromkeys(path.split(".")[0] for path in BASE))


def _text_of(fields: dict[str, str]) -> tuple[str, dict[str, tuple[int, int]]]:
    """Block YAML of dotted fields; line and column of every value, or of its key where it is empty."""
    order = sorted(fields, key=lambda path: (_TOP.index(path.split(".")[0]), path.count("."), path))
    lines, places, opened = list[str](), dict[str, tuple[int, int]](), list[str]()
    for path in order:
        *sections, key = path.split(".")
        common = 0
        while common < min(len(sections), len(opened)) and sections[common] == opened[common]:
            common += 1
        for depth in range(common, len(sections)):
            lines.append("  " * depth + f"{sections[depth]}:")
        opened = sections
        indent, value = "  " * len(sections), fields[path]
        empty = not value or value.startswith("#")
        column = len(indent) + 1 + (0 if empty else len(key) + 2 + len(value) - len(value.lstrip()))
        places[path] = ("\n".join(lines).count("\n") + 2 if lines else 1, column)
        lines.append(f"{indent}{key}: {value}".replace("\n    ", "\n" + indent + "    "))
    return "\n".join(lines) + "\n", places


def _answer(field: Field, value: Any) -> tuple[str, Any]:
    """The code with which the field refuses the value, or "" and the value that it takes."""
    if isinstance(value, str) and value in ("E103", "E109", "E113"):
        return value, None
    if value is None:
        return ("", None) if field.null else ("E203", None)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fitting = {
        "int": isinstance(value, int) and number,
        "number": number,
        "bool": isinstance(value, bool),
        "const": isinstance(value, int) and number,
    }.get(field.kind, isinstance(value, str))
    if not fitting:
        return "E203", None
    if isinstance(value, str):
        return _answer_to_text(field, value), value
    if field.kind == "const":
        return ("" if value == 1 else "E206"), value
    if number and not math.isfinite(value):
        return "E209", None
    if (number and not (field.low < value if field.above else field.low <= value)) or (number and value > field.high):
        return "E204", None
    return "", float(value) if field.kind == "number" else value


def _answer_to_text(field: Field, value: str) -> str:
    if field.kind == "choice":
        return "" if value in field.choices else "E206"
    usable = all(c.isascii() and (c.isalnum() or c in "._-") for c in value) and value[:1].isalnum()
    if field.kind == "name" and not usable:
        return "E208"
    return "" if field.low <= len(value) <= field.high and "\0" not in value else "E208"


def cases() -> Iterator[Case]:
    """All of them."""
    for path, field in FIELDS.items():
        for written, value in VALUES.items():
            yield Case(f"{path}: {written[:40]!r}", _in_a_field(path, written, field, value))
            if "\n" not in written and not written.startswith("#") and len(written) < 1000:
                yield Case(f"override {path}={written[:40]!r}", _as_override(path, written, field, value))
    yield from _texts()
    yield from _kinds()
    yield from _overrides()


def _in_a_field(path: str, written: str, field: Field, value: Any) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        text, place = _with(path, written)
        file = folder / "a.yaml"
        file.write_text(text, encoding="utf-8")
        return _judge(load_document(file), path, field, value, place) or _planned(file, [])

    return run


def _as_override(path: str, written: str, field: Field, value: Any) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        text, _ = _text_of(BASE)
        argument = f"{path}={written}"
        column = len(argument) - len(written.lstrip()) + 1 if written.strip() else 1
        place = (1, column if written.strip() else path.rfind(".") + 2)
        return _judge(parse_document(Text("a.yaml", text), [argument]), path, field, value, place)

    return run


def _judge(document: Document, path: str, field: Field, value: Any, place: tuple[int, int]) -> str | None:
    code, wanted = _answer(field, value)
    checked = check(document)
    said = [d for d in checked.diagnostics if d.code[:2] in ("E1", "E2")]
    wrong = _readable(checked.diagnostics)
    if wrong:
        return wrong
    if not code:
        if said:
            return f"refused: {render_concise(said)}"
        found: Any = checked.values
        for key in path.split("."):
            found = getattr(found, key)
        same = found == wanted and type(found) is type(wanted)
        return (None if same else f"is {found!r}, not {wanted!r}") or (_whole(checked, path) if checked.ok else None)
    match = [d for d in said if d.code == code]
    if len(said) != 1 or not match or match[0].span is None:
        return f"not refused with {code} alone: {render_concise(said) or 'accepted'}"
    found_at = (match[0].span.line, match[0].span.column)
    return None if found_at == place else f"{code} at {found_at}, not at {place}"


def _readable(diagnostics: Sequence[Any]) -> str | None:
    """Whether all four reports can be printed, and the JSON one read again."""
    from sora_spec.output import harmless

    for render in (render_full, render_concise, render_github) if diagnostics else ():
        shown = harmless(render(diagnostics), command=True)
        if any(not (c.isprintable() or c == "\n") for c in shown):
            return f"a report drives the terminal: {shown!a}"
        if max(map(len, shown.splitlines())) > 2000:
            return "a line of a report has more than 2000 characters"
    values = report_values([("a", list(diagnostics))])
    return None if json.loads(json.dumps(values)) == values else "the JSON report does not read back"


def _whole(checked: Any, path: str) -> str | None:
    """A spec that is accepted: pydantic agrees, and it says the same when written out and read again."""
    spec = checked.spec()
    again = check(parse_document(Text("again", dump_spec(spec))))
    return None if again.ok and again.spec() == spec else f"{path} does not survive being written and read"


_PLANNED: set[str] = set()


def _planned(file: Path, overrides: list[str]) -> str | None:
    """Plan what is accepted: a verdict, or a refusal in a sentence. Equal specs are planned once."""
    checked = check(load_document(file, overrides))
    if not checked.ok or (key := repr(checked.spec())) in _PLANNED:
        return None
    _PLANNED.add(key)
    done = sora_spec_here("plan", str(file), "--json", *overrides)
    if done.fault() or done.code == 2:
        return done.fault() or (None if done.err.startswith("error: ") else f"no sentence: {done.err}")
    plan = json.loads(done.out)
    return None if plan["fits"] in (True, False, None) or "fits" not in plan else f"no verdict: {plan['fits']}"


def _bomb() -> bytes:
    lines = [b"x-a: &a [1,1,1,1,1,1,1,1,1]"]
    for old, new in zip(b"abcdefgh", b"bcdefghi", strict=True):
        lines.append(b"x-%c: &%c [" % (new, new) + b",".join([b"*%c" % old] * 9) + b"]")
    return b"\n".join(lines)


def _texts() -> Iterator[Case]:
    texts = {**TEXTS, "billion laughs": (_bomb(), "E110", 4, 6)}
    for name, (content, code, line, column) in texts.items():
        yield Case(f"text: {name}", _a_text(content, code, (line, column)))
    good, _ = _text_of(BASE)
    flow = json.dumps(_nested(BASE))
    same = {
        "BOM": b"\xef\xbb\xbf" + good.encode(),
        "CRLF": good.replace("\n", "\r\n").encode(),
        "CR alone": good.replace("\n", "\r").encode(),
        "no line end": good.rstrip().encode(),
        "document marks": b"---\n" + good.encode() + b"...\n",
        "a directive": b"%YAML 1.2\n---\n" + good.encode(),
        "as JSON": flow.encode(),
        "as indented JSON": json.dumps(_nested(BASE), indent=4).encode(),
        "a long comment": b"#" + b"x" * 100_000 + b"\n" + good.encode(),
        "an emoji in a comment": "# 👩‍🚀\n".encode() + good.encode(),
        "bidi in a comment": "# \u202eevil\n".encode() + good.encode(),
        "x- keys": b"x-a: &a {b: [1, {c: *q}]}\n".replace(b"*q", b"2") + good.encode(),
        "quoted keys": good.replace("version:", '"version":').encode(),
        "trailing blanks": good.replace("\n", "   \n").encode(),
        "an anchor used twice": good.replace("height: 32", "height: &s 32").replace("width: 32", "width: *s").encode(),
        "a merge": b"x-s: &s {height: 32, width: 99}\n" + good.replace("  height: 32\n", "  <<: *s\n").encode(),
    }
    for name, content in same.items():
        yield Case(f"same spec: {name}", _same(content, good))


def _nested(fields: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, value in fields.items():
        *sections, key = path.split(".")
        at = found
        for section in sections:
            at = at.setdefault(section, {})
        at[key] = json.loads(value) if value[0] in "0123456789tf" and value not in ("transformer", "fp32") else value
    return found


def _a_text(content: bytes, code: str, place: tuple[int, int]) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        file = folder / "a.yaml"
        file.write_bytes(content)
        diagnostics = check(load_document(file)).diagnostics
        wrong = _readable(diagnostics)
        match = [d for d in diagnostics if d.code == code]
        if wrong or not match:
            return wrong or f"no {code}: {render_concise(diagnostics)[:300]}"
        span = match[0].span
        found = (0, 0) if span is None else (span.line, span.column)
        return None if place in (found, (0, 0)) else f"{code} at {found}, not at {place}: {match[0].message}"

    return run


def _same(content: bytes, good: str) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        file = folder / "a.yaml"
        file.write_bytes(content)
        checked, wanted = check(load_document(file)), check(parse_document(Text("good", good)))
        if not checked.ok:
            return f"refused: {render_concise(checked.diagnostics)[:300]}"
        return None if checked.spec() == wanted.spec() else "it says another spec"

    return run


SECTIONS = ("vae", "backbone", "temporal", "condition", "objective", "sampler", "train.recompute", "backbone.position")


def _kinds() -> Iterator[Case]:
    """Below a kind that is wrong, the other mistakes of a section are told all the same."""
    for section in SECTIONS:
        for kind in ("nonsense", "5", "[none]", "{}", "~", "''", "NONE", '"\\e[31m"', "kind", None):
            yield Case(f"{section} of kind {kind}", _beside_a_kind(section, kind))


def _beside_a_kind(section: str, kind: str | None) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        fields = {path: value for path, value in BASE.items() if not path.startswith(f"{section}.")}
        text, _ = _text_of(fields | {section: f"{{{'' if kind is None else f'kind: {kind}, '}zzz: 1}}"})
        diagnostics = check(parse_document(Text("a.yaml", text))).diagnostics
        said = {(d.code, d.path) for d in diagnostics}
        lacks_kind = bool({(code, path) for code, path in said if code in ("E205", "E202") and section in path})
        known = kind == "NONE" and ("E205", f"{section}.kind") not in said
        wrong = _readable(diagnostics)
        if wrong or not (lacks_kind or known) or ("E201", f"{section}.zzz") not in said:
            return wrong or f"a mistake stays hidden: {render_concise(diagnostics)}"
        return None

    return run


def _overrides() -> Iterator[Case]:
    good, _ = _text_of(BASE)
    for argument, (code, column) in OVERRIDES.items():
        yield Case(f"override {argument[:40]!r}", _an_override(good, argument, code, column))


def _an_override(good: str, argument: str, code: str, column: int) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        checked = check(parse_document(Text("a.yaml", good), [argument]))
        wrong = _readable(checked.diagnostics)
        if wrong or not code:
            return wrong or (None if checked.ok else f"refused: {render_concise(checked.diagnostics)[:300]}")
        match = [d for d in checked.diagnostics if d.code.startswith(code)]
        if code == "E2":
            return None if checked.ok == (not checked.diagnostics) else "neither accepted nor refused"
        if not match or match[0].span is None:
            return f"no {code}: {render_concise(checked.diagnostics)[:300] or 'accepted'}"
        span = match[0].span
        fine = span.text.origin == "argument" and (span.line, span.column) == (1, column)
        return None if fine else f"{code} at {span.text.name}:{span.line}:{span.column}, not at {column}"

    return run
