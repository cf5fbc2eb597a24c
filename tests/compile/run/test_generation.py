"""Video from a run and from its bundle: the same clips, as real files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from sora_spec.builders.weights.dit import to_official
from sora_spec.cli.export import export
from sora_spec.cli.generate import generate
from sora_spec.compile.bundle.bundle import Bundle
from sora_spec.compile.run.executors.opening import open_pipeline
from sora_spec.compile.run.executors.spec_source import SpecSource
from sora_spec.compile.run.labels import check_names, plan_labels
from sora_spec.compile.run.pipeline import Pipeline, default_batch
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from sora_spec.language.loading import dump_spec

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
    settings = {"steps": 2, "guidance": 3.0, "frames": 3, "words": ["sampler.guidance_channels=2"]}
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
        ({"words": ["backbone.depth=3"]}, "fixed by training"),
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


IMAGES: dict[str, Any] = {
    "vae": {"kind": "identity"},
    "clip": {"frames": 1, "height": 8, "width": 12, "fps": 1},
    "temporal": {"kind": "none"},
    "sampler": {"kind": "euler", "steps": 2, "guidance": 2.0},
}


@pytest.fixture(scope="module")
def image_run(toys: Any, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Labels for four classes, data of two."""
    return toys.run(tmp_path_factory.mktemp("images") / "run", toys.spec(**IMAGES), classes=["cat", "dog"])


def test_images_are_written_without_loss(image_run: RunFolder, tmp_path: Path) -> None:
    generate(image_run.path, label=["dog", "none"], out=tmp_path, seed=2)
    pipeline = open_pipeline(image_run, image_run.load_spec(), "torch")
    clips = list(pipeline.generate([1, None], seed=2))
    names = ["000-label1-seed2.png", "001-none-seed2.png"]
    for clip, name in zip(clips, names, strict=True):
        with Image.open(tmp_path / name) as image:
            assert np.array_equal(np.asarray(image), clip.frames[0])
    record = json.loads((tmp_path / "generate.json").read_text())
    assert [(clip["label"], clip["class"]) for clip in record["clips"]] == [(1, "dog"), (None, None)]


def test_without_a_label_the_null_row_is_used_unguided(image_run: RunFolder) -> None:
    spec = image_run.load_spec()
    unconditional = next(open_pipeline(image_run, spec, "torch").generate([None], seed=4)).frames
    plain = spec.model_copy(update={"sampler": spec.sampler.model_copy(update={"guidance": 1.0})})
    null_row = next(open_pipeline(image_run, plain, "torch").generate([4], seed=4)).frames
    assert np.array_equal(unconditional, null_row)


def test_a_clip_without_label_is_the_same_beside_others(image_run: RunFolder) -> None:
    pipeline = open_pipeline(image_run, image_run.load_spec(), "torch")
    together = [clip.frames for clip in pipeline.generate([0, None, None, 1], seed=1, batch=4)]
    alone = [clip.frames for clip in pipeline.generate([0, None, None, 1], seed=1, batch=1)]
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize(
    ("asked", "count", "unconditional", "expected"),
    [
        ([], None, False, [0, 1]),
        ([], 5, False, [0, 1, 0, 1, 0]),
        (["none,1"], None, False, [None, 1]),
        (["dog", "none"], 4, False, [1, 1, None, None]),
        ([], 3, True, [None, None, None]),
        ([], None, True, [None] * 4),
        (["cat", "1"], None, False, [0, 1]),
        (["2"], None, False, "label 2 was not in the data: it has 2 classes"),
        (["0-3"], None, False, "label 2 was not in the data"),
        (["4"], None, False, "4 is the null label: --label none"),
        (["-1"], None, False, "unknown label '-1'"),
        (["1", "none"], None, True, "ask for two things"),
        (["nome"], None, False, "unknown label 'nome'"),
    ],
)
def test_labels_that_are_asked_for(
    toys: Any, asked: list[str], count: int | None, unconditional: bool, expected: list[int | None] | str
) -> None:
    spec = toys.spec(**IMAGES)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            plan_labels(spec, asked, count, ["cat", "dog"], unconditional)
    else:
        assert plan_labels(spec, asked, count, ["cat", "dog"], unconditional) == expected


def test_a_class_called_none_and_a_model_without_null_label(toys: Any) -> None:
    assert plan_labels(toys.spec(**IMAGES), ["none"], None, ["none", "some"]) == [0]
    bare = {"condition": {"kind": "class", "classes": 4, "dropout": 0.0}, "sampler": {"kind": "euler"}}
    spec = toys.spec(**IMAGES | bare)
    for settings in ({"asked": ["none"]}, {"asked": [], "unconditional": True}):
        with pytest.raises(UserError, match="trained without a null label"):
            plan_labels(spec, count=None, **settings)


