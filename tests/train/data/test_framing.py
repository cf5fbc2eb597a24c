"""What a file's frames become: crops, short files, stills; the picture that was written is the one that is read."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sora_spec.errors import UserError
from sora_spec.train.data.clips import ClipDataset, open_clips
from sora_spec.train.data.picture import Framing
from sora_spec.train.data.probe import FileInfo, probe
from sora_spec.train.data.sources import Entry
from sora_spec.video import write_mp4
from tests.hostile.films import images, number_of, picture, write_film


def still(path: Path, framing: Framing) -> np.ndarray:
    return ClipDataset([probe(Entry(path))], [0], framing, 1, Fraction(1), seed=0)[0].frames[0]


def test_a_centred_still_is_what_dit_trains_on(tmp_path: Path) -> None:
    """Numbers from `center_crop_arr(image, 32)` of DiT's train.py, run on this picture under Pillow 13.0."""
    y, x = np.mgrid[:151, :203]
    drawn = np.stack([(x * 5 + y * 3) % 256, (x * y) % 256, (x ^ y) % 256], -1).astype(np.uint8)
    Image.fromarray(drawn).save(tmp_path / "a.png")
    got = still(tmp_path / "a.png", Framing(32, 32, center=True)).astype(int)
    assert got.sum(axis=(0, 1)).tolist() == [131757, 129770, 113632]
    assert [got[place].tolist() for place in ((0, 0), (31, 31), (7, 20))] == [
        [132, 50, 27],
        [24, 129, 60],
        [197, 123, 88],
    ]


@pytest.mark.parametrize(("size", "rows", "columns"), [((128, 64), (32, 96), (0, 64)), ((64, 128), (0, 64), (32, 96))])
def test_portrait_and_landscape_lose_both_ends_alike(tmp_path: Path, size, rows, columns) -> None:
    """A gradient along the long side: the middle of it is left, in a film as in a still."""
    ramp = np.linspace(0, 250, max(size)).astype(np.uint8)
    drawn = np.broadcast_to(ramp[:, None] if size[0] > size[1] else ramp, size)[..., None].repeat(3, -1)
    write_film(tmp_path / "a.mp4", frames=2, size=size, pictures=[drawn] * 2, options={"crf": "1"})
    Image.fromarray(drawn).save(tmp_path / "a.png")
    want = drawn[slice(*rows), slice(*columns)].astype(int)
    for name in ("a.mp4", "a.png"):
        for number in range(3):
            data = ClipDataset([probe(Entry(tmp_path / name))], [0], Framing(64, 64, center=True), 1, Fraction(16), 0)
            assert np.abs(data[number].frames[0].astype(int) - want).max() < 6


def mixed(folder: Path) -> Path:
    """A film of 10 frames, one of 40, and a still."""
    write_film(folder / "long.mp4", frames=40)
    write_film(folder / "short.mkv", frames=10, options={"bf": "2"})
    images(1)[0].save(folder / "still.png")
    return folder


@pytest.mark.parametrize(
    ("words", "kept", "told"),
    [
        ({}, {"long.mp4"}, ("short.mkv: too short", "still.png: a still")),
        ({"train__short": "loop"}, {"long.mp4", "short.mkv"}, ("still.png: a still",)),
        ({"train__stills": "repeat"}, {"long.mp4", "still.png"}, ("short.mkv: too short",)),
        ({"train__short": "loop", "train__stills": "repeat"}, {"long.mp4", "short.mkv", "still.png"}, ()),
        ({"clip__frames": 1}, {"long.mp4", "short.mkv", "still.png"}, ()),
    ],
)
def test_short_files_and_stills_are_taken_where_asked_for(tiny_spec, tmp_path: Path, capsys, words, kept, told) -> None:
    spec = tiny_spec(condition={"kind": "none"}, sampler={"kind": "euler"}, clip__fps=16.0, **words)
    clips = open_clips(
        spec, str(mixed(tmp_path)), Framing(16, 16), spec.clip.frames if words.get("clip__frames") else 24
    )
    assert {file.path.name for file in clips.files} == kept
    assert clips.report is not None
    clips.report.tell()
    said = capsys.readouterr().err
    assert all(line in said for line in told)
    assert bool(told) == ("skipped" in said)


