"""Folders, CSV and JSONL lists, and labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sora_spec.errors import UserError
from sora_spec.train.data.labels import class_names, number_labels
from sora_spec.train.data.sources import find_entries


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_folder_gives_sorted_files_with_parent_as_class(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.mp4", "a/1.MOV", "a/deep/3.mkv", "top.png", "a/notes.txt", "a/.hidden.mp4", "clips.jsonl")
    entries = find_entries(tmp_path)
    assert [(str(e.path.relative_to(tmp_path)), e.label) for e in entries] == [
        ("a/1.MOV", "a"),
        ("a/deep/3.mkv", "a"),
        ("b/2.mp4", "b"),
        ("top.png", None),
    ]
    assert [e.is_image for e in entries] == [False, False, False, True]


def test_headerless_csv_is_opendits_path_and_text(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text('a.mp4,"a dog, running"\n/abs/b.mp4,cat\n')
    first, second = find_entries(tmp_path / "list.csv")
    assert (first.path, first.caption, first.label) == (tmp_path / "a.mp4", "a dog, running", None)
    assert second.path == Path("/abs/b.mp4")


def test_csv_header_may_order_columns_freely_and_carry_a_mark(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("\ufeffLabel,Path,extra\ncat,a.mp4,1\n\n,b.mp4,2\n", encoding="utf-8")
    entries = find_entries(tmp_path / "list.csv")
    assert [(e.path.name, e.label) for e in entries] == [("a.mp4", "cat"), ("b.mp4", None)]


def test_jsonl_takes_numbers_and_names_as_labels(tmp_path: Path) -> None:
    lines = ('{"path": "a.mp4", "label": 3}', "", '{"path": "b.mp4", "label": "x", "caption": "y"}')
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    entries = find_entries(tmp_path / "list.jsonl")
    assert [(e.label, e.caption) for e in entries] == [("3", None), ("x", "y")]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("l.jsonl", '{"path": 1}\n', "l.jsonl:1: no path"),
        ("l.jsonl", '{"path": "a"}\nnope\n', "l.jsonl:2: not JSON"),
        ("l.jsonl", "3\n", "not an object"),
        ("l.jsonl", "[]\n", "names no video"),
        ("l.jsonl", '{"path": "a", "label": true}\n', "neither a name nor a whole number"),
        ("l.jsonl", '{"path": "a", "caption": 7}\n', "is not text"),
        ("l.csv", "path,label\n,cat\n", "l.csv:2: no path"),
        ("l.csv", "\n", "names no video"),
        ("l.md", "a.mp4\n", "neither a folder nor"),
    ],
)
def test_malformed_lists_name_the_line(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=told):
        find_entries(tmp_path / name)


def test_missing_empty_and_binary_sources(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist") as missing:
        find_entries(tmp_path / "none")
    assert "data digits" in str(missing.value.hint)
    with pytest.raises(UserError, match="names no video"):
        find_entries(tmp_path)
    (tmp_path / "l.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not whole text in UTF-16"):
        find_entries(tmp_path / "l.csv")


def test_whole_numbers_stand_for_themselves() -> None:
    assert class_names(["4", "2", "4"]) == ["0", "1", "2", "3", "4"]
    assert class_names(["cat", "ant"]) == ["ant", "cat"]
    assert class_names(["c10", "c9"]) == ["c9", "c10"]


def test_labels_must_fit_the_spec(tmp_path: Path) -> None:
    touch(tmp_path, "0/a.mp4", "007/b.mp4", "3/c.mp4")
    entries = find_entries(tmp_path)
    assert number_labels(entries, 10, "x")[0] == [0, 7, 3]
    with pytest.raises(UserError, match=r"label 7, but condition\.classes is 7") as error:
        number_labels(entries, 7, "x")
    assert error.value.hint is not None
    assert "condition.classes=8" in error.value.hint
    touch(tmp_path, "bare.mp4")
    with pytest.raises(UserError, match="1 of 4 files in x have no label"):
        number_labels(find_entries(tmp_path), 10, "x")


def test_more_names_than_classes_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "ant/a.mp4", "bee/b.mp4", "cat/c.mp4")
    with pytest.raises(UserError, match=r"3 classes \(ant, bee, cat\), but condition.classes is 2"):
        number_labels(find_entries(tmp_path), 2, "x")
    assert number_labels(find_entries(tmp_path), 3, "x") == ([0, 1, 2], ["ant", "bee", "cat"])


def test_a_huge_label_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_text('{"path": "a.mp4", "label": 999999999999}\n')
    with pytest.raises(UserError, match="999999999999"):
        number_labels(find_entries(tmp_path / "l.jsonl"), 10, "x")


def test_a_folder_that_cannot_be_read_stops_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the folder, `dog` would become class 0. Root reads every folder, so the refusal is made up here."""
    touch(tmp_path, "cat/a.mp4", "dog/b.mp4")
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"cat cannot be read: Permission denied") as refused:
        find_entries(tmp_path)
    assert "classes would be missing" in str(refused.value.hint)


def test_files_come_by_their_names_links_too(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.mp4", "b/10.mp4", "a/x/1.mp4", "a/1.mp4", "c.mp4")
    (tmp_path / "far").mkdir()
    (tmp_path / "a2").symlink_to(tmp_path / "b")
    assert find_entries(tmp_path).paths == [
        "a/1.mp4",
        "a/x/1.mp4",
        "a2/10.mp4",
        "a2/2.mp4",
        "b/10.mp4",
        "b/2.mp4",
        "c.mp4",
    ]
