"""What the trial of bundles shares: one tiny bundle, ways to change a copy of it, and the case itself.

The bundle is exported once, and removed at exit.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from sora_spec.compile.bundle.bundle import Bundle
from sora_spec.compile.export.exporter import ExportSettings, export_run
from sora_spec.compile.run.executors.opening import open_pipeline, open_source
from sora_spec.errors import UserError
from tests.compile.conftest import CLASSES, Toys
from tests.hostile.case import Case

Change = Callable[[Path], Any]
Values = dict[str, Any]
PARTS = ("denoiser", "vae_decoder")


GIVEN: list[Path] = []
"""A bundle to take in place of one exported here."""


@functools.cache
def whole() -> Path:
    """The bundle that all are copies of."""
    folder = Path(tempfile.mkdtemp(prefix="hostile-bundle-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    spec = Toys.spec(
        vae={"kind": "identity"},
        clip={"frames": 2, "height": 8, "width": 12, "fps": 8},
        temporal={"kind": "none"},
        backbone={"kind": "transformer", "depth": 1, "width": 32, "heads": 2, "learn_sigma": False},
        sampler={"kind": "euler", "steps": 1},
    )
    if GIVEN:
        root = Path(shutil.copytree(GIVEN[0], folder / "bundle"))
    else:
        root = export_run(Toys.run(folder / "run", spec, classes=CLASSES), folder / "bundle", ExportSettings()).path
    _split(root)
    return root


def _split(root: Path) -> None:
    """Put the weights beside the graph, as those of a large model lie."""
    external(root, "denoiser.onnx.data")
    manifest = read(root)
    manifest["files"].append({"path": "denoiser.onnx.data"})
    write(root, manifest)
    seal(root)


def external(root: Path, location: str, file: Path | None = None) -> None:
    """Move the weights into `location`, and let the graph say so."""
    graph = root / "denoiser.onnx"
    model = onnx.load(graph)
    onnx.save_model(
        model,
        graph,
        save_as_external_data=True,
        location="denoiser.onnx.data",
        size_threshold=256,
    )
    if location == "denoiser.onnx.data":
        return
    moved = onnx.load(graph, load_external_data=False)
    for tensor in moved.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    graph.write_bytes(moved.SerializeToString())
    if file is not None:
        shutil.move(root / "denoiser.onnx.data", file)


def read(root: Path) -> Values:
    return json.loads((root / "manifest.json").read_text())


def write(root: Path, values: Any) -> None:
    (root / "manifest.json").write_text(values if isinstance(values, str) else json.dumps(values))


def seal(root: Path) -> None:
    """Let the manifest have the hashes of the files as they are: what is wrong is not a hash."""
    values = read(root)
    for file in values["files"]:
        path = root / file["path"]
        if path.is_file():
            content = path.read_bytes()
            file.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        if file["path"] == "spec.yaml":
            values["spec_sha256"] = file["sha256"]
    write(root, values)


def manifest(change: Callable[[Values], Any]) -> Change:
    def edit(root: Path) -> None:
        values = read(root)
        change(values)
        write(root, values)

    return edit


def sealed(change: Change) -> Change:
    def edit(root: Path) -> None:
        change(root)
        seal(root)

    return edit


def bundle(folder: Path) -> Path:
    return Path(shutil.copytree(whole(), folder / "b"))


def frames(root: Path) -> Any:
    opened = open_source(root, "generate")
    assert isinstance(opened, Bundle)
    return next(open_pipeline(opened, opened.load_spec(), "onnx").generate([1], 3)).frames


@functools.cache
def expected() -> Any:
    return frames(whole())


def refused(name: str, change: Change, *words: str) -> Case:
    """Opening, or at the latest loading, must be refused with these words; nothing is sampled."""

    def run(folder: Path) -> str | None:
        root = bundle(folder)
        change(root)
        try:
            opened = open_source(root, "generate")
            assert isinstance(opened, Bundle), "taken for a run"
            opened.classes()
            open_pipeline(opened, opened.load_spec(), "onnx")
        except UserError as error:
            text = f"{error.message}\n{error.hint}"
            missing = [word for word in words if word not in text]
            return f"does not say {missing}: {text[:400]}" if missing else None
        return "accepted"

    return Case(name, run)


def accepted(name: str, change: Change) -> Case:
    def run(folder: Path) -> str | None:
        root = bundle(folder)
        change(root)
        return None if np.array_equal(frames(root), expected()) else "another clip"

    return Case(name, run)


def file_of(values: Values, name: str) -> Values:
    return next(file for file in values["files"] if file["path"] == name)


def part_of(values: Values, name: str) -> Values:
    return next(part for part in values["parts"] if part["name"] == name)


def format_1(values: Values) -> None:
    """Let a manifest be as versions before the list of parts wrote it."""
    values["format_version"] = 1
    parts = values.pop("parts")
    values["stages"] = {part["name"]: {k: v for k, v in part.items() if k not in ("name", "role")} for part in parts}
    values["engines"] = [
        {"stage" if key == "part" else key: value for key, value in engine.items()} for engine in values["engines"]
    ]


def rename(values: Values, old: str, new: str) -> None:
    file_of(values, old)["path"] = new


def link(path: Path, target: Path | None) -> None:
    if target is None:
        path.unlink()
        path.symlink_to(path.name)
        return
    shutil.move(path, target)
    path.symlink_to(os.path.relpath(target, path.parent))


def unlist(root: Path, name: str) -> None:
    values = read(root)
    values["files"].remove(file_of(values, name))
    write(root, values)
