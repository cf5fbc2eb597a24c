"""The data set: sample number → clip and label, with a bounded cache of small decoded files."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_spec.errors import UserError
from sora_spec.language.schema.condition import ClassCondition, Condition, TextCondition
from sora_spec.train.data.captions import all_captions
from sora_spec.train.data.container import UnusableFileError
from sora_spec.train.data.decode import Pixels, clip_ticks, decode_file, decode_frames, looped_ticks, shown_at
from sora_spec.train.data.labels import number_labels
from sora_spec.train.data.members import member_of
from sora_spec.train.data.missing import find_missing, refuse_all_missing
from sora_spec.train.data.order import draws, file_of
from sora_spec.train.data.picture import Framing, crop, halved_size, scaled_size
from sora_spec.train.data.probe import FileInfo, scan
from sora_spec.train.data.report import DataReport, make_report, refuse_unusable
from sora_spec.train.data.sources import Source, read_source

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

CACHE_BYTES = 512 * 2**20
"""Decoded frames kept per process."""
_CACHED_FILE_SHARE = 64  # a file is cached when it takes at most this fraction of the cache
_ATTEMPTS = 8  # other files tried in place of one that turns out damaged


@dataclass(frozen=True)
class Sample:
    """One clip as decoded: frames (T, Y, X, 3) uint8."""

    number: int
    frames: Pixels
    label: int
    damaged: tuple[str, ...] = ()
    """Files that could not be read in this one's place, with the reason."""
    caption: str | None = None
    """As the source has it; None where the condition is no text."""


class FrameCache:
    """Decoded small files. It fills up and then stays as it is: in random order, eviction would hit no more often."""

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._files: dict[int, tuple[list[int], Pixels]] = {}
        self._damaged: set[int] = set()

    def frames(
        self,
        index: int,
        file: FileInfo,
        ticks: Sequence[Fraction],
        size: tuple[int, int],
        halved: tuple[int, int] | None = None,
    ) -> Pixels:
        """Frames of `file` shown at `ticks`. The same values whether they come from the cache or from the disk."""
        if index not in self._files and self._admits(file, size) and index not in self._damaged:
            self._keep(index, file, size, halved)
        if index not in self._files:
            return decode_frames(file, ticks, size, halved)
        pts, pixels = self._files[index]
        return pixels[[0] * len(ticks) if file.still else shown_at(pts, ticks)]

    def _keep(self, index: int, file: FileInfo, size: tuple[int, int], halved: tuple[int, int] | None) -> None:
        try:
            self._files[index] = decode_file(file, size, halved)
        except UnusableFileError:
            self._damaged.add(index)  # a clip may lie where the file is whole, as it would be found without a cache
        else:
            self.used_bytes += self._files[index][1].nbytes

    def _admits(self, file: FileInfo, size: tuple[int, int]) -> bool:
        needed = file.frames * size[0] * size[1] * 3
        return needed * _CACHED_FILE_SHARE <= self.limit_bytes and self.used_bytes + needed <= self.limit_bytes


