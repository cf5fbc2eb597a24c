"""Paths and links that lead out of the bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.bundle_case import (
    accepted,
    link,
    manifest,
    part_of,
    read,
    refused,
    rename,
    sealed,
    write,
)
from tests.hostile.case import Case


def outside() -> Iterator[Case]:
    """Paths that lead out of the folder, or are no paths."""
    for name in ("../outside.onnx", "/etc/passwd", "a/../../b", "..", "", ".", "./denoiser.onnx", "a//b", "a\\b", "C:x",
                 "denoiser.onnx\u0000", "\u202egnp", "a\nb", "file:///etc/passwd", "~/x\t"):  # fmt: skip
        yield refused(f"file {name!r}", manifest(lambda v, n=name: rename(v, "denoiser.onnx", n)), "manifest.json")
        yield refused(f"part file {name!r}", manifest(lambda v, n=name: part_of(v, "denoiser").update(file=n)))
    both = manifest(
        lambda v: (rename(v, "denoiser.onnx", "../b2/x.onnx"), part_of(v, "denoiser").update(file="../b2/x.onnx"))
    )
    yield refused("listed outside", both, "outside")
    yield refused(
        "lone surrogate", lambda root: write(root, json.dumps(read(root)).replace('"denoiser.onnx"', '"\\ud800"'))
    )
    for name in ("spec.yaml", "classes.json", "denoiser.onnx", "denoiser.onnx.data", "vae_decoder.onnx"):
        yield refused(f"{name} a link outside", lambda root, n=name: link(root / n, root.parent / n), "outside")
        yield refused(f"{name} a link to itself", lambda root, n=name: link(root / n, None), name)
    yield refused("a folder that is a link", sealed(_linked_folder), "outside")
    yield accepted("a link inside", lambda root: link(root / "denoiser.onnx", root / "real.onnx"))
    yield accepted("the bundle itself a link", _linked_bundle)


def _linked_folder(root: Path) -> None:
    (root.parent / "g").mkdir()
    shutil.move(root / "vae_decoder.onnx", root.parent / "g" / "vae_decoder.onnx")
    (root / "g").symlink_to("../g")
    values = read(root)
    rename(values, "vae_decoder.onnx", "g/vae_decoder.onnx")
    part_of(values, "vae_decoder")["file"] = "g/vae_decoder.onnx"
    write(root, values)


def _linked_bundle(root: Path) -> None:
    root.rename(root.parent / "real")
    root.symlink_to("real")
