"""YAML 1.2 values, spans, aliases, merges and overrides, against the YAML 1.2 specification's own tables."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest

from sora_spec.language.overrides import is_override
from sora_spec.language.scalars import TooManyDigitsError, plain_scalar
from sora_spec.language.source import load_document, locate, parse_document
from sora_spec.language.span import Text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # YAML 1.2.2 §10.3.2, the core schema's table
        ("null", None), ("Null", None), ("NULL", None), ("~", None), ("", None),
        ("true", True), ("True", True), ("TRUE", True), ("false", False), ("FALSE", False),
        ("0", 0), ("-1", -1), ("+12", 12), ("012", 12), ("0o14", 12), ("0x1F", 31),
        ("0.5", 0.5), (".5", 0.5), ("1.", 1.0), ("1e-4", 1e-4), ("1E3", 1000.0), ("-1.5e+2", -150.0),
        (".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf), ("1e999", math.inf),
        # text in YAML 1.2, though not in 1.1
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("1_000", "1_000"), ("0b11", "0b11"),
        ("12:30", "12:30"), ("nan", "nan"), ("inf", "inf"), ("1e", "1e"), (".", "."), ("-", "-"), ("0o8", "0o8"),
    ],
)  # fmt: skip
def test_core_schema(text: str, value: object) -> None:
    found = plain_scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_nan_and_long_numbers() -> None:
    assert math.isnan(float(str(plain_scalar(".nan"))))
    for long in ("9" * 65, "0." + "1" * 70, "0x" + "f" * 70):
        with pytest.raises(TooManyDigitsError):
            plain_scalar(long)


SAMPLE = """\
version: 1
x-base: &base {depth: 2, width: 64}
clip: {frames: 8, "height": 32}
backbone:
  <<: *base
  width: 128   # wins
list: [1, "two", [3]]
nothing:
text: |
  two
  lines
