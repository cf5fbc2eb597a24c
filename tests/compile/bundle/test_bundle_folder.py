"""A bundle is whole or absent, and says so when somebody changed it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import sora_spec.compile.export.exporter as exporter
from sora_spec.compile.bundle.bundle import Bundle, writing_bundle
from sora_spec.compile.bundle.manifest import Engine, Profile
from sora_spec.compile.export.exporter import ExportSettings, export_run
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from tests.hostile import bundles
from tests.hostile.bundle_case import GIVEN, format_1, manifest, read
from tests.hostile.bundle_graphs import graphs
from tests.hostile.bundle_outside import outside

SAMPLE = [*graphs()][:5] + [*outside()][-3:] + [*bundles.cases()][5::12]


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.name)
def test_a_bundle_of_the_hostile_trial(case: Any, tmp_path: Path, tiny_bundle: Bundle) -> None:
    """A sample; `python -m tests.hostile bundles` runs all."""
    GIVEN[:] = [tiny_bundle.path]
    assert case.run(tmp_path) is None


@pytest.fixture
def bundle_copy(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "copy"))


def edit_manifest(path: Path, **values: Any) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_manifest_hashes_are_those_of_the_files(tiny_bundle: Bundle, toys: Any) -> None:
    files = {file.path: file for file in tiny_bundle.manifest.files}
    assert set(files) == {"spec.yaml", "classes.json", "denoiser.onnx", "vae_decoder.onnx"}
    for name, record in files.items():
        content = (tiny_bundle.path / name).read_bytes()
        assert (record.bytes, record.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert tiny_bundle.manifest.spec_sha256 == files["spec.yaml"].sha256
    assert tiny_bundle.classes() == toys.classes
    assert tiny_bundle.manifest.source.step == 10
    assert not tiny_bundle.manifest.source.ema, "the run keeps no average"
    assert {"torch", "onnx", "sora-spec"} <= set(tiny_bundle.manifest.packages)


def test_manifest_describes_the_graphs(tiny_bundle: Bundle) -> None:
    denoiser = tiny_bundle.part("denoiser")
    assert {port.name: port.shape for port in denoiser.inputs} == {
        "latents": ("batch", 4, "frames", 8, 12),
        "time": ("batch",),
        "label": ("batch",),
    }
    assert tiny_bundle.part("vae_decoder").outputs[0].shape == ("batch", 3, "pixel_frames", 16, 24)
    assert denoiser.axes["frames"].max == 512


@pytest.mark.parametrize("name", ["denoiser.onnx", "spec.yaml", "classes.json"])
def test_truncated_file_is_refused(bundle_copy: Path, name: str) -> None:
    content = (bundle_copy / name).read_bytes()
    (bundle_copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cut short or edited"):
        Bundle.open(bundle_copy)


def test_edited_file_of_the_same_size_is_refused(bundle_copy: Path) -> None:
    content = bytearray((bundle_copy / "denoiser.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle_copy / "denoiser.onnx").write_bytes(content)
    with pytest.raises(UserError, match="was edited"):
        Bundle.open(bundle_copy)
    assert Bundle.open(bundle_copy, verify=False).path == bundle_copy


def test_missing_file_is_refused(bundle_copy: Path) -> None:
    (bundle_copy / "vae_decoder.onnx").unlink()
    with pytest.raises(UserError, match=r"vae_decoder\.onnx is missing"):
        Bundle.open(bundle_copy)


def test_later_format_is_refused(bundle_copy: Path) -> None:
    edit_manifest(bundle_copy, format_version=3)
    with pytest.raises(UserError, match="bundle format 3; this version reads 1 and 2"):
        Bundle.open(bundle_copy)


def test_bundles_of_format_1_are_read_and_become_2(bundle_copy: Path, tiny_bundle: Bundle) -> None:
    """Which had `stages` by name; the first engine that is added writes the list of parts."""
    manifest(format_1)(bundle_copy)
    values = read(bundle_copy)
    assert (values["format_version"], set(values["stages"])) == (1, {"denoiser", "vae_decoder"})
    bundle = Bundle.open(bundle_copy)
    assert bundle.manifest == tiny_bundle.manifest
    shapes = Profile(min={}, opt={}, max={})
    engine = Engine(
        part="denoiser", path="engines/a.engine", target="a", sm="sm89", builder="b", version="1", profile=shapes,
        key="0" * 64, build_seconds=1.0,
    )  # fmt: skip
    bundle.add_engine(engine, b"plan")
    values = read(bundle_copy)
    assert values["format_version"] == 2
    assert "stages" not in values
    assert [(part["name"], part["role"]) for part in values["parts"]] == [
        ("denoiser", "denoise"),
        ("vae_decoder", "decode"),
    ]
    assert Bundle.open(bundle_copy).manifest.engines == (engine,)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd"])
def test_manifest_cannot_point_outside(bundle_copy: Path, path: str) -> None:
    edit_manifest(bundle_copy, files=[{"path": path, "bytes": 1, "sha256": "0" * 64}])
    with pytest.raises(UserError, match="outside the bundle"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[]", b"{}", b"[" * 100_000])
def test_foreign_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError):
        Bundle.open(tmp_path)
    assert not Bundle.is_bundle(tmp_path)


def test_damaged_manifest_names_the_place(bundle_copy: Path) -> None:
    edit_manifest(bundle_copy, precision="fp7")
    with pytest.raises(UserError, match="damaged at precision"):
        Bundle.open(bundle_copy)


def test_bundle_is_replaced_only_with_force(bundle_copy: Path) -> None:
    with pytest.raises(UserError, match="already holds a bundle"), writing_bundle(bundle_copy):
        pytest.fail("nothing may be written")
    with writing_bundle(bundle_copy, force=True) as folder:
        (folder / "new").write_text("new")
    assert [file.name for file in bundle_copy.iterdir()] == ["new"]


def test_other_folders_are_left_alone_even_with_force(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("precious")
    with pytest.raises(UserError, match="is not a bundle, so it is left alone"), writing_bundle(tmp_path, force=True):
        pytest.fail("nothing may be written")
    assert (tmp_path / "holiday.jpg").read_text() == "precious"


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError, UserError])
def test_interrupted_export_leaves_nothing(
    tiny_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    def half_written(module: Any, contract: Any, path: Path, opset: int) -> None:
        path.write_bytes(b"half")
        raise failure("stopped")

    monkeypatch.setattr(exporter, "export_onnx", half_written)
    with pytest.raises(failure):
        export_run(tiny_run, tmp_path / "new" / "bundle", ExportSettings())
    assert list((tmp_path / "new").iterdir()) == []


def test_interrupted_replacement_keeps_the_earlier_bundle(
    tiny_run: RunFolder, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name: file.read_bytes() for file in bundle_copy.iterdir()}

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporter, "export_part", stopped)
    with pytest.raises(KeyboardInterrupt):
        export_run(tiny_run, bundle_copy, ExportSettings(force=True))
    assert {file.name: file.read_bytes() for file in bundle_copy.iterdir()} == before
    assert [file.name for file in bundle_copy.parent.iterdir()] == [bundle_copy.name]


def test_export_fails_when_the_graph_differs(toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exported graph is that of other weights: the comparison has to notice, and nothing may be left."""
    real = exporter.export_onnx

    def with_other_weights(module: Any, *arguments: Any) -> Any:
        import copy

        other = copy.deepcopy(module)
        for parameter in other.parameters():
            parameter.data.mul_(1.001)
        return real(other, *arguments)

    monkeypatch.setattr(exporter, "export_onnx", with_other_weights)
    spec = toys.spec(
        vae={"kind": "identity"},
        clip={"frames": 1, "height": 8, "width": 12, "fps": 8},
        temporal={"kind": "none"},
        backbone={"kind": "transformer", "depth": 1, "width": 32, "heads": 2, "learn_sigma": False},
    )
    run = toys.run(tmp_path / "run", spec)
    with pytest.raises(UserError, match="exported and eager differ") as failure:
        export_run(run, tmp_path / "bundle", ExportSettings())
    assert failure.value.exit_code == 1
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_run_without_checkpoint_says_what_to_do(toys: Any, tmp_path: Path) -> None:
    from sora_spec.language.loading import dump_spec

    run = RunFolder.create(tmp_path / "run", dump_spec(toys.spec()))
    with pytest.raises(UserError) as failure:
        export_run(run, tmp_path / "bundle", ExportSettings())
    assert "train" in (failure.value.hint or "")
    assert not (tmp_path / "bundle").exists()
