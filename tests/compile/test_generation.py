"""Video from a run and from its bundle: the same clips, as real files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sora_spec.cli.generate import generate
from sora_spec.compile.bundle import Bundle
from sora_spec.compile.executors.opening import open_pipeline
from sora_spec.compile.pipeline import Pipeline, default_batch
from sora_spec.errors import UserError
from sora_spec.run_folder import RunFolder

LABELS = [0, 1, 2, 3, 0]


@pytest.fixture(scope="module")
def eager(tiny_run: RunFolder) -> Pipeline:
    return open_pipeline(tiny_run, tiny_run.load_spec(), "torch")


@pytest.fixture(scope="module")
def exported(tiny_bundle: Bundle) -> Pipeline:
    return open_pipeline(tiny_bundle, tiny_bundle.load_spec(), "onnx")


def frames_of(pipeline: Pipeline, **settings: Any) -> NDArray[np.uint8]:
    clips = list(pipeline.generate(LABELS, seed=5, **settings))
    assert [clip.label for clip in clips] == LABELS
    assert [clip.index for clip in clips] == list(range(len(LABELS)))
    return np.stack([clip.frames for clip in clips])


def decode(path: Path) -> tuple[NDArray[Any], Any]:
    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        return frames, (stream.codec_context.name, float(stream.average_rate), stream.codec_context.pix_fmt)


def test_bundle_video_equals_eager_video(eager: Pipeline, exported: Pipeline) -> None:
    wanted, found = frames_of(eager), frames_of(exported)
    assert wanted.shape == (5, 5, 16, 24, 3)
    assert wanted.std() > 5, "a flat video would prove nothing"
    difference = np.abs(wanted.astype(int) - found.astype(int))
    assert difference.mean() <= 2 / 255
    assert difference.max() <= 1
    assert not np.array_equal(found[0], found[4]), "same label, another sample: another clip"


def test_longer_clips_than_trained(tiny_bundle: Bundle, tiny_run: RunFolder) -> None:
    spec = tiny_bundle.load_spec(["clip.frames=9"])
    pipelines = (open_pipeline(tiny_bundle, spec, "onnx"), open_pipeline(tiny_run, spec, "torch"))
    clips = [next(pipeline.generate([1])).frames for pipeline in pipelines]
    assert clips[0].shape == (9, 16, 24, 3)
    assert np.abs(clips[0].astype(int) - clips[1]).max() <= 1


def test_a_clip_is_the_same_in_every_batch(exported: Pipeline) -> None:
    alone = frames_of(exported, batch=1)
    for batch in (2, 3, 5):
        assert np.abs(frames_of(exported, batch=batch).astype(int) - alone).max() <= 1


def test_adaptive_steps_follow_one_clip_at_a_time(toys: Any) -> None:
    assert default_batch(toys.spec(sampler={"kind": "dopri5"})) == 1
    assert default_batch(toys.spec(export={"batch": [1, 8]})) == 8


def test_files_decode_to_the_right_video(
    tiny_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(tiny_bundle.path, labels="0-1", label=["star"], count=6, seed=3, out=tmp_path / "clips")
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in printed] == [
        "000-label2-seed3.mp4",
        "001-label2-seed3.mp4",
        "002-label0-seed3.mp4",
        "003-label0-seed3.mp4",
        "004-label1-seed3.mp4",
        "005-label1-seed3.mp4",
        "contact-sheet.png",
        "generate.json",
    ]
    assert sorted(path.name for path in (tmp_path / "clips").iterdir()) == [path.name for path in printed]
    for path in printed[:6]:
        frames, coded = decode(path)
        assert frames.shape == (5, 16, 24, 3)
        assert coded == ("h264", 8.0, "yuv420p")
    with Image.open(printed[6]) as sheet:
        scale = sheet.width // (5 * 26 - 2)
        assert sheet.size == (scale * (5 * 26 - 2), scale * (6 * 18 - 2))
    record = json.loads(printed[7].read_text())
    assert record["backend"] == "onnx"
    assert record["sampler"]["steps"] == 4
    assert [clip["class"] for clip in record["clips"][::2]] == ["star", "circle", "square"]
    assert set(record["seconds"]) == {"denoiser", "vae_decoder", "video", "total"}


def test_short_options_reach_sampler_and_record(
    tiny_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"steps": 2, "guidance": 3.0, "frames": 3, "overrides": ["sampler.guidance_channels=2"]}
    generate(tiny_run.path, count=1, out=tmp_path, as_json=True, **settings)  # type: ignore[arg-type]
    record = json.loads(capsys.readouterr().out)
    assert record["sampler"] == {"kind": "euler", "steps": 2, "guidance": 3.0, "guidance_channels": 2}
    frames, _ = decode(tmp_path / record["clips"][0]["file"])
    assert len(frames) == 3


def test_nothing_is_overwritten_unasked(tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        generate(tiny_bundle.path, count=1)
    assert sorted(path.name for path in Path("out").iterdir()) == ["tiny-onnx", "tiny-onnx-2"]
    before = Path("out/tiny-onnx/000-label0-seed0.mp4").stat().st_mtime_ns
    with pytest.raises(UserError, match="exists already"):
        generate(tiny_bundle.path, count=1, out=Path("out/tiny-onnx"))
    assert Path("out/tiny-onnx/000-label0-seed0.mp4").stat().st_mtime_ns == before
    generate(tiny_bundle.path, count=1, out=Path("out/tiny-onnx"), force=True)
    assert Path("out/tiny-onnx/000-label0-seed0.mp4").stat().st_mtime_ns > before


def test_bundle_generates_without_torch(tiny_bundle: Bundle, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sora_spec.cli.generate import generate; "
        f"generate(Path({str(tiny_bundle.path)!r}), count=1, out=Path({str(tmp_path / 'clips')!r})); "
        "loaded = {'torch', 'onnx', 'textual', 'tensorrt_rtx', 'sora_spec.builders.denoiser'} & set(sys.modules); "
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "clips" / "generate.json").is_file()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": ["4"]}, "label 4 is outside 0..3"),
        ({"labels": "0-4"}, "label 4 is outside 0..3"),
        ({"labels": "3-1"}, "range 3-1 is empty"),
        ({"label": ["sqare"]}, "unknown label 'sqare'"),
        ({"labels": "0-2", "count": 4}, "--count 4 is not a multiple of the 3 labels"),
        ({"count": 0}, "--count 0 is outside"),
        ({"seed": -1}, "--seed -1 is outside"),
        ({"batch": 0}, "--batch 0"),
        ({"prompt": "a cat"}, "not steered by text"),
        ({"backend": "torch"}, "--backend torch runs run folders"),
        ({"no_ema": True}, "--no-ema goes with a run folder"),
        ({"overrides": ["backbone.depth=3"]}, "fixed by training"),
        ({"steps": 0}, "steps"),
        ({"frames": 4}, "frames"),
        ({"frames": 2049}, "takes 1 to 512 frames"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_written(
    tiny_bundle: Bundle, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as failure:
        generate(tiny_bundle.path, out=tmp_path / "clips", **settings)
    assert message in str(failure.value)
    assert not list(tmp_path.rglob("*.mp4"))


def test_unconditional_model_takes_a_count_and_no_labels(toys: Any, tmp_path: Path) -> None:
    spec = toys.spec(
        condition={"kind": "none"},
        sampler={"kind": "heun", "steps": 1},
        vae={"kind": "identity"},
        clip={"frames": 4, "height": 8, "width": 12, "fps": 8},
    )
    run = toys.run(tmp_path / "run", spec)
    with pytest.raises(UserError, match="takes no labels"):
        generate(run.path, label=["1"], out=tmp_path / "clips")
    generate(run.path, count=2, out=tmp_path / "clips")
    assert sorted(path.name for path in (tmp_path / "clips").glob("*.mp4")) == ["000-seed0.mp4", "001-seed0.mp4"]


def test_what_is_neither_run_nor_bundle_is_refused(tiny_run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        generate(tmp_path / "nothing")
    with pytest.raises(UserError, match="neither a run folder"):
        generate(tmp_path)
    with pytest.raises(UserError, match="--backend onnx runs bundles"):
        generate(tiny_run.path, backend="onnx")
