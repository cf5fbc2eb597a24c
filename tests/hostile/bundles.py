"""Bundles whose manifest lies, leads outside or lists too little: a refusal that names the file, or the right video.

All run in this process, on copies of one tiny bundle that is exported at the start.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from sora_spec.cli.generate import generate
from sora_spec.compile.bundle import Bundle
from sora_spec.compile.executors.opening import open_pipeline, open_source
from sora_spec.compile.exporter import ExportSettings, export_run
from sora_spec.errors import UserError
from tests.compile.conftest import CLASSES, Toys
from tests.hostile.case import Case

Change = Callable[[Path], Any]
Values = dict[str, Any]
STAGES = ("denoiser", "vae_decoder")


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
    opened = open_source(root)
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
            opened = open_source(root)
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


def rename(values: Values, old: str, new: str) -> None:
    file_of(values, old)["path"] = new


def texts() -> Iterator[Case]:
    """Manifests that are no manifest."""
    for name, text in {
        "empty": "",
        "no JSON": "{",
        "a list": "[]",
        "a number": "7",
        "null": "null",
        "text": '"manifest"',
        "deep": "[" * 100_000,
        "a vast number": '{"format": ' + "9" * 5000 + "}",
        "another format": '{"format": "other"}',
        "no version": '{"format": "sora-spec-bundle"}',
    }.items():
        yield refused(f"manifest {name}", lambda root, text=text: write(root, text), "manifest")
    yield refused("manifest not UTF-8", lambda root: (root / "manifest.json").write_bytes(b"\xff\xfe{}"), "not JSON")
    yield refused("manifest cut", lambda root: write(root, json.dumps(read(root))[:-40]), "not JSON")
    yield refused("manifest gone", lambda root: (root / "manifest.json").unlink(), "no manifest.json")
    yield refused("manifest a folder", _folder_for_manifest, "b")
    yield refused("manifest outside", _manifest_outside, "outside")
    yield refused("manifest of 20 MB", lambda root: write(root, json.dumps(read(root)) + " " * (20 << 20)), "too large")
    yield refused("a key twice", lambda root: write(root, json.dumps(read(root))[:-1] + ', "name": "x"}'), "twice")
    yield accepted("a key of later", manifest(lambda v: v.update(colour="blue")))


def _folder_for_manifest(root: Path) -> None:
    (root / "manifest.json").unlink()
    (root / "manifest.json").mkdir()


def _manifest_outside(root: Path) -> None:
    shutil.move(root / "manifest.json", root.parent / "other.json")
    (root / "manifest.json").symlink_to("../other.json")


def fields() -> Iterator[Case]:
    """Values of the wrong kind."""
    for version in (0, 2, -1, 1.5, True, "1", None, [1], 10**30):
        yield refused(
            f"format_version {version!r}", manifest(lambda v, x=version: v.update(format_version=x)), "format"
        )
    for key in ("name", "spec_sha256", "precision", "source", "packages", "stages", "files"):
        yield refused(f"{key} lost", manifest(lambda v, k=key: v.pop(k)), key)
        yield refused(f"{key} null", manifest(lambda v, k=key: v.update({k: None})), key)
        yield refused(f"{key} a number", manifest(lambda v, k=key: v.update({k: 7})), key)
    for value in ("12", -1, 1.5, True, 10**40, None, [3]):
        bad = manifest(lambda v, x=value: v["files"][0].update(bytes=x))
        yield refused(f"bytes {value!r}", bad, "manifest")
    for value in ("", "0" * 63, "G" * 64, "A" * 64, 5, None):
        yield refused(f"sha256 {value!r}", manifest(lambda v, x=value: v["files"][0].update(sha256=x)), "sha256")
    nan = lambda root: write(root, json.dumps(read(root)).replace('"export_seconds": ', '"export_seconds": NaN, "x": '))  # noqa: E731
    yield refused("seconds NaN", nan, "NaN")
    huge = lambda root: write(root, json.dumps(read(root)).replace('"opset": ', '"opset": 1e999, "x": '))  # noqa: E731
    yield refused("opset 1e999", huge, "manifest")
    for stage in STAGES:
        yield refused(f"stage {stage} lost", manifest(lambda v, s=stage: v["stages"].pop(s)), stage)
    yield refused(
        "stage of another name", manifest(lambda v: v["stages"].update(text=v["stages"]["denoiser"])), "stages"
    )
    yield refused("no stages", manifest(lambda v: v.update(stages={})), "denoiser")


def lists() -> Iterator[Case]:
    """Files that are read and not listed, or listed and not there."""
    for name in ("spec.yaml", "classes.json", "denoiser.onnx", "denoiser.onnx.data", "vae_decoder.onnx"):
        unlisted = manifest(lambda v, n=name: v["files"].remove(file_of(v, n)))
        yield refused(f"{name} unlisted", unlisted, name, "list")
        yield refused(f"{name} gone", lambda root, n=name: (root / n).unlink(), name)
        if name != "classes.json":  # a bundle need not have any
            yield refused(f"{name} gone and unlisted", sealed(lambda root, n=name: _drop(root, n)), name)
        yield refused(f"{name} emptied", lambda root, n=name: (root / n).write_bytes(b""), name, "bytes")
        yield refused(f"{name} longer", lambda root, n=name: (root / n).open("ab").write(b"x"), name, "bytes")
        yield refused(f"{name} with a flipped bit", lambda root, n=name: _flip(root / n), name, "hash")
        yield refused(f"{name} a folder", lambda root, n=name: _to_folder(root / n), name)
        yield refused(f"{name} listed twice", manifest(lambda v, n=name: v["files"].append(file_of(v, n))), "twice")
    yield refused("no files", manifest(lambda v: v.update(files=[])), "list")
    added = manifest(lambda v: v["files"].append({"path": "more.bin", "bytes": 1, "sha256": "0" * 64}))
    yield refused("a file more in the list", added, "more.bin", "missing")
    itself = manifest(lambda v: v["files"].append({"path": "manifest.json", "bytes": 1, "sha256": "0" * 64}))
    yield refused("the manifest listed", itself, "lists itself")
    yield refused("two hashes of the spec", manifest(lambda v: v.update(spec_sha256="0" * 64)), "spec.yaml")
    yield accepted("a file that nobody reads", lambda root: (root / "notes.txt").write_text("mine"))


def _drop(root: Path, name: str) -> None:
    (root / name).unlink()
    values = read(root)
    values["files"].remove(file_of(values, name))
    write(root, values)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def outside() -> Iterator[Case]:
    """Paths that lead out of the folder, or are no paths."""
    for name in ("../outside.onnx", "/etc/passwd", "a/../../b", "..", "", ".", "./denoiser.onnx", "a//b", "a\\b", "C:x",
                 "denoiser.onnx\u0000", "\u202egnp", "a\nb", "file:///etc/passwd", "~/x\t"):  # fmt: skip
        yield refused(f"file {name!r}", manifest(lambda v, n=name: rename(v, "denoiser.onnx", n)), "manifest.json")
        yield refused(f"stage file {name!r}", manifest(lambda v, n=name: v["stages"]["denoiser"].update(file=n)))
    both = manifest(
        lambda v: (rename(v, "denoiser.onnx", "../b2/x.onnx"), v["stages"]["denoiser"].update(file="../b2/x.onnx"))
    )
    yield refused("listed outside", both, "outside")
    yield refused(
        "lone surrogate", lambda root: write(root, json.dumps(read(root)).replace('"denoiser.onnx"', '"\\ud800"'))
    )
    for name in ("spec.yaml", "classes.json", "denoiser.onnx", "denoiser.onnx.data", "vae_decoder.onnx"):
        yield refused(f"{name} a link outside", lambda root, n=name: _link(root / n, root.parent / n), "outside")
        yield refused(f"{name} a link to itself", lambda root, n=name: _link(root / n, None), name)
    yield refused("a folder that is a link", sealed(_linked_folder), "outside")
    yield accepted("a link inside", lambda root: _link(root / "denoiser.onnx", root / "real.onnx"))
    yield accepted("the bundle itself a link", _linked_bundle)


def _link(path: Path, target: Path | None) -> None:
    if target is None:
        path.unlink()
        path.symlink_to(path.name)
        return
    shutil.move(path, target)
    path.symlink_to(os.path.relpath(target, path.parent))


def _linked_folder(root: Path) -> None:
    (root.parent / "g").mkdir()
    shutil.move(root / "vae_decoder.onnx", root.parent / "g" / "vae_decoder.onnx")
    (root / "g").symlink_to("../g")
    values = read(root)
    rename(values, "vae_decoder.onnx", "g/vae_decoder.onnx")
    values["stages"]["vae_decoder"]["file"] = "g/vae_decoder.onnx"
    write(root, values)


def _linked_bundle(root: Path) -> None:
    root.rename(root.parent / "real")
    root.symlink_to("real")


def graphs() -> Iterator[Case]:
    """Graphs that are whole by their hash, and wrong."""
    out = lambda root: root.parent / "outside.data"  # noqa: E731
    yield accepted("weights beside", lambda root: None)
    for name, location in {
        "above": "../outside.data",
        "listed nowhere": "hidden.data",
        "dotted": "./../outside.data",
    }.items():

        def move(root: Path, location: str = location) -> None:
            external(root, location, root / "hidden.data" if location == "hidden.data" else out(root))
            _unlist(root, "denoiser.onnx.data")

        yield refused(f"weights {name}", sealed(move), "weights from")
    absolute = lambda root: (external(root, str(out(root)), out(root)), _unlist(root, "denoiser.onnx.data"))  # noqa: E731
    yield refused("weights of an absolute path", sealed(absolute), "weights from")
    yield refused("weights a link outside", lambda root: _link(root / "denoiser.onnx.data", out(root)), "outside")
    for name, content in {"junk": b"junk" * 40, "empty": b"", "cut": None, "zeros": bytes(64), "text": b"onnx"}.items():

        def spoil(root: Path, content: bytes | None = content) -> None:
            graph = root / "denoiser.onnx"
            graph.write_bytes(graph.read_bytes()[:-50] if content is None else content)

        yield refused(f"graph {name}", sealed(spoil), "denoiser.onnx")
    yield refused("graphs swapped", sealed(_swap), "onnx")
    one = manifest(lambda v: v["stages"]["denoiser"].update(file="vae_decoder.onnx"))
    yield refused("one graph for both", one, "both stages")
    yield refused("weights cut", sealed(lambda root: _cut(root / "denoiser.onnx.data")), "denoiser.onnx")
    yield refused("spec of others", sealed(lambda root: _edit(root, "classes: 4", "classes: [4")), "spec.yaml")
    yield refused("spec of another condition", sealed(_without_condition), "denoiser.onnx")
    for name, content in {
        "a mapping": b"{}", "no JSON": b"[", "numbers": b"[1, 2]", "twice": b'["a", "a"]', "text": b'"a"',
        "too many": b'["a", "b", "c", "d", "e"]', "not UTF-8": b'["\xff"]', "empty": b"", "deep": b"[" * 100_000,
    }.items():  # fmt: skip
        spoiled = sealed(lambda root, c=content: (root / "classes.json").write_bytes(c))
        yield refused(f"class names {name}", spoiled, "classes.json")


def _unlist(root: Path, name: str) -> None:
    values = read(root)
    values["files"].remove(file_of(values, name))
    write(root, values)


def _swap(root: Path) -> None:
    values = read(root)
    stages = values["stages"]
    stages["denoiser"]["file"], stages["vae_decoder"]["file"] = "vae_decoder.onnx", "denoiser.onnx"
    write(root, values)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _edit(root: Path, old: str, new: str) -> None:
    text = (root / "spec.yaml").read_text()
    assert old in text
    (root / "spec.yaml").write_text(text.replace(old, new))


def _without_condition(root: Path) -> None:
    from sora_spec.loading import dump_spec, load_spec

    spec = load_spec(str(root / "spec.yaml"), ["condition={kind: none}"])
    (root / "spec.yaml").write_text(dump_spec(spec))


def engines() -> Iterator[Case]:
    """Engines of the manifest."""
    base: Values = {
        "stage": "denoiser", "target": "rtx4090", "sm": "sm89", "builder": "tensorrt_rtx", "version": "1.7",
        "flags": [],
        "profile": {"min": {}, "opt": {}, "max": {}}, "key": "0" * 64, "build_seconds": 1.0,
    }  # fmt: skip
    for path in ("engines/sm89/x/denoiser.engine", "../x.engine", "/x.engine", ""):
        engine = {**base, "path": path}
        yield refused(f"engine {path!r}", manifest(lambda v, e=engine: v.update(engines=[e])), "manifest.json")
    linked = {**base, "path": "engines/denoiser.engine"}

    def link(root: Path) -> None:
        (root.parent / "e").mkdir()
        (root.parent / "e" / "denoiser.engine").write_bytes(b"plan")
        (root / "engines").symlink_to("../e")
        values = read(root)
        values["engines"] = [linked]
        values["files"].append({"path": linked["path"], "bytes": 4, "sha256": "0" * 64})
        write(root, values)

    yield refused("engine in a linked folder", link, "outside")


def requests() -> Iterator[Case]:
    """What is asked of a whole bundle and is not there: refused before anything is sampled or written."""
    for name, settings in {
        "label 4": {"label": ["4"]},
        "label of a word": {"label": ["squid"]},
        "label -1": {"label": ["-1"]},
        "frames of 3000": {"frames": 3000},
        "torch": {"backend": "torch"},
        "tiles": {"overrides": ["vae.tiling=none"]},
        "depth": {"overrides": ["backbone.depth=2"]},
    }.items():

        def run(folder: Path, settings: Values = settings) -> str | None:
            try:
                generate(bundle(folder), out=folder / "out", **settings)
            except UserError:
                return "files were written" if (folder / "out").exists() else None
            return "accepted"

        yield Case(f"request: {name}", run)


def cases() -> Iterator[Case]:
    """Every bundle."""
    for part in (texts, fields, lists, outside, graphs, engines, requests):
        yield from part()
