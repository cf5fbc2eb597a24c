"""Manifests that are no manifest, or whose values are of the wrong kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.bundle_case import (
    STAGES,
    accepted,
    manifest,
    read,
    refused,
    write,
)
from tests.hostile.case import Case


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
