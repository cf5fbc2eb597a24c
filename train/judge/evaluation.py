"""Generated clips beside real ones: what judges read, how clips spread and move, and how far they are from real."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora_spec.errors import UserError
from sora_spec.train.data.clips import ClipDataset, exact_fps
from sora_spec.train.data.container import UnusableFileError
from sora_spec.train.data.decode import decode_file
from sora_spec.train.data.digits import Split
from sora_spec.train.data.entries import Entry
from sora_spec.train.data.order import file_of
from sora_spec.train.data.picture import Framing
from sora_spec.train.data.probe import probe
from sora_spec.train.judge.asked import Asked, DigitsData
from sora_spec.train.judge.measures import Extractor, frechet_distance, sharpness, within_class_variance
from sora_spec.train.judge.reading import Verdict, see
from sora_spec.video import write_mp4

RECORD = "generate.json"
FEWEST = 20
"""Clips that can be judged as a set."""
NEEDED = 0.97
"""Share of real held-out clips that the judges must read, or what they say of others means little."""
Row = dict[str, Any]
_SPLITS: tuple[Split, Split] = ("test", "train")


@dataclass(frozen=True)
class Judged:
    """A set of clips (N, T, Y, X) in [0, 1] with what was asked for and what was seen."""

    clips: NDArray[np.float64]
    asked: Sequence[Asked]
    seen: Sequence[list[Verdict]]

    @classmethod
    def of(cls, clips: NDArray[np.float64], asked: Sequence[Asked]) -> Judged:
        """Look at every clip."""
        return cls(clips, asked, [see(*pair) for pair in zip(clips, asked, strict=True)])


@dataclass(frozen=True)
class Yardstick:
    """Real clips, as many of either split as there are clips to judge."""

    held_out: Judged
    training: Judged
    limit: float | None
    """Pixels a frame that separate slow from fast; None where neither is asked for."""

    @classmethod
    def of(cls, data: DigitsData, clip: Any, count: int, seed: int) -> Yardstick:
        """Draw real clips of the geometry that the spec's section `clip` says."""
        limit = None
        if data.threshold is not None:
            limit = data.threshold * data.recipe.fps / clip.fps * clip.height / data.recipe.size
        held_out, training = (Judged.of(*real_clips(data, clip, split, count, seed)) for split in _SPLITS)
        return cls(held_out, training, limit)

    def judge(self, clips: NDArray[np.float64], asked: Sequence[Asked]) -> dict[str, Any]:
        """Measure generated clips (N, T, Y, X) beside the real ones."""
        made = Judged.of(clips, asked)
        extractor = Extractor.of(self.training.clips)
        reference = extractor.features(self.held_out.clips)
        sets = {"generated": made, "held_out": self.held_out, "training": self.training}
        rows = {name: _row(each, self.limit) for name, each in sets.items()}
        for name in ("generated", "training"):
            rows[name]["frechet"] = frechet_distance(extractor.features(sets[name].clips), reference)
        found: dict[str, Any] = {name: _rounded(row) for name, row in rows.items()}
        found["ratios"] = _rounded(_ratios(rows))
        found["parts"] = {name: _rounded(_row(part, self.limit)) for name, part in _parts(made).items()}
        found["confusion"] = _confusion(made)
        return found


def real_clips(
    data: DigitsData, clip: Any, split: Split, count: int, seed: int
) -> tuple[NDArray[np.float64], list[Asked]]:
    """Real clips as training sees them, encoded and decoded like generated ones, and what they show."""
    drawn = list(data.clips(split, count))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.mp4") for number in range(count)]
        for path, one in zip(paths, drawn, strict=True):
            write_mp4(path, one.frames, data.recipe.fps, quality=10)
        files = [probe(Entry(path)) for path in paths]
        fps = exact_fps(clip.fps)
        short = next((file for file in files if not file.starts(clip.frames, fps)), None)
        if short is not None:
            raise UserError(
                f"clips of {clip.frames} frames at {clip.fps:g} fps are longer than the data set's {short.seconds:g} s",
                "judge shorter ones, or name another data set: --data FOLDER",
            )
        framing = Framing(clip.height, clip.width, center=True)
        clips = ClipDataset(files, [0] * count, framing, clip.frames, fps, seed)
        found = np.stack([_grey(clips[number].frames) for number in range(count)])
    return found, [drawn[file_of(seed, number, count)].shows for number in range(count)]