@pytest.mark.parametrize("fps", [16, 32, 8, Fraction(24000, 1001)])
def test_a_looped_file_starts_anew(tmp_path: Path, fps) -> None:
    """Frame i shows what the file shows at i/fps modulo its length of 10/16 s."""
    path = write_film(tmp_path / "a.mkv", frames=10, options={"bf": "2"})
    data = ClipDataset([probe(Entry(path))], [0], Framing(48, 64), 45, Fraction(fps), 0, loop=True)
    want = [int(Fraction(i) / fps * 16 % 10) for i in range(45)]
    assert [number_of(frame) for frame in data[0].frames] == want


def test_a_single_frame_is_not_told_to_loop(tiny_spec, tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", frames=1)
    spec = tiny_spec(condition={"kind": "none"}, sampler={"kind": "euler"}, train__short="loop")
    with pytest.raises(UserError, match="single frame") as caught:
        open_clips(spec, str(tmp_path), Framing(16, 16), 4)
    assert caught.value.hint is not None
    assert "clip.frames=1" in caught.value.hint
    assert "train.short" not in caught.value.hint


def test_without_a_usable_file_the_reasons_are_told(tiny_spec, tmp_path: Path) -> None:
    images(1)[0].save(tmp_path / "still.png")
    with pytest.raises(UserError, match=r"train\.stills=repeat"):
        open_clips(tiny_spec(condition={"kind": "none"}, sampler={"kind": "euler"}), str(tmp_path), Framing(16, 16), 4)


def test_plain_files_keep_their_fingerprint(tmp_path: Path) -> None:
    """The digest of version 0.1's first data sets: name, frames, rate, times and size of each file, and its label."""
    import hashlib
    import json

    path = write_film(tmp_path / "a.mp4")
    data = ClipDataset([probe(Entry(path))], [3], Framing(16, 16), 4, Fraction(16), 0)
    facts = [["a.mp4", 32, "16", 0, 32768, 64, 48, 3]]
    assert data.fingerprint() == hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def test_files_read_otherwise_than_before_change_the_fingerprint(tmp_path: Path) -> None:
    """A run on frames that were upside down cannot go on unnoticed on upright ones."""
    one = 65536
    plain = write_film(tmp_path / "plain.mp4", frames=4)
    turned = write_film(tmp_path / "turned.mp4", frames=4, matrix=(-one, 0, 0, 0, one, 0, 0, 0, 1 << 30))
    assert probe(Entry(plain)).manner == ""
    assert probe(Entry(turned)).manner == "mirrored"
    large = write_film(tmp_path / "large.mp4", frames=1, size=(720, 1280))
    assert probe(Entry(large)).manner == "BT.709"
    first, *rest = images(3)
    first.save(tmp_path / "moving.webp", save_all=True, append_images=rest)
    infos = [probe(Entry(tmp_path / name)) for name in ("plain.mp4", "turned.mp4", "large.mp4", "moving.webp")]

    def digest(info: FileInfo) -> str:
        return ClipDataset([info], [0], Framing(16, 16), 1, Fraction(1), 0).fingerprint()

    assert [digest(info) != digest(replace(info, manner="")) for info in infos] == [False, True, True, True]


@pytest.mark.parametrize("name", ["clip:01.mp4", "http:x.mp4", "a b.mp4", "50%d.mp4", "noending"])
def test_a_film_is_written_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_mp4(name, np.stack([picture(k) for k in range(3)]), fps=8, quality=1)
    data = ClipDataset([probe(Entry(Path(name)))], [0], Framing(48, 64, train=False), 3, Fraction(8), 0)
    assert [number_of(frame) for frame in data[0].frames] == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("size", [(48, 64), (720, 1280)])
def test_a_written_film_is_tagged_and_comes_back(tmp_path: Path, size) -> None:
    colours = np.zeros((3, *size, 3), np.uint8)
    colours[:] = np.array([(200, 40, 40), (30, 180, 60), (20, 60, 220)], np.uint8)[:, None, None]
    write_mp4(tmp_path / "a.mp4", colours, fps=8, quality=1)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
        tags = (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
    assert tags == (1, 1, 1, 1)  # BT.709 three times, limited range: H.273's numbers
    data = ClipDataset([probe(Entry(tmp_path / "a.mp4"))], [0], Framing(*size, train=False), 3, Fraction(8), 0)
    assert np.abs(data[0].frames.astype(int) - colours).max() <= 4
    assert picture(1).shape == (48, 64, 3)
