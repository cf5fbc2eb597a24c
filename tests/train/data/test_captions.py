"""Captions from the list to the micro-batch, byte for byte."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from sora_spec.train.data.check import check_source, table
from sora_spec.train.data.clips import ClipDataset, open_clips
from sora_spec.train.data.loader import load_batches
from sora_spec.train.data.order import BatchOrder, file_of
from sora_spec.train.data.picture import Framing
from sora_spec.train.data.sources import find_entries

ODD = (
    "a cat\u2028on two lines",
    ' spaces kept, and a "quote" ',
    "line one\nline two\r\nline three",
    "一只猫向左走，很慢。🐈\u200d⬛",
    "e\u0301 is not \u00e9",
    "\ttab\x0cfeed\x85\x1e",
    "null",
    "#not a comment",
    "שלום \u202ecba",
)
"""What must come out as it went in."""


@pytest.fixture
def text_spec(tiny_spec: Any) -> Spec:
    return tiny_spec(condition={"kind": "text", "encoder": "none", "pooled": True})


def opened(spec: Spec, source: Path) -> ClipDataset:
    return open_clips(spec, str(source), Framing(16, 16), 4)


def write_csv(path: Path, digits: Path, captions: tuple[str, ...] = ODD) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        files = sorted(digits.rglob("*.mp4"))
        writer.writerows([("path", "caption"), *zip(files, captions, strict=False)])
    return path


def write_json(path: Path, digits: Path, captions: tuple[str, ...] = ODD, ascii_only: bool = False) -> Path:
    files = sorted(digits.rglob("*.mp4"))
    rows = [{"path": str(file), "caption": text} for file, text in zip(files, captions, strict=False)]
    path.write_text("".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows), encoding="utf-8")
    return path


def test_captions_are_kept_to_the_byte(digits: Path, tmp_path: Path) -> None:
    lists = [write_csv(tmp_path / "l.csv", digits), write_json(tmp_path / "l.jsonl", digits)]
    lists.append(write_json(tmp_path / "ascii.jsonl", digits, ascii_only=True))
    for path in lists:
        assert tuple(find_entries(path).captions) == ODD, path


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_brings_the_captions_of_its_clips(text_spec: Spec, digits: Path, tmp_path: Path, workers: int) -> None:
    clips = opened(text_spec, write_csv(tmp_path / "l.csv", digits))
    of_file = dict(zip(sorted(digits.rglob("*.mp4")), ODD, strict=False))
    for step, batch in enumerate(load_batches(clips, BatchOrder(4, 3), workers)):
        files = [clips.files[file_of(clips.seed, step * 4 + place, len(clips))].path for place in range(4)]
        assert batch.captions == tuple(of_file[path] for path in files)


def test_other_conditions_carry_none(tiny_spec: Any, digits: Path) -> None:
    clips = opened(tiny_spec(), digits / "clips.jsonl")
    assert clips.captions is None
    assert next(load_batches(clips, BatchOrder(2, 1), 0)).captions == ()


def test_a_file_without_a_caption_is_refused_at_its_line(text_spec: Spec, digits: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "l.csv", digits, ("one", "two", " \t", ""))
    with pytest.raises(UserError, match=r"2 of 4 files in .*l\.csv have no caption, the first is .*mp4 \(line 4\)"):
        opened(text_spec, path)
    open_clips(text_spec, str(path), Framing(16, 16), 4, labelled=False)  # a VAE asks for none
    path.write_text(f"path,legend\n{digits}/0/00000.mp4,a zero\n")
    with pytest.raises(UserError) as unread:
        opened(text_spec, path)
    assert "the headings legend are not read" in str(unread.value.hint)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"path": "a.mp4", "caption": "x \\ud83d"}', r"l\.jsonl:1: .*\\ud83d alone"),
        ('{"path": "a.mp4", "caption": ["a", "b"]}', r"l\.jsonl:1: caption \['a', 'b'\] is not text"),
        ('{"path": "a.mp4", "caption": 3}', r"l\.jsonl:1: caption 3 is not text"),
    ],
)
def test_what_is_no_caption(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=words):
        find_entries(tmp_path / "l.jsonl")


def test_edited_captions_are_another_data_set(text_spec: Spec, tiny_spec: Any, digits: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "l.csv", digits)
    clips = opened(text_spec, path)
    assert opened(text_spec, path).fingerprint() == clips.fingerprint()
    edited = write_csv(tmp_path / "l.csv", digits, (*ODD[:-1], ODD[-1] + "."))
    assert opened(text_spec, edited).fingerprint() != clips.fingerprint()
    assert replace(clips, captions=[*ODD[1:], ODD[0]]).fingerprint() != clips.fingerprint()
    plain = tiny_spec(condition={"kind": "none"}, sampler={"kind": "euler"})
    assert opened(plain, edited).fingerprint() == opened(plain, write_csv(path, digits)).fingerprint()


def test_the_report_counts_captions(text_spec: Spec, digits: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "l.csv", digits, ("a one", "a two", "a one", "", "the longest of all"))
    check = check_source(str(path), None)
    last = sorted(digits.rglob("*.mp4"))[4]
    assert check.values()["captions"] == {
        "captioned": 4, "empty": 1, "duplicates": 1, "longest": 18, "longest_of": f"{last} (line 6)",
    }  # fmt: skip
    said = "captions: 4 of 5 files, 1 without, 1 repeat an earlier one, the longest has 18 characters"
    assert said in table(check)
    assert [row["caption"] for row in check.rows] == ["a one", "a two", "a one", None, "the longest of all"]
    report = opened(text_spec, write_csv(path, digits)).report
    assert report is not None
    assert f"captions: {len(ODD)} of {len(ODD)} files" in report.summary()[-1]