"""


def test_values_without_positions() -> None:
    assert parse_document(Text("a", SAMPLE)).values() == {
        "version": 1,
        "clip": {"frames": 8, "height": 32},
        "backbone": {"width": 128, "depth": 2},
        "list": [1, "two", [3]],
        "nothing": None,
        "text": "two\nlines\n",
    }


@pytest.mark.parametrize(
    ("path", "source", "line", "column"),
    [
        ("version", "1", 1, 10),
        ("clip.frames", "8", 3, 16),
        ("clip.height", "32", 3, 29),
        ("backbone.width", "128", 6, 10),
        ("backbone.depth", "2", 2, 23),  # a merged value is written at the anchor
        ("list.1", '"two"', 7, 11),
        ("list.2.0", "3", 7, 19),
        ("nothing", "nothing", 8, 1),  # an empty value: its key
        ("backbone", "backbone", 4, 1),  # a section: its key
        ("backbone.heads", "backbone", 4, 1),  # not written: the nearest key above
    ],
)
def test_spans(path: str, source: str, line: int, column: int) -> None:
    document = parse_document(Text("a", SAMPLE))
    span = document.span(path)
    assert span is not None
    assert (span.source(), span.line, span.column) == (source, line, column)


def test_explicit_keys_win_over_merges_and_earlier_merges_over_later() -> None:
    text = "x-a: &a {p: 1, q: 1}\nx-b: &b {q: 2, r: 2}\ns:\n  p: 0\n  <<: [*a, *b]\n"
    assert parse_document(Text("a", text)).values() == {"s": {"p": 0, "q": 1, "r": 2}}


def test_a_quoted_merge_key_is_an_ordinary_key() -> None:
    assert parse_document(Text("a", '"<<": 1')).values() == {"<<": 1}


def test_x_keys_are_ignored_at_every_level() -> None:
    assert parse_document(Text("a", "x-top: 1\na: {x-in: 2, b: 3}\nc: [{x-d: 1}]")).values() == {
        "a": {"b": 3},
        "c": [{}],
    }


@pytest.mark.parametrize(
    ("argument", "before", "after"),
    [
        ("a.b=2", {"a": {"b": 1}}, {"a": {"b": 2}}),
        ("a.c=1e-4", {"a": {"b": 1}}, {"a": {"b": 1, "c": 1e-4}}),
        ("new.part.x=true", {}, {"new": {"part": {"x": True}}}),
        ("l.0=5", {"l": [1, 2]}, {"l": [5, 2]}),
        ("l[1]=5", {"l": [1, 2]}, {"l": [1, 5]}),
        ("l[1].x=5", {"l": [1, {"x": 2}]}, {"l": [1, {"x": 5}]}),
        ("a=null", {"a": 1}, {"a": None}),
        ("a=", {"a": 1}, {"a": None}),
        ("a={kind: none}", {"a": {"kind": "b", "c": 1}}, {"a": {"kind": "none"}}),
        ("a=[1, 2]", {}, {"a": [1, 2]}),
        ("a=b=c", {}, {"a": "b=c"}),
        ("a= spaced ", {}, {"a": "spaced"}),
        ("a.b=1", {"a": None}, {"a": {"b": 1}}),
    ],
)
def test_overrides(argument: str, before: dict[str, object], after: dict[str, object]) -> None:
    document = parse_document(Text("a", repr(before).replace("None", "null").replace("'", '"')), [argument])
    assert document.problems == []
    assert document.values() == after


def test_an_override_points_into_its_argument() -> None:
    document = parse_document(Text("a", "train: {steps: 1}"), ["train.steps=many"])
    span = document.span("train.steps")
    assert span is not None
    assert (span.text.name, span.source(), span.column) == ("argument", "many", 13)


def test_an_override_changes_one_use_of_an_anchor() -> None:
    document = parse_document(Text("a", "x-o: &o {lr: 1}\na: *o\nb: *o"), ["a.lr=2"])
    assert document.values() == {"a": {"lr": 2}, "b": {"lr": 1}}


@pytest.mark.parametrize(
    "argument", ["=1", "a..b=1", "a", "1a=2", "a.b.=1", "a[x]=1", "l.7=1", "s.x=1", "m.0=1", ".".join("a" * 20) + "=1"]
)
def test_overrides_that_fit_nothing(argument: str) -> None:
    document = parse_document(Text("a", "l: [1, 2]\ns: 1"), [argument])
    assert [problem.code for problem in document.problems] == ["E114"]
    assert document.values() == {"l": [1, 2], "s": 1} or document.values() == {"l": [1, 2], "s": 1, "m": None}


@pytest.mark.parametrize(
    ("argument", "yes"),
    [("a.b=1", True), ("a=", True), ("a[0]=1", True), ("spec.yaml", False), ("/tmp/a=b", False), ("-", False)],
)
def test_what_reads_as_an_override(argument: str, yes: bool) -> None:
    assert is_override(argument) is yes


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: bad\r\n")
    document = load_document(path)
    assert document.values() == {"a": 1, "b": "bad"}
    assert document.root is not None
    span, written = locate(document.root, "b")
    assert (span.line, span.column, span.source(), written) == (2, 4, "bad", True)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"a: 1 #" + b"x" * 200_000, "E102", "more than 128 KiB"),
        ("name: a".encode("utf-16"), "E103", "UTF-16"),
        (b"\xfe\xff\0a", "E103", "UTF-16"),
        (b"name: caf\xe9", "E103", "byte 10 is 0xE9"),
        (b"\x89PNG\r\n\x1a\n\0", "E103", "is no text: byte 1 is 0x89"),
        (b"a: \0", "E103", "a NUL byte"),
        (b"a: \x07", "E103", "U+0007"),
    ],
)
def test_what_is_no_text(content: bytes, code: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    document = load_document(path)
    assert document.root is None
    assert document.span("a") is None
    [problem] = document.problems
    assert problem.code == code
    assert words in problem.message


def test_the_bad_byte_is_pointed_at(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("x: é\nname: caf".encode() + b"\xe9\n")
    [problem] = load_document(path).problems
    assert problem.span is not None
    assert (problem.span.line, problem.span.column) == (2, 10)


def test_missing_files_suggest_a_name(tmp_path: Path) -> None:
    (tmp_path / "latents.yaml").touch()

    def help_of(path: Path | str) -> str:
        [problem] = load_document(path).problems
        assert problem.code == "E101"
        return problem.help or ""

    assert help_of(tmp_path / "latent.yaml") == f"Did you mean {tmp_path / 'latents.yaml'}?"
    assert "packaged spec `dit`" in help_of(tmp_path / "ditt.yaml")
    assert "sora-spec ls" in help_of(tmp_path / "zzz.yaml")
    assert "sora-spec ls" in help_of("/no/such/folder/zzz.yaml")
    assert help_of(tmp_path) == f"Name a file in it, for example {tmp_path / 'latents.yaml'}."
    assert help_of("/dev/zero") == "Name a YAML file."


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a: 1")))
    document = load_document("-")
    assert (document.values(), document.text.name, document.text.origin) == ({"a": 1}, "<stdin>", "stdin")
    monkeypatch.setattr("sys.stdin", None)
    assert [problem.code for problem in load_document("-").problems] == ["E101"]


def test_permission_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the refusal is the system's in a stand-in."""

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.stat", refuse)
    [problem] = load_document("secret.yaml").problems
    assert (problem.code, problem.message) == ("E101", "secret.yaml cannot be read: Permission denied")
    assert problem.help == "Check the permissions: `ls -l`."


def test_a_pipe_is_read(tmp_path: Path) -> None:
    import os
    import threading

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("a: 1"))
    # The reader opens without blocking, so the writer must hold its end open before the first read.
    keep = os.open(pipe, os.O_RDWR)
    writer.start()
    writer.join()
    closer = threading.Timer(0.2, os.close, [keep])
    closer.start()
    assert load_document(pipe).values() == {"a": 1}
    closer.join()
