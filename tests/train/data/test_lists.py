"""Lists of every kind against tables written by hand, and a large one against the clock."""

from __future__ import annotations

import csv
import io
import json
import random
import resource
from pathlib import Path
from typing import Any

import pytest

from sora_spec.errors import UserError
from sora_spec.train.data.sources import find_entries, read_source
from tests.hostile.listed import Listed
from tests.hostile.lists import listed


@pytest.mark.parametrize("case", listed(), ids=lambda case: case.name)
def test_hostile_lists(case: Listed, tmp_path: Path) -> None:
    assert case.run(tmp_path) is None


def test_a_file_is_one_under_its_relative_and_its_absolute_path(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("l.csv").write_text(f"path,label\na.mp4,cat\n{tmp_path}/a.mp4,dog\n{tmp_path}/b.mp4,dog\n")
    for source in ("l.csv", tmp_path / "l.csv"):
        conflict = read_source(source).conflict
        assert conflict is not None
        assert "'cat' on line 2 and 'dog' on line 3" in conflict[0]


NASTY = (
    "a,b",
    'say "x"',
    "two\nlines",
    "tab\there",
    "semi;colon",
    "bar|bar",
    "#no comment",
    "\u2028",
    "",
    "é犬",
    "'",
    "\\",
)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_what_python_writes_is_read_back(tmp_path: Path, delimiter: str, encoding: str) -> None:
    """Random cells through the standard library's own writer, quoting only where it must."""
    rng = random.Random(f"{delimiter} {encoding}")
    rows = [
        (f"clips/{number}{rng.choice(('', ' x', '-y'))}.mp4", f"class {rng.randrange(5)}", f"x{rng.choice(NASTY)}z")
        for number in range(200)
    ]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([("path", "label", "caption"), *rows])
    (tmp_path / "l.csv").write_bytes(text.getvalue().encode(encoding))
    entries = find_entries(tmp_path / "l.csv")
    assert list(zip(entries.paths, entries.labels, entries.captions, strict=True)) == rows


def test_what_json_writes_is_read_back(tmp_path: Path) -> None:
    items = [{"file": f"{k}.mp4", "class": k % 3, "text": f"x{text}y"} for k, text in enumerate(NASTY)]
    lines = "\n".join(json.dumps(item, ensure_ascii=False) for item in items)
    (tmp_path / "l.jsonl").write_text(lines, encoding="utf-8", newline="")
    (tmp_path / "l.json").write_text(json.dumps(items, indent=2))
    for name in ("l.jsonl", "l.json"):
        entries = find_entries(tmp_path / name)
        found = [{"file": e.path.name, "class": int(e.label or -1), "text": e.caption} for e in entries]
        assert found == items


def test_lines_are_those_of_an_editor(tmp_path: Path) -> None:
    text = '# x\n\npath,label,caption\na.mp4,cat,"one\ntwo\nthree"\nb.mp4,dog,x\n'
    (tmp_path / "l.csv").write_text(text)
    entries = find_entries(tmp_path / "l.csv")
    assert [text.split("\n")[line - 1].split(",")[0] for line in entries.lines] == ["a.mp4", "b.mp4"]
    array = '[\n{"path": "a.mp4"},\n\n{"path":\n"b.mp4"}, "c.mp4"]'
    (tmp_path / "l.json").write_text(array)
    assert list(find_entries(tmp_path / "l.json").lines) == [2, 4, 5]


def test_a_long_list_is_read_at_once(tmp_path: Path) -> None:
    """100,000 rows; a million take ten times as long. Measured: 0.2 s of CPU."""
    rows = "".join(f"clips/part{k % 100}/{k:07d}.mp4,class_{k % 400},a clip of something\n" for k in range(100_000))
    (tmp_path / "l.csv").write_text("path,label,caption\n" + rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    assert len(read_source(tmp_path / "l.csv").entries) == 100_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 2


def test_a_list_without_permission_and_a_folder_named_like_one(tmp_path: Path) -> None:
    (tmp_path / "l.csv").mkdir()
    with pytest.raises(UserError, match="names no video"):
        read_source(tmp_path / "l.csv")
    for source in ("a\0b", "x" * 5000, tmp_path / "l.csv" / "none" / "deep.csv"):
        with pytest.raises(UserError, match=r"does not exist|cannot be read"):
            read_source(source)
