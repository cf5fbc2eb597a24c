"""Files that are read and not listed, changed or lost, and engines of the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.hostile.bundle_case import (
    Values,
    accepted,
    file_of,
    manifest,
    read,
    refused,
    sealed,
    write,
)
from tests.hostile.case import Case


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


def engines() -> Iterator[Case]:
    """Engines of the manifest."""
    base: Values = {
        "part": "denoiser", "target": "rtx4090", "sm": "sm89", "builder": "tensorrt_rtx", "version": "1.7",
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
