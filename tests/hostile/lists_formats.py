"""Hostile lists: encodings, ends of lines and JSON."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from tests.hostile.listed import BARE, TWO, Listed, Rows


def encodings() -> Iterable[Listed]:
    text = "path,label\na.mp4,café\nb.mp4,dog\n"
    rows: Rows = [("a.mp4", "café", 0), ("b.mp4", "dog", 1)]
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        yield Listed(f"in {encoding}", "l.csv", text.encode(encoding), rows)
    yield Listed("big-endian UTF-16", "l.csv", codecs.BOM_UTF16_BE + text.encode("utf-16-be"), rows, ("UTF-16",))
    for encoding in ("utf-16-le", "utf-16-be"):
        yield Listed(f"{encoding} without mark", "l.csv", text.encode(encoding), rows, ("UTF-16",))
    yield Listed("JSON in UTF-16", "l.jsonl", '{"path":"a.mp4","label":"é"}\n'.encode("utf-16"), [("a.mp4", "é", 0)])
    yield Listed("cut UTF-16", "l.csv", text.encode("utf-16")[:-1], None, ("not whole text", "UTF-16"))
    for encoding, byte in (("cp1252", "0xE9"), ("latin-1", "0xE9"), ("mac-roman", "0x8E")):
        yield Listed(f"in {encoding}", "l.csv", text.encode(encoding), None, ("l.csv:2", byte, "iconv"))
    yield Listed("Shift-JIS", "l.csv", "path,label\na.mp4,猫\n".encode("shift-jis"), None, ("l.csv:2", "UTF-8"))
    for ending in ("\r\n", "\r"):
        lines = text.replace("\n", ending)
        yield Listed(f"lines end in {ending!r}", "l.csv", lines, rows)
    yield Listed(
        "JSON lines end in CRLF",
        "l.jsonl",
        '{"path":"a.mp4","label":1}\r\n\r\n{"path":"b.mp4","label":0}\r\n',
        [("a.mp4", "1", 1), ("b.mp4", "0", 0)],
    )
    yield Listed("no newline at the end", "l.csv", text.rstrip(), rows)
    for what, raw in (
        ("a zip archive", b"PK\x03\x04" + b"\0" * 50),
        ("gzip", b"\x1f\x8b\x08" + b"\0" * 50),
        ("Parquet", b"PAR1" + b"\0" * 50),
        ("zero bytes", b"path,label\na\0.mp4,b\n"),
    ):
        yield Listed(f"no text: {what}", "l.csv", raw, None, (what, "l.csv"))
    late = b"path,label\n" + b"a.mp4,cat\n" * 600 + b"b\0.mp4,dog\n"
    yield Listed("a zero byte far below", "l.csv", late, None, ("l.csv:602",))
    for code in (0x2028, 0x2029, 0x85, 0x0B, 0x0C, 0x1C, 0x1E):
        char = chr(code)
        yield Listed(
            f"U+{code:04X} in a CSV caption",
            "l.csv",
            f"path,label,caption\na.mp4,cat,x{char}y\nb.mp4,dog,z\n",
            TWO,
            captions=(f"x{char}y", "z"),
        )
    for code in (0x2028, 0x2029, 0x85):
        char = chr(code)
        line = f'{{"path": "a.mp4", "label": "cat", "caption": "x{char}y"}}\n{{"path": "b.mp4", "label": "dog"}}\n'
        yield Listed(f"U+{code:04X} in a JSON string", "l.jsonl", line, TWO, captions=(f"x{char}y", None))
        yield Listed(
            f"U+{code:04X} in a plain path", "l.txt", f"a{char}b.mp4\n", [(f"a{char}b.mp4", None, None)], classes=None
        )


def json_lists() -> Iterable[Listed]:
    yield Listed(
        "an array", "l.json", '[\n {"path": "a.mp4", "label": "cat"},\n {"path": "b.mp4", "label": "dog"}\n]\n', TWO
    )
    yield Listed(
        "an array in a .jsonl", "l.jsonl", '[{"file":"a.mp4","class":"cat"},{"file":"b.mp4","class":"dog"}]', TWO
    )
    yield Listed("an array of paths", "l.json", '["a.mp4", "b.mp4"]', BARE, classes=None)
    yield Listed(
        "JSON lines in a .json", "l.json", '{"path":"a.mp4","label":"cat"}\n{"path":"b.mp4","label":"dog"}\n', TWO
    )
    yield Listed(
        "a fault in an array", "l.json", '[\n{"path": "a.mp4"},\n{"path": }\n]', None, ("l.json:3", "not JSON")
    )
    yield Listed("an array not closed", "l.json", '[\n{"path": "a.mp4"}\n', None, ("l.json:", "missing"))
    yield Listed("two arrays", "l.json", '["a.mp4"]\n["b.mp4"]\n', None, ("l.json:2", "follows"))
    yield Listed("a wrong item", "l.json", '["a.mp4",\n 7]', None, ("l.json:2", "not an object"))
    yield Listed("one object around all", "l.json", '{"videos": [{"path": "a.mp4"}]}', None, ("l.json:1", "no path"))
    yield Listed(
        "pretty-printed objects", "l.jsonl", '{\n "path": "a.mp4"\n}\n', None, ("l.jsonl:1", "one object a line")
    )
    yield Listed("a key twice", "l.jsonl", '{"path": "a.mp4", "path": "b.mp4"}\n', None, ("l.jsonl:1", "twice"))
    yield Listed("a comma at the end", "l.jsonl", '{"path": "a.mp4"},\n', None, ("l.jsonl:1", "not JSON"))
    yield Listed("single quotes", "l.jsonl", "{'path': 'a.mp4'}\n", None, ("l.jsonl:1", "not JSON"))
    yield Listed(
        "comments and blank lines",
        "l.jsonl",
        '# x\n\n{"path":"a.mp4","label":"cat"}\n// y\n \n{"path":"b.mp4","label":"dog"}',
        TWO,
        ("comment lines: 2",),
    )
    yield Listed(
        "keys in another order", "l.jsonl", '{"path":"a.mp4","label":"cat"}\n{"label":"dog","path":"b.mp4"}\n', TWO
    )
    whole: Rows = [("a.mp4", "3", 3), ("b.mp4", "0", 0)]
    yield Listed("3.0 is 3", "l.jsonl", '{"path":"a.mp4","label":3.0}\n{"path":"b.mp4","label":0}\n', whole)
    for label, told in (("true", "True"), ("1.5", "1.5"), ("NaN", "nan"), ("[1]", "[1]"), ('{"id": 1}', "id")):
        yield Listed(f"label {label}", "l.jsonl", f'{{"path": "a.mp4", "label": {label}}}\n', None, ("l.jsonl:1", told))
    yield Listed("label null", "l.jsonl", '{"path":"a.mp4","label":null}\n', None, ("no label", "a.mp4 (line 1)"))
    for path, told in (("null", "None"), ("7", "7"), ('""', "no path"), ('["a.mp4"]', "a.mp4")):
        yield Listed(f"path {path}", "l.jsonl", f'{{"path": {path}}}\n', None, ("l.jsonl:1", told))
    yield Listed(
        "a caption of several", "l.jsonl", '{"path": "a.mp4", "caption": ["x"]}\n', None, ("l.jsonl:1", "not text")
    )
    yield Listed("nested without end", "l.jsonl", '{"path":' + "[" * 100_000 + "\n", None, ("l.jsonl:1", "not JSON"))
    yield Listed(
        "a number of 5000 digits", "l.jsonl", '{"path": "a.mp4", "label": ' + "9" * 5000 + "}\n", None, ("l.jsonl:1",)
    )
    yield Listed(
        "half a surrogate pair",
        "l.jsonl",
        '{"path": "\\ud800.mp4"}\n',
        None,
        ("1 of 1", "do not exist"),
        classes=None,
        files=("x.mp4",),
    )
    yield Listed("a zero character", "l.jsonl", '{"path": "a\\u0000.mp4"}\n', None, ("l.jsonl:1", "zero character"))
