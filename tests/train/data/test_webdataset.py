"""Clips inside tars: the same frames as outside, captions kept, and no damaged tar read in part."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sora_spec.errors import UserError
from sora_spec.train.data.check import check_source
from sora_spec.train.data.clips import open_clips
from sora_spec.train.data.decode import decode_file
from sora_spec.train.data.entries import Entry
from sora_spec.train.data.loader import load_batches
from sora_spec.train.data.order import BatchOrder, file_of
from sora_spec.train.data.picture import Framing
from sora_spec.train.data.probe import probe
from sora_spec.train.data.sources import read_source
from tests.train.data.test_captions import ODD


def write_tar(path: Path, files: Mapping[str, bytes], kind: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def videos(digits: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(digits.rglob("*.mp4"))[: len(ODD)]]


@pytest.fixture
def shards(videos: list[bytes], tmp_path: Path) -> Path:
    """Two tars in a folder with an odd name; captions as text in the first, as JSON in the second."""
    first = {f"{n:03d}{end}": text for n in range(5) for end, text in ((".txt", ODD[n].encode()), (".mp4", videos[n]))}
    second = {
        f"./in/{n:03d}{end}": text
        for n in range(5, len(ODD))
        for end, text in ((".mp4", videos[n]), (".json", json.dumps({"caption": ODD[n], "fps": 8}).encode()))
    }
    folder = tmp_path / "a.tar,,x y:1"
    write_tar(folder / "000.tar", first)
    write_tar(folder / "001.tar", second, tarfile.PAX_FORMAT)
    return folder


def test_clips_and_captions_come_out_whole(shards: Path, videos: list[bytes], tiny_spec: Any, tmp_path: Path) -> None:
    source = read_source(shards)
    assert tuple(source.entries.captions) == ODD
    assert source.entries.paths[0] == "000.tar/000.mp4"
    spec = tiny_spec(condition={"kind": "text", "encoder": "none", "pooled": True})
    clips = open_clips(spec, str(shards), Framing(16, 16), 4)
    assert [path.name for path in tmp_path.iterdir()] == [shards.name]  # nothing was unpacked
    for number, content in enumerate(videos):
        (tmp_path / "plain.mp4").write_bytes(content)
        plain, inside = probe(Entry(tmp_path / "plain.mp4")), clips.files[number]
        assert np.array_equal(decode_file(plain, (16, 16))[1], decode_file(inside, (16, 16))[1])
    for workers in (0, 1):
        batch = next(load_batches(clips, BatchOrder(4, 1), workers))
        assert batch.captions == tuple(ODD[file_of(clips.seed, n, len(clips))] for n in range(4))
    assert clips.sizes() != clips.__class__(clips.files[1:], [0] * 8, clips.framing, 4, clips.fps, 0).sizes()


def test_one_tar_with_classes_and_pictures(videos: list[bytes], tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), 200, np.uint8)).save(picture, "PNG")
    path = write_tar(
        tmp_path / "t.tar",
        {
            "a.mp4": videos[0], "a.cls": b"3\n", "a.jpg": b"x", "b.png": picture.getvalue(), "b.json": b'{"label": 1}',
            "c.mp4": videos[1], "c.mp3": b"x", "d.mp4": b"no video", "e.mp4": b"",
        },
    )  # fmt: skip
    check = check_source(str(path), None)
    problems = {row["path"].removeprefix(f"{path}/"): row["problem"] for row in check.rows}
    assert [name for name, problem in problems.items() if problem is None] == ["a.mp4", "b.png", "c.mp4"]
    assert "empty" in problems["e.mp4"]
    assert read_source(path).entries.labels == ["3", "1", None, None, None]
    assert check.report.ignored.counts == {
        "pictures beside a video of the same name (thumbnails)": 1, "suffix .mp3": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"a.txt": b"caf\xe9"}, r"a\.txt is not UTF-8 text"),
        ({"a.json": b"{"}, r"a\.json is not JSON"),
        ({"a.json": b"[]"}, r"a\.json is no JSON object"),
        ({"a.json": b'{"caption": 3}'}, r"a\.json: caption 3 is not text"),
        ({"a.json": b'{"caption": "x\\ud83d"}'}, r"a\.json: .*half of a character"),
        ({"a.json": b'{"caption": "x"}', "a.txt": b"y"}, "a has two captions"),
        ({"a.json": b'{"label": 0.5}'}, "a: label 0.5"),
        ({"a.webm": b"x"}, r"a\.mp4 and a\.webm are two clips of one key"),
    ],
)
def test_what_is_not_understood(videos: list[bytes], tmp_path: Path, extra: dict[str, bytes], words: str) -> None:
    with pytest.raises(UserError, match=rf"t\.tar: {words}"):
        read_source(write_tar(tmp_path / "t.tar", {"a.mp4": videos[0], **extra}))


def test_a_damaged_tar_is_refused(shards: Path, tmp_path: Path) -> None:
    whole = (shards / "000.tar").read_bytes()
    damaged = {
        "inside a clip": whole[:3000],
        "between two clips": whole[: 512 * 2],
        "compressed": gzip.compress(whole),
        "text": b"path,caption\n" * 200,
        "empty": b"",
    }
    for raw in damaged.values():
        (tmp_path / "t.tar").write_bytes(raw)
        with pytest.raises(UserError, match=r"t\.tar (cannot be read as a tar|names no video)"):
            read_source(tmp_path / "t.tar")


def test_links_and_paths_that_lead_out_are_not_followed(videos: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(videos[0])
    path = write_tar(tmp_path / "in" / "t.tar", {"../../out.mp4": videos[1], "/abs.mp4": videos[2]})
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.mp4")
        archive.addfile(link)
    check = check_source(str(path), None)
    assert [row["problem"] for row in check.rows] == [None, None]
    assert sorted(entry.path.name for entry in read_source(path).entries) == ["abs.mp4", "out.mp4"]
    assert sorted(path.name for path in tmp_path.rglob("*.mp4")) == ["secret.mp4"]


def test_a_playlist_inside_a_tar_is_not_followed(videos: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(videos[0])
    path = write_tar(tmp_path / "t.tar", {"a.mp4": f"ffconcat version 1.0\nfile {tmp_path}/b.mp4\n".encode()})
    assert check_source(str(path), None).rows[0]["problem"] is not None