@dataclass
class ClipDataset:
    """Map-style data set over sample numbers; picklable, so that worker processes can be started cleanly."""

    files: list[FileInfo]
    labels: list[int]
    framing: Framing
    frames: int
    fps: Fraction
    seed: int
    classes: list[str] | None = None
    """Class names in label order; None without labels."""
    captions: list[str] | None = None
    """One for each file where the condition is text; None elsewhere."""
    report: DataReport | None = None
    """What became of every file of the source."""
    loop: bool = False
    """Files shorter than a clip start anew when they end."""
    cache: FrameCache = field(default_factory=FrameCache)

    def __len__(self) -> int:
        """Number of files: one epoch."""
        return len(self.files)

    def __getitem__(self, number: int) -> Sample:
        """Sample `number`, which may exceed the number of files: epochs follow one another.

        A file that turns out damaged is replaced by another one, chosen by the same rule in every run.
        Raises UserError when several in a row are damaged.
        """
        damaged: list[str] = []
        for attempt in range(_ATTEMPTS):
            # A spare file is taken from a far-away epoch, where it does not meet the regular order.
            index = file_of(self.seed, number + attempt * 2**40, len(self.files))
            try:
                frames = self._clip(index, draws(self.seed, number, attempt))
            except UnusableFileError as error:
                damaged.append(str(error))
                continue
            caption = None if self.captions is None else self.captions[index]
            return Sample(number, frames, self.labels[index], tuple(damaged), caption)
        raise UserError(f"{_ATTEMPTS} damaged files in a row, the last one: {damaged[-1]}", "check the data on disk")

    def _clip(self, index: int, uniform: tuple[float, ...]) -> Pixels:
        file = self.files[index]
        offset, zoom, *place = uniform
        source, target = (file.height, file.width), (self.framing.height, self.framing.width)
        halved = halved_size(source, target) if file.still and self.framing.center else None
        size = scaled_size(halved or source, self.framing, zoom)
        fixed = self.framing.zoom == 1  # otherwise every visit has a size of its own
        starts = file.starts(self.frames, self.fps)
        if self.loop and not starts:
            ticks, order = looped_ticks(file, self.frames, self.fps)
        else:
            start = int(offset * starts) if self.framing.train else 0
            ticks, order = clip_ticks(file, start, self.frames, self.fps), None
        if fixed:
            frames = self.cache.frames(index, file, ticks, size, halved)
        else:
            frames = decode_frames(file, ticks, size, halved)
        frames = frames if order is None else frames[order]
        return crop(frames, self.framing, (place[0], place[1], place[2]))

    def __getstate__(self) -> dict[str, Any]:
        """Decoded frames and the report stay behind when the data set travels to a worker."""
        return self.__dict__ | {"cache": FrameCache(self.cache.limit_bytes), "report": None}

    def fingerprint(self) -> str:
        """Digest of what decides the samples: files in order with lengths, labels and captions. Folders may move."""
        facts: list[Any] = [
            # A plain file has no seventh fact about itself, so that data sets of plain files keep their digest.
            (file.path.name, file.frames, str(file.rate), file.first, file.end, file.width, file.height)
            + ((file.manner,) if file.manner else ())
            + (label,)
            for file, label in zip(self.files, self.labels, strict=True)
        ]
        if self.captions is not None:
            facts.append(self.captions)
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def sizes(self) -> str:
        """Digest of how many bytes each file has: other pictures under the old names seldom have as many."""
        return hashlib.sha256(json.dumps([_size(file.path) for file in self.files]).encode()).hexdigest()


def _size(path: Path) -> int | None:
    try:
        member = member_of(path)
        return path.stat().st_size if member is None else member.size
    except (OSError, tarfile.TarError):
        return None  # reading it will say so


def exact_fps(fps: float) -> Fraction:
    """The rate a decimal stands for: 29.97 and 23.976 mean the NTSC rates 30000/1001 and 24000/1001."""
    ntsc = Fraction(round(fps * 1001 / 1000) * 1000, 1001)
    if fps != round(fps) and abs(float(ntsc) - fps) < 5e-4:
        return ntsc
    return Fraction(fps).limit_denominator(10_000)


def open_clips(spec: Spec, source: str, framing: Framing, frames: int, labelled: bool = True) -> ClipDataset:
    """Scan `source` for clips of `frames` at the spec's rate, with labels or captions as the condition wants them.

    `labelled`: these are used; without, a source that has none, or others, will do.

    Raises UserError when the source is missing, has no usable file, or its labels or captions do not fit the spec.
    """
    read = read_source(source)
    fps = exact_fps(spec.clip.fps)
    numbering = label_source(read, spec.condition, labelled)
    captions = all_captions(read) if labelled and isinstance(spec.condition, TextCondition) else None
    missing = find_missing(read)
    refuse_all_missing(read, missing)
    gone = set(missing)
    tried = [index for index in range(len(read.entries)) if index not in gone]
    asked = read.entries.chosen(tried) if gone else read.entries
    found = scan(asked, frames, fps, spec.train.short, spec.train.stills)
    classes = spec.condition.classes if isinstance(spec.condition, ClassCondition) else None
    report = make_report(read, missing, found, numbering if labelled else None, classes, captions is not None)
    refuse_unusable(report)
    numbers, names = numbering if numbering is not None else ([0] * len(read.entries), None)
    kept = [tried[place] for place in found.kept]
    return ClipDataset(
        found.files,
        [numbers[index] for index in kept],
        framing,
        frames,
        fps,
        spec.train.seed,
        names if labelled else None,
        None if captions is None else [captions[index] for index in kept],
        report,
        loop=spec.train.short == "loop",
    )


def label_source(read: Source, condition: Condition, needed: bool = True) -> tuple[list[int], list[str]] | None:
    """Label number of every entry, and class names in label order, where the condition is a class.

    Raises UserError for labels that do not fit it, where they are `needed`.
    """
    if not isinstance(condition, ClassCondition):
        return None
    try:
        return number_labels(read.entries, condition.classes, read.path, read)
    except UserError:
        if needed:
            raise
        return None
