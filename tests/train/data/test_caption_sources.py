"""Captions from text files beside clips and from Parquet tables, whole, odd and damaged."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sora_spec.errors import UserError
from sora_spec.language.packaged import install_command
from sora_spec.train.data.captions import all_captions, count_captions
from sora_spec.train.data.check import check_source, table
from sora_spec.train.data.clips import open_clips
from sora_spec.train.data.parquet import read_parquet
from sora_spec.train.data.picture import Framing
from sora_spec.train.data.sources import find_entries, read_source
from tests.train.data.test_captions import ODD


@pytest.fixture
def folder(digits: Path, tmp_path: Path) -> Path:
    """Clips a, b and c, two of them in a folder below, each with a text file beside it."""
    for name in ("a", "in/b", "in/c"):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(digits / "0/00000.mp4", tmp_path / "f" / f"{name}.mp4")
        (tmp_path / "f" / f"{name}.txt").write_text(f"caption of {name}\n")
    return tmp_path / "f"


def test_a_text_file_beside_a_clip_is_its_caption(folder: Path) -> None:
    assert all_captions(read_source(folder)) == ["caption of a", "caption of in/b", "caption of in/c"]


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_it_is_kept_but_for_one_line_end(folder: Path, text: str, end: str) -> None:
    (folder / "a.txt").write_bytes((text + end).encode())
    assert all_captions(read_source(folder))[0] == text


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_it_is_read_in_its_encoding(folder: Path, encoding: str) -> None:
    (folder / "a.txt").write_bytes("a plain caption, été\n".encode(encoding))
    assert all_captions(read_source(folder))[0] == "a plain caption, été"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"caf\xe9", "byte 0xE9 is not UTF-8"),
        (b"PK\x03\x04" + b"\0" * 9, "zip archive"),
        (b"\0\0\0abc", "zero bytes"),
        (b"", "1 of 3 files in .* have no caption, the first is .*a.mp4"),
        (b" \n\n", "1 of 3 files in .* have no caption"),
    ],
)
def test_what_is_no_caption_is_refused_by_its_file(folder: Path, raw: bytes, words: str) -> None:
    (folder / "a.txt").write_bytes(raw)
    with pytest.raises(UserError, match=words) as refused:
        all_captions(read_source(folder))
    assert str(folder / "a.") in refused.value.message


def test_a_missing_one_is_counted_and_refused(folder: Path, tiny_spec: Any) -> None:
    (folder / "in/b.txt").unlink()
    (folder / "notes.txt").write_text("no clip is called so")
    check = check_source(str(folder), None)
    captions = check.values()["captions"]
    assert (captions["captioned"], captions["empty"]) == (2, 1)
    assert "not looked at: 1 × text files without a clip of the same name" in table(check)
    spec = tiny_spec(condition={"kind": "text", "encoder": "none", "pooled": True})
    with pytest.raises(UserError, match=r"1 of 3 files in .* have no caption, the first is .*in/b\.mp4"):
        open_clips(spec, str(folder), Framing(16, 16), 4)


def test_other_conditions_do_not_read_them(folder: Path, tiny_spec: Any) -> None:
    (folder / "a.txt").write_bytes(b"caf\xe9")
    spec = tiny_spec(condition={"kind": "none"}, sampler={"kind": "euler"})
    assert len(open_clips(spec, str(folder), Framing(16, 16), 4)) == 3
    check = check_source(str(folder), None)  # which shows every file, and says at the end what is wrong
    assert check.refusal is not None
    assert "a.txt" in check.refusal.message
    assert len(check.rows) == 3


def write_table(path: Path, columns: dict[str, Sequence[object]]) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), path)
    return path


def test_a_parquet_table_is_a_list(tmp_path: Path) -> None:
    count = len(ODD)
    names = [f"clips/{number}.mp4" for number in range(count)]
    path = write_table(
        tmp_path / "l.parquet",
        {"url": ["x"] * count, "File Name": names, "prompt": ODD, "class": [*range(count - 1), None]},
    )
    source = read_source(path)
    assert source.entries.paths == names
    assert tuple(source.entries.captions) == ODD
    assert source.entries.labels == [*map(str, range(count - 1)), None]
    assert source.remarks == ["columns that are not read: url"]
    assert source.entries.place(3) == "clips/3.mp4 (row 4)"


def test_rows_of_several_batches_keep_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sora_spec.train.data.parquet._BATCH_ROWS", 2)
    captions = ["one", None, "three", "", "five"]
    path = write_table(tmp_path / "l.parquet", {"path": [f"{n}.mp4" for n in range(5)], "caption": captions})
    assert list(find_entries(path).lines) == [1, 2, 3, 4, 5]
    with pytest.raises(UserError, match=r"2 of 5 files in .* have no caption, the first is 1\.mp4 \(row 2\)"):
        all_captions(read_source(path))
    assert count_captions(read_source(path)).longest_of == "2.mp4 (row 3)"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"name": ["a"], "caption": ["x"]}, "no column names the files: name, caption"),
        ({"path": ["a.mp4", None]}, r"l\.parquet:2: no path: None"),
        ({"path": [b"a.mp4"]}, r"l\.parquet:1: no path: b'a\.mp4'"),
        ({"path": ["a.mp4"], "caption": [["x", "y"]]}, r"l\.parquet:1: caption \['x', 'y'\] is not text"),
        ({"path": ["a.mp4"], "label": [0.5]}, r"l\.parquet:1: label 0\.5 is neither"),
        ({"path": ["a.mp4"], "text": ["x"], "prompt": ["y"]}, "'text' and 'prompt' both name the caption"),
        ({"path": ["s3://bucket/a.mp4"]}, r"l\.parquet:1: s3://bucket/a\.mp4 is an address"),
        ({"path": ["x", "x"], "label": [1, 2]}, ""),
    ],
)
def test_odd_tables(tmp_path: Path, columns: dict[str, Sequence[object]], words: str) -> None:
    path = write_table(tmp_path / "l.parquet", columns)
    if not words:
        conflict = read_source(path).conflict
        assert conflict is not None
        assert "'1' on row 1 and '2' on row 2" in conflict[0]
        return
    with pytest.raises(UserError, match=words):
        read_source(path)


@pytest.mark.parametrize("raw", [b"", b"PAR1", b"path,caption\na.mp4,x\n"])
def test_no_parquet_table_under_its_name(tmp_path: Path, raw: bytes) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "l.parquet").write_bytes(raw)
    with pytest.raises(UserError, match=r"l\.parquet cannot be read as a Parquet table"):
        read_parquet(tmp_path / "l.parquet")


def test_a_table_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "l.parquet", {"path": [f"{n}.mp4" for n in range(1000)]})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="cannot be read as a Parquet table"):
        read_source(path)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "l.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError) as refused:
        read_source(tmp_path / "l.parquet")
    assert refused.value.hint == install_command("parquet")
