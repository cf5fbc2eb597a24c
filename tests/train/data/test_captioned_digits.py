"""Sentences are true of the clips beside them, repeat under a seed, and what is held out was never trained on."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sora_spec.cli import main
from sora_spec.train.data.captioned_digits import CaptionedClip, CaptionedRecipe, plan_captioned, write_captioned
from sora_spec.train.data.digits import DigitsRecipe, plan_clips, render, split_samples, write_digits
from sora_spec.train.data.sources import find_entries
from sora_spec.train.data.wordings import HELD_OUT

RECIPE = CaptionedRecipe(clips=400, held_out=200)
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def planned() -> list[CaptionedClip]:
    return list(plan_captioned(RECIPE))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioned") / "digits"
    write_captioned(folder, CaptionedRecipe(clips=30, held_out=20))
    return folder


def test_light_moves_as_the_truth_says(planned: list[CaptionedClip]) -> None:
    """Seen in the pictures alone: the centre of light goes the way, and at the speed, that is written."""
    grid = np.arange(32) + 0.5
    for clip in [clip for clip in planned if len(clip.glyphs) == 1][::7]:
        light = clip.frames(32)[..., 0].astype(float)
        mass = light.sum((1, 2))
        rows, columns = (light.sum(2) @ grid) / mass, (light.sum(1) @ grid) / mass
        ways = {"down": rows[-1] - rows[0], "right": columns[-1] - columns[0]}
        ways |= {"up": -ways["down"], "left": -ways["right"]}
        seen = clip.glyphs[0].seen
        assert max(ways, key=lambda way: ways[way]) == seen.direction
        assert seen.speed == ("fast" if ways[seen.direction] / 15 > 0.42 else "slow")
        assert clip.glyphs[0].corner.min() >= 0
        assert clip.glyphs[0].corner.max() <= 10


def test_two_digits_stay_in_their_halves(planned: list[CaptionedClip]) -> None:
    pairs = [clip for clip in planned if len(clip.glyphs) == 2]
    assert 0.13 < len(pairs) / len(planned) < 0.27
    for clip in pairs:
        axis = 0 if clip.glyphs[0].seen.place == "top" else 1
        first, second = (glyph.corner[:, axis] for glyph in clip.glyphs)
        assert first.min() >= 0
        assert first.max() <= 2
        assert second.min() >= 16
        assert second.max() <= 18


def test_a_sentence_names_digit_direction_and_speed(planned: list[CaptionedClip]) -> None:
    words = {
        "left": ("left",), "right": ("right",), "up": ("top", "upw", "up the", "upper"),
        "down": ("bottom", "downw", "down the", "lower"),
        "slow": ("slow", "unhurried", "low speed"), "fast": ("quick", "fast", "rapid", "high speed"),
    }  # fmt: skip
    for clip in [clip for clip in planned if len(clip.glyphs) == 1]:
        seen = clip.glyphs[0].seen
        assert str(seen.digit) in clip.caption or NAMES[seen.digit] in clip.caption
        for fact, opposite in (
            (seen.direction, {"left": "right", "right": "left", "up": "down", "down": "up"}[seen.direction]),
            (seen.speed, {"slow": "fast", "fast": "slow"}[seen.speed]),
        ):
            assert any(word in clip.caption for word in words[fact]), clip.caption
            assert not any(word in clip.caption for word in words[opposite]), clip.caption
    assert not any(" a eight" in f" {clip.caption}" or "{" in clip.caption for clip in planned)


def test_what_is_held_out_was_never_seen(planned: list[CaptionedClip]) -> None:
    trained = [clip for clip in planned if clip.split == "train"]
    kept = [clip for clip in planned if clip.split == "test"]
    assert not {clip.caption for clip in trained} & {clip.caption for clip in kept}
    assert {clip.wording for clip in trained} == {"plain"}
    assert Counter(clip.wording for clip in kept) == dict.fromkeys(HELD_OUT, 50)
    new = ("figure", "white", "floats", "heads", "we see", "a video of")
    assert not any(word in clip.caption for clip in trained for word in new)
    assert all(any(word in clip.caption for word in new) for clip in kept if clip.wording in ("words", "all"))
    pictures = {picture.tobytes() for picture in split_samples("train")[0]}
    assert all(glyph.picture.tobytes() not in pictures for clip in kept for glyph in clip.glyphs)


def test_a_clip_depends_on_seed_and_number_only(planned: list[CaptionedClip]) -> None:
    again = list(plan_captioned(replace(RECIPE, clips=25, held_out=0)))
    assert [(clip.caption, clip.truth()) for clip in again] == [(clip.caption, clip.truth()) for clip in planned[:25]]
    other = next(plan_captioned(replace(RECIPE, seed=1)))
    assert other.truth() != planned[0].truth()


def test_the_folder_holds_two_lists_and_the_truth(written: Path) -> None:
    truth = json.loads((written / "truth.json").read_text())
    assert len(truth) == 50
    for name, count in (("captions.csv", 30), ("held-out.csv", 20)):
        entries = find_entries(written / name)
        with (written / name).open(newline="") as file:
            rows = list(csv.reader(file))[1:]
        assert [*zip(entries.paths, entries.captions, strict=True)] == [tuple(row) for row in rows]
        assert [truth[path]["caption"] for path, _ in rows] == [caption for _, caption in rows]
        assert len(entries) == count
        assert all((written / path).is_file() for path in entries.paths)
    about = json.loads((written / "dataset.json").read_text())
    assert len(about["files"]) == 53
    write_captioned(written, CaptionedRecipe(clips=30, held_out=20), force=True)


def test_files_are_the_same_bytes_every_time(written: Path, tmp_path: Path) -> None:
    write_captioned(tmp_path / "again", CaptionedRecipe(clips=30, held_out=20))
    for path in written.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (tmp_path / "again" / path.relative_to(written)).read_bytes()


def test_without_captions_nothing_has_changed(tmp_path: Path) -> None:
    """Pictures as they were before captions came, and a record without new facts."""
    digest = hashlib.sha256()
    for clip in plan_clips(DigitsRecipe(clips=20)):
        digest.update(render(clip, 32).tobytes())
    assert digest.hexdigest() == "aa9964cf12d5f97fb62bf4c0fb73e85ef7bb522d60dada06d72e57dd7a804476"
    write_digits(tmp_path / "plain", DigitsRecipe(clips=10, frames=2))
    about = json.loads((tmp_path / "plain" / "dataset.json").read_text())
    assert list(about) == ["made_by", "about", "source", "recipe", "files"]
    assert list(about["recipe"]) == ["clips", "frames", "size", "fps", "split", "seed"]
    assert len(about["files"]) == 11


def test_options_that_contradict_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["sora-spec", "data", "digits", str(tmp_path / "out"), *options])
        with pytest.raises(SystemExit) as stop:
            main.run()
        assert stop.value.code == 2
        return capsys.readouterr().err

    assert "leave --split out" in refusal("--captions", "--split", "test")
    assert "--held-out goes with --captions" in refusal("--held-out", "20")
    assert not (tmp_path / "out").exists()
