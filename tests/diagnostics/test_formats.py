"""The four formats of a report, and carets under the right characters."""

from __future__ import annotations

import json
import re
import unicodedata

import pytest

from sora_spec import output
from sora_spec.language.diagnostics import Diagnostic, Note, nearest
from sora_spec.language.report import (
    diagnostic_values,
    render_concise,
    render_full,
    render_github,
    report_values,
)
from sora_spec.language.span import Span, Text
from sora_spec.language.spec_errors import SpecErrors


def mark(line: str, piece: str, **settings: object) -> Diagnostic:
    """A problem whose caret belongs under `piece`."""
    text = Text("a.yaml", f"first: 1\n{line}\n")
    start = text.content.index(piece)
    return Diagnostic("E203", "wrong", Span(text, start, start + len(piece)), "here", **settings)  # type: ignore[arg-type]


def columns(text: str) -> int:
    """Screen columns, counted independently: wide characters 2, combining marks 0."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


@pytest.mark.parametrize(
    ("line", "piece"),
    [
        ("key: value", "value"),
        ("キー: 値段", "値段"),
        ("a: ｆｕｌｌ, b: x", "x"),
        ("cafe\u0301: thé", "thé"),
        ("emoji: 🎬🎬, b: bad", "bad"),
        ("ｋ: " + "あ" * 80 + " bad", "bad"),
        ("k: " + "long " * 60 + "bad " + "long " * 60, "bad"),
        ("bad: " + "long " * 60, "bad"),
        ("k: " + "x" * 400 + "bad", "bad"),
    ],
)
def test_caret_stands_under_the_piece(line: str, piece: str) -> None:
    lines = render_full([mark(line, piece)]).splitlines()
    source = next(row for row in lines if row.startswith("2 |"))
    carets = next(row for row in lines if "^" in row)
    before = source[: source.index(piece)]
    assert carets.index("^") == columns(before)
    assert carets.count("^") == columns(piece)
    assert columns(source) <= 110


def test_tabs_are_shown_as_spaces_up_to_the_next_stop() -> None:
    lines = render_full([mark("a:\tb\tbad", "bad")]).splitlines()
    source, carets = next(row for row in lines if row.startswith("2 |")), next(row for row in lines if "^" in row)
    assert "\t" not in source
    assert source.index("bad") == carets.index("^")


def test_huge_problem_is_cropped() -> None:
    report = render_full([mark("k: " + "y" * 5000, "y" * 5000)])
    assert max(map(len, report.splitlines())) < 130


def test_control_characters_never_reach_the_terminal() -> None:
    hostile = mark('k: "\x1b[31mred"', "red")
    report = render_full([Diagnostic(hostile.code, "message \x1b[2J", hostile.span, "label \x07")])
    assert "\x1b" not in report
    assert "\x07" not in report


def test_colour_only_adds_escapes() -> None:
    diagnostic = mark("k: bad, other: 2", "bad", help="mend it")
    coloured = output.harmless(render_full([diagnostic], colour=True))
    assert "\x1b[31;1m" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == render_full([diagnostic])


def test_secondary_place_in_another_text() -> None:
    first = mark("k: bad", "bad")
    other = Text("argument", "k=3", "argument")
    report = render_full([Diagnostic("E301", "m", first.span, "a", (Note(Span(other, 2, 3), "b"),))])
    assert "::: argument:1:3" in report
    assert "k=3\n" in report


def test_two_labels_on_one_line() -> None:
    text = Text("a.yaml", "{one: 1, two: 2}")
    problem = Diagnostic("E301", "m", Span(text, 6, 7), "first", (Note(Span(text, 14, 15), "second"),))
    rows = [row[4:] for row in render_full([problem]).splitlines()[3:]]
    assert rows[:4] == ["{one: 1, two: 2}", "      ^       - second", "      |", "      first"]


def test_concise_is_one_line_each() -> None:
    problems = [mark("k: bad", "bad"), Diagnostic("E101", "no file x", file="x")]
    assert render_concise(problems) == "a.yaml:2:4: E203 wrong\nx: E101 no file x"


def test_github_escapes_what_the_format_needs() -> None:
    problem = mark("k: bad", "bad", help="50 % off\nnow")
    assert render_github([problem]) == (
        "::error file=a.yaml,line=2,col=4,endLine=2,endColumn=7,title=E203::wrong%0A50 %25 off%0Anow"
    )
    assert render_github([Diagnostic("E101", "m", file="a,b:c")]) == "::error file=a%2Cb%3Ac,title=E101::m"


def test_json_has_the_documented_keys() -> None:
    problem = mark("k: bad", "bad", notes=(Note(Span(Text("b", "x"), 0, 1), "note"),), path="k")
    values = diagnostic_values(problem)
    assert values == {
        "code": "E203",
        "severity": "error",
        "message": "wrong",
        "path": "k",
        "file": "a.yaml",
        "line": 2,
        "column": 4,
        "end_line": 2,
        "end_column": 7,
        "label": "here",
        "notes": [{"file": "b", "line": 1, "column": 1, "label": "note"}],
        "help": None,
    }
    report = json.loads(json.dumps(report_values([("a.yaml", [problem]), ("b.yaml", [])])))
    assert [report["ok"], report["version"]] == [False, 1]
    assert [spec["ok"] for spec in report["specs"]] == [False, True]


def test_only_the_first_problems_are_shown() -> None:
    report = render_full([mark("k: bad", "bad")] * 80)
    assert report.count("error[E203]") == 50
    assert "80 errors; the last 30 are not shown" in report


def test_errors_carry_report_and_exit_code() -> None:
    assert SpecErrors([mark("k: bad", "bad")]).exit_code == 1
    error = SpecErrors([Diagnostic("E101", "no file x", file="x")])
    assert error.exit_code == 2
    assert "error[E101]: no file x" in str(error)


@pytest.mark.parametrize(
    ("word", "meant"), [("dpeth", "depth"), ("num-heads", "heads"), ("Width", "width"), ("zzz", None), ("", None)]
)
def test_nearest_word(word: str, meant: str | None) -> None:
    assert nearest(word, ["depth", "width", "heads"]) == meant


def test_lines_end_at_every_yaml_line_break() -> None:
    text = Text("a", "one\r\ntwo\rthree\nfour")
    assert [text.line(n) for n in (1, 2, 3, 4)] == ["one", "two", "three", "four"]
    assert [text.position(text.content.index(word)) for word in ("two", "three", "four")] == [(2, 1), (3, 1), (4, 1)]
