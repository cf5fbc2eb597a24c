"""Manifests that are no manifest, or whose values are of the wrong kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hostile.bundle_case import (
    PARTS,
    Change,
    Values,
    accepted,
    format_1,
    manifest,
    part_of,
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
    for version in (0, 3, -1, 1.5, True, "1", None, [1], 10**30):
        yield refused(
            f"format_version {version!r}", manifest(lambda v, x=version: v.update(format_version=x)), "format"
        )
    for key in ("name", "spec_sha256", "precision", "source", "packages", "parts", "files"):
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
    for part in PARTS:
        yield refused(f"part {part} lost", manifest(lambda v, p=part: v["parts"].remove(part_of(v, p))), part)
        yield refused(f"part {part} twice", manifest(lambda v, p=part: v["parts"].append(part_of(v, p))), "several")
        named = manifest(lambda v, p=part: part_of(v, p).update(name="text"))
        yield refused(f"part {part} of another name", named, "parts")
        yield refused(f"part {part} of another role", manifest(lambda v, p=part: part_of(v, p).update(role="encode")))
    yield refused("parts in another order", manifest(lambda v: v["parts"].reverse()), "denoiser")
    yield refused("no parts", manifest(lambda v: v.update(parts=[])), "denoiser")


def earlier() -> Iterator[Case]:
    """Manifests of format 1, which had stages by name."""
    yield accepted("format 1", manifest(format_1))

    def but(change: Callable[[Values], Any]) -> Change:
        return manifest(lambda v: (format_1(v), change(v)))

    for name in PARTS:
        yield refused(f"format 1 without {name}", but(lambda v, n=name: v["stages"].pop(n)), name)
        for value in (None, 7, "x", []):
            broken = but(lambda v, n=name, x=value: v["stages"].update({n: x}))
            yield refused(f"format 1, {name} is {value!r}", broken, "parts")
    for value in (None, 7, [], "x"):
        yield refused(f"format 1, stages {value!r}", but(lambda v, x=value: v.update(stages=x)), "parts")
        if value != []:
            yield refused(f"format 1, engines {value!r}", but(lambda v, x=value: v.update(engines=x)), "manifest")
    yield refused("format 1, an engine 7", but(lambda v: v.update(engines=[7])), "engines")
    text = but(lambda v: v["stages"].update(text=v["stages"]["denoiser"]))
    yield refused("format 1, a stage of another name", text, "parts")
    yield refused("format 2 with the stages of 1", but(lambda v: v.update(format_version=2)), "parts")
