"""The report before training: every file has a fate, every class a number and a count."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from sora_spec.errors import UserError
from sora_spec.train.data.check import check_source, table
from sora_spec.train.data.clips import open_clips
from sora_spec.train.data.picture import Framing


@pytest.fixture
def mixed(digits: Path, tmp_path: Path) -> Path:
    """Two classes: three clips and one damaged file, one clip and one still; beside them what nobody looks at."""
    source = tmp_path / "mixed"
    for name, clip in {"ant/a": "0/00000", "ant/in/b": "0/00010", "ant/c": "0/00020", "bee/d": "1/00001"}.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(digits / f"{clip}.mp4", source / f"{name}.mp4")
    (source / "ant/broken.mp4").write_text("no video")
    Image.new("RGB", (16, 16)).save(source / "bee/still.png")
    (source / "bee/notes.txt").write_text("x")
    (source / "bee/data.zip").write_text("x")
    (source / ".hidden").write_text("x")
    return source


def test_everything_is_accounted_for(mixed: Path) -> None:
    check = check_source(str(mixed), None)
    values = check.values()
    assert (values["named"], values["clips"], values["stills"], values["damaged"]) == (6, 4, 1, 1)
    assert values["classes"] == [
        {"number": 0, "name": "ant", "clips": 3, "stills": 0, "named": 4},
        {"number": 1, "name": "bee", "clips": 1, "stills": 1, "named": 2},
    ]
    assert {each["reason"]: each["files"] for each in values["not_looked_at"]} == {
        "hidden": 1,
        "suffix .zip": 1,
        "text files without a clip of the same name": 1,
    }
    assert not check.passed
    text = table(check)
    assert "class 0  ant  3 of 4 files" in text
    assert "class 1  bee  2 of 2 files, 1 of them stills" in text
    assert "5 of 6 files can be used" in text


def test_the_report_comes_before_training(mixed: Path, tiny_spec, capsys: pytest.CaptureFixture[str]) -> None:
    clips = open_clips(tiny_spec(train__stills="skip"), str(mixed), Framing(16, 16), 4)
    assert clips.classes == ["ant", "bee"]
    assert clips.report is not None
    clips.report.tell()
    told = capsys.readouterr().err
    assert "0 ant (3), 1 bee" in told
    assert "4 clips, 1 damaged, 1 still left out, 3 files not looked at" in told
    assert "broken.mp4" in told
    assert "condition.classes is 10, the data has 2: numbers 2 to 9 are not trained" in told


def test_a_name_with_a_line_end_stays_on_its_line(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_text(json.dumps({"path": f"{digits}/0/00000.mp4", "label": "x\ny\rz"}))
    check = check_source(str(tmp_path / "l.jsonl"), None)
    assert r"class 0  x\x0ay\x0dz  1 of 1 files" in table(check).split("\n")
    assert check.report.summary()[1] == r"classes: 0 x\x0ay\x0dz (1)"


def test_missing_files_are_no_short_clips(digits: Path, tiny_spec, tmp_path: Path) -> None:
    listing = tmp_path / "l.csv"
    listing.write_text("path,label\nx/1.mp4,0\nx/2.mp4,1\n")
    with pytest.raises(
        UserError, match=r"2 of 2 files of .*l\.csv do not exist.*x/1\.mp4 \(line 2\), looked in"
    ) as none:
        open_clips(tiny_spec(), str(listing), Framing(16, 16), 4)
    assert "longer" not in str(none.value.hint)
    listing.write_text(f"path,label\n{digits}/1/00001.mp4,1\nx/2.mp4,0\n{digits}/2/00002.mp4,2\n")
    clips = open_clips(tiny_spec(), str(listing), Framing(16, 16), 4)
    assert clips.labels == [1, 2]
    assert clips.report is not None
    assert [(file.fate, file.line) for file in clips.report.skipped] == [("missing", 3)]
    assert "1 of 3 files" in clips.report.warnings[0]


def test_a_vae_needs_no_labels(digits: Path, tiny_spec, tmp_path: Path) -> None:
    shutil.copyfile(digits / "0/00000.mp4", tmp_path / "a.mp4")
    (tmp_path / "l.csv").write_text("path,label\na.mp4,cat\na.mp4,dog\n")
    for source in (tmp_path, tmp_path / "l.csv"):
        with pytest.raises(UserError):
            open_clips(tiny_spec(), str(source), Framing(16, 16), 4)
        clips = open_clips(tiny_spec(), str(source), Framing(16, 16), 4, labelled=False)
        assert clips.classes is None
        assert set(clips.labels) == {0}


@pytest.mark.parametrize(
    ("content", "hint"), [(b"no video", "data check"), (None, "give longer clips")], ids=["damaged", "short"]
)
def test_the_hint_fits_the_commonest_reason(
    digits: Path, tiny_spec, tmp_path: Path, content: bytes | None, hint: str
) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "a.mp4").write_bytes(content or (digits / "0/00000.mp4").read_bytes())
    with pytest.raises(UserError, match="none of the 1 files") as refused:
        open_clips(tiny_spec(), str(tmp_path), Framing(16, 16), 40)
    assert hint in str(refused.value.hint)


def test_a_check_says_what_training_would_refuse(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(f"path,label\n{digits}/1/00001.mp4,1\n{digits}/2/00002.mp4,dog\n")
    check = check_source(str(tmp_path / "l.csv"), None)
    assert not check.passed
    assert "numbers and names" in check.values()["refused"]
    whole = check_source(str(digits), None)
    assert whole.passed
    assert "class 9  9  4 of 4 files" in table(whole)
    assert "40 of 40 files can be used" in table(whole)
    json.dumps(whole.values())