def test_labels_of_weights_from_elsewhere_may_be_known(toys: Any, capsys: pytest.CaptureFixture[str]) -> None:
    spec = toys.spec(**IMAGES, backbone_with={"weights": "somewhere.pt"})
    assert plan_labels(spec, ["3"], None, ["cat", "dog"]) == [3]
    assert "label 3 was not in the data" in capsys.readouterr().err


@pytest.mark.parametrize("names", [[], {}, [1], ["a", "a"], ["a", "b", "c", "d", "e"], "cat"])
def test_class_names_are_checked(toys: Any, names: Any) -> None:
    if names == []:
        assert check_names(names, toys.spec(), "classes.json") == []
        return
    with pytest.raises(UserError, match=r"classes\.json"):
        check_names(names, toys.spec(), "classes.json")


@pytest.fixture
def image_spec(image_run: RunFolder, toys: Any, tmp_path: Path) -> Path:
    """The run's spec, with its weights as a file in DiT's layout."""
    spec = toys.spec(**IMAGES)
    state = load_file(image_run.stage("denoiser").checkpoint_path(10) / "model.safetensors")
    torch.save({"ema": to_official(state, spec)}, tmp_path / "dit.pt")
    (tmp_path / "dit.yaml").write_text(dump_spec(spec))
    return tmp_path / "dit.yaml"


def test_a_spec_with_weights_gives_the_runs_clips(image_spec: Path, image_run: RunFolder, tmp_path: Path) -> None:
    weights = f"backbone.weights={image_spec.with_name('dit.pt')}"
    generate(image_spec, [weights, "sampler.guidance=3"], label=["1"], steps=3, out=tmp_path / "spec")
    generate(image_run.path, ["sampler.guidance=3"], label=["1"], steps=3, out=tmp_path / "run")
    name = "000-label1-seed0.png"
    assert (tmp_path / "spec" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    record = json.loads((tmp_path / "spec" / "generate.json").read_text())
    assert record["fields"] == [weights, "sampler.guidance=3"]


@pytest.mark.parametrize(
    ("overrides", "settings", "message"),
    [
        ([], {}, r"is a spec, and its backbone\.weights names no file"),
        (["backbone.weights=none.pt"], {}, "none.pt does not exist"),
        (["backbone.weights=dit.pt", "backbone.depth=3"], {}, "dit.pt: the checkpoint does not fit"),
        (["backbone.weights=dit.pt", "condition.classes=3"], {}, "does not fit"),
        (["backbone.weights=dit.pt"], {"label": ["4"]}, "4 is the null label"),
        (["backbone.weights=dit.pt"], {"no_ema": True}, "--no-ema goes with a run folder"),
        (["backbone.weights=dit.pt"], {"backend": "onnx"}, "is a spec: --backend onnx runs bundles"),
    ],
)
def test_what_a_spec_cannot_give_is_refused(
    image_spec: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    settings: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(image_spec.parent)
    with pytest.raises(UserError, match=message):
        generate(image_spec, overrides, **settings)
    assert not Path("out").exists()


def test_a_packaged_spec_needs_both_weights() -> None:
    with pytest.raises(UserError, match=r"backbone\.weights and vae\.weights name no file") as caught:
        generate(Path("dit"))
    assert "add backbone.weights=FILE vae.weights=FILE" in (caught.value.hint or "")


def test_a_bundle_of_random_weights_says_so(
    image_spec: Path, tiny_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert SpecSource(image_spec, random=True).drawn() == ("denoiser",), "an identity has no weights"
    assert SpecSource(image_spec).drawn() == ()
    path = Path(shutil.copytree(tiny_bundle.path, tmp_path / "b"))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["source"]["random"] = ["denoiser"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    generate(path, count=1, out=tmp_path / "clips")
    assert f"the weights of denoiser in {path} are random" in capsys.readouterr().err


@pytest.mark.slow
def test_random_weights_are_marked(image_spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="names no file"):
        export(image_spec, out=tmp_path / "b")
    export(image_spec, ["backbone.depth=1"], random_weights=True, out=tmp_path / "b")
    assert "its weights are random" in capsys.readouterr().err
    source = Bundle.open(tmp_path / "b").manifest.source
    assert (source.run, source.step, source.ema, source.random) == ("tiny", None, False, ("denoiser",))
    generate(tmp_path / "b", count=1, out=tmp_path / "clips")
    assert "the weights of denoiser" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"random_weights": True}, "is no spec: --random-weights"),
        ({"overrides": ["backbone.depth=1"]}, "is fixed by training"),
    ],
)
def test_what_only_a_spec_takes(image_run: RunFolder, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        export(image_run.path, out=tmp_path / "b", **settings)
    assert not (tmp_path / "b").exists()


def test_what_is_neither_run_nor_bundle_is_refused(tiny_run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        generate(tmp_path / "nothing")
    with pytest.raises(UserError, match="neither a run folder"):
        generate(tmp_path)
    with pytest.raises(UserError, match="--backend onnx runs bundles"):
        generate(tiny_run.path, backend="onnx")
