"""The digits on disk are scikit-learn's, move as promised, and nothing of the user's is ever overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sora_spec.errors import UserError
from sora_spec.language.packaged import install_command
from sora_spec.train.data.digits import DigitsRecipe, bounce, plan_clips, render, split_samples, write_digits
from sora_spec.train.data.made import MadeFolder
from sora_spec.train.data.probe import probe
from sora_spec.train.data.real_clips import write_real_clips
from sora_spec.train.data.sources import Entry, find_entries


def test_folder_layout_and_list_agree(digits: Path) -> None:
    lines = [json.loads(line) for line in (digits / "clips.jsonl").read_text().splitlines()]
    assert len(lines) == 40
    assert [line["label"] for line in lines] == [k % 10 for k in range(40)]
    assert lines[3]["caption"].startswith("a handwritten 3 moving ")
    by_folder = {entry.path: entry.label for entry in find_entries(digits)}
    by_list = {entry.path: entry.label for entry in find_entries(digits / "clips.jsonl")}
    assert by_folder == by_list
    info = probe(Entry(digits / lines[0]["path"]))
    assert (info.frames, info.rate, info.width, info.height) == (8, 8, 16, 16)


def test_splits_share_no_handwriting_and_cover_all_of_it() -> None:
    train, train_labels = split_samples("train")
    test, test_labels = split_samples("test")
    assert len(train) + len(test) == len(load_digits()["images"]) == 1797
    assert 0.18 < len(test) / 1797 < 0.22
    assert set(train_labels) == set(test_labels) == set(range(10))
    both = np.concatenate([train, test]).reshape(1797, -1)
    official = load_digits()["images"].reshape(1797, -1) / 16
    assert np.array_equal(np.sort(both, axis=0), np.sort(official, axis=0))


def test_the_picture_can_be_read_back_from_a_frame() -> None:
    """Averaging the digit's 26×26 pixels down to 8×8 gives the handwritten sample, wherever it is."""
    for clip in list(plan_clips(DigitsRecipe(clips=10)))[::3]:
        clip.corner[:] = np.round(clip.corner)
        frame = render(clip, 32)[5, :, :, 0] / 255
        top, left = clip.corner[5].astype(int)
        small = frame[top : top + 26, left : left + 26].repeat(4, 0).repeat(4, 1).reshape(8, 13, 8, 13).mean((1, 3))
        assert np.corrcoef(small.ravel(), clip.picture.ravel())[0, 1] > 0.95


def test_motion_is_smooth_and_stays_inside() -> None:
    for clip in plan_clips(DigitsRecipe(clips=30, frames=64)):
        assert clip.corner.min() >= 0
        assert clip.corner.max() <= 6
        speed = np.linalg.norm(np.diff(clip.corner, axis=0), axis=1)
        assert speed.max() <= 1.5 + 1e-9
        frames = render(clip, 32).astype(float)
        assert np.abs(np.diff(frames.sum((1, 2, 3)))).max() < 0.12 * frames[0].sum()  # light neither comes nor goes
    assert bounce(np.array([-1.0, 0.0, 3.0, 4.0, 5.0, 9.0]), 4.0).tolist() == [1, 0, 3, 4, 3, 1]


def test_a_clip_depends_on_its_number_only() -> None:
    few, many = list(plan_clips(DigitsRecipe(clips=5))), list(plan_clips(DigitsRecipe(clips=50)))
    assert all(np.array_equal(a.corner, b.corner) for a, b in zip(few, many, strict=False))
    other = next(plan_clips(DigitsRecipe(clips=1, seed=1)))
    assert not np.array_equal(other.corner, few[0].corner)


def test_an_occupied_folder_is_left_alone(tmp_path: Path) -> None:
    recipe = DigitsRecipe(clips=10, frames=2, size=16)
    out = tmp_path / "out"
    write_digits(out, recipe)
    with pytest.raises(UserError, match="not empty"):
        write_digits(out, recipe)
    (out / "3" / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match=r"not made here, the first is 3/mine\.txt"):
        write_digits(out, recipe, force=True)
    assert (out / "3" / "mine.txt").read_text() == "keep"
    (out / "3" / "mine.txt").unlink()
    write_digits(out, DigitsRecipe(clips=20, frames=2, size=16), force=True)
    assert len(list(out.rglob("*.mp4"))) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_trusts_only_our_own_record(tmp_path: Path) -> None:
    (tmp_path / "photo.mp4").write_bytes(b"x")
    for record in ("not json", "[]", '{"made_by": "someone", "files": ["photo.mp4"]}'):
        (tmp_path / "dataset.json").write_text(record)
        with pytest.raises(UserError, match="were not made here"), MadeFolder(tmp_path, force=True).filling():
            pass
    assert (tmp_path / "photo.mp4").exists()


def test_a_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with MadeFolder(tmp_path / "out").filling() as folder:
            (folder / "a").write_text("x")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_real_clips_are_copied_byte_for_byte(tmp_path: Path) -> None:
    paths = write_real_clips(tmp_path / "clips")
    assert {path.name: path.stat().st_size for path in paths} == {
        "bigbuckbunny.mp4": 1055736,
        "bikes.mp4": 509868,
        "carphone_distorted.mp4": 7019,
        "carphone_pristine.mp4": 588804,
    }


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def missing(name: str):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(UserError) as error:
        write_real_clips(tmp_path / "clips")
    assert error.value.hint == install_command("clips")