def _grey(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """BT.709 luma of frames (T, Y, X, 3), in [0, 1]."""
    return frames @ np.array([0.2126, 0.7152, 0.0722]) / 255.0


@dataclass(frozen=True)
class Record:
    """What `generate.json` says of a folder of clips."""

    values: dict[str, Any]
    files: list[Path]
    prompts: list[str]
    """Label or prompt of each clip."""

    @property
    def clip(self) -> SimpleNamespace:
        """Frames, height, width and fps of the clips."""
        return SimpleNamespace(**self.values["clip"])


def read_record(folder: Path) -> Record:
    """Raises UserError where there is no such record, or it is damaged."""
    path = folder / RECORD
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        files = [folder / str(clip["file"]) for clip in values["clips"]]
        prompts = [clip["label"] if clip.get("prompt") is None else clip["prompt"] for clip in values["clips"]]
        record = Record(values, files, [str(prompt) for prompt in prompts])
        assert all(isinstance(value, int | float) for value in (values["seed"], *values["clip"].values()))
        assert {"frames", "height", "width", "fps"} <= values["clip"].keys()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        raise UserError(f"{path} is no record of `sora-spec generate`", "generate the clips anew") from None
    return record


def read_generated(record: Record) -> NDArray[np.float64]:
    """The clips (N, T, Y, X) of a record. Raises UserError where one is missing, damaged, or not as recorded."""
    clips: list[NDArray[np.float64]] = []
    for file in record.files:
        try:
            frames = decode_file(probe(Entry(file)), (record.clip.height, record.clip.width))[1]
        except UnusableFileError as error:
            raise UserError(f"{file}: {error}", f"{RECORD} beside it names it; generate the clips anew") from None
        if len(frames) != record.clip.frames:
            raise UserError(f"{file} holds {len(frames)} frames in place of {record.clip.frames}", "generate it anew")
        clips.append(_grey(frames))
    if len(clips) < FEWEST or record.clip.frames < 2:
        what = f"{len(clips)} clips of {record.clip.frames} frames"
        raise UserError(f"{what} are too few to measure", f"judge {FEWEST} clips of 2 frames or more")
    return np.stack(clips)


def shuffled(asked: Sequence[Asked], seed: int) -> list[Asked]:
    """What other clips were asked for, in place of their own: what judges then read is chance."""
    order = np.random.default_rng(seed).permutation(len(asked))
    return [asked[index] for index in order]


def _row(judged: Judged, limit: float | None) -> Row:
    """What is measured of one set of clips."""
    pairs = list(zip(judged.asked, judged.seen, strict=True))
    alone = [(one.digits[0], seen[0]) for one, seen in pairs if len(one.digits) == 1]
    speeds = np.array([seen.speed for _, seen in alone])
    row: Row = {"clips": len(pairs), "read_as_asked": _share([_read(one, seen) for one, seen in pairs])}
    if limit is not None:
        row["moves_as_asked"] = _share([_moves(one, seen) for one, seen in pairs])
        row["speed_as_asked"] = _share([_speeds(one, seen, limit) for one, seen in pairs])
    if alone:
        pictures = np.stack([seen.picture for _, seen in alone])
        row["within_class_variance"] = within_class_variance(pictures, [digit.digit for digit, _ in alone])
        row["speed"], row["speed_deviation"] = float(speeds.mean()), float(speeds.std())
    row["sharpness"] = sharpness(judged.clips)
    return row


def _read(asked: Asked, seen: Sequence[Verdict]) -> bool:
    return all(digit.digit == verdict.digit for digit, verdict in zip(asked.digits, seen, strict=True))


def _moves(asked: Asked, seen: Sequence[Verdict]) -> bool:
    return all(digit.direction == verdict.direction for digit, verdict in zip(asked.digits, seen, strict=True))


def _speeds(asked: Asked, seen: Sequence[Verdict], limit: float) -> bool:
    return all(
        (digit.speed == "fast") == (verdict.velocity > limit) for digit, verdict in zip(asked.digits, seen, strict=True)
    )


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right)


def _ratios(rows: dict[str, Row]) -> Row:
    """Generated clips in shares of real ones: variance and speed, and the distance in multiples of its floor."""
    made, real = rows["generated"], rows["held_out"]
    ratios = {name: made[name] / real[name] for name in ("within_class_variance", "speed", "sharpness") if name in made}
    return ratios | {"frechet": made["frechet"] / rows["training"]["frechet"]}


def _parts(judged: Judged) -> dict[str, Judged]:
    """By wording and by number of digits, where clips differ in these."""
    groups: dict[str, list[int]] = {}
    for index, one in enumerate(judged.asked):
        if one.wording is not None:
            groups.setdefault(f"new: {one.wording}", []).append(index)
            groups.setdefault("one digit" if len(one.digits) == 1 else "two digits", []).append(index)
    return {
        name: Judged(judged.clips[chosen], [judged.asked[k] for k in chosen], [judged.seen[k] for k in chosen])
        for name, chosen in sorted(groups.items())
    }


def _confusion(judged: Judged) -> list[list[int]]:
    """Counts [asked][read]."""
    counts = np.zeros((10, 10), int)
    for one, seen in zip(judged.asked, judged.seen, strict=True):
        for digit, verdict in zip(one.digits, seen, strict=True):
            counts[digit.digit, verdict.digit] += 1
    return counts.tolist()


def _rounded(row: Row) -> Row:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
