"""Graphs, specs and class names that are whole by their hash and wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.hostile.bundle_case import (
    accepted,
    external,
    link,
    manifest,
    part_of,
    read,
    refused,
    sealed,
    unlist,
    write,
)
from tests.hostile.case import Case


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
            unlist(root, "denoiser.onnx.data")

        yield refused(f"weights {name}", sealed(move), "weights from")
    absolute = lambda root: (external(root, str(out(root)), out(root)), unlist(root, "denoiser.onnx.data"))  # noqa: E731
    yield refused("weights of an absolute path", sealed(absolute), "weights from")
    yield refused("weights a link outside", lambda root: link(root / "denoiser.onnx.data", out(root)), "outside")
    for name, content in {"junk": b"junk" * 40, "empty": b"", "cut": None, "zeros": bytes(64), "text": b"onnx"}.items():

        def spoil(root: Path, content: bytes | None = content) -> None:
            graph = root / "denoiser.onnx"
            graph.write_bytes(graph.read_bytes()[:-50] if content is None else content)

        yield refused(f"graph {name}", sealed(spoil), "denoiser.onnx")
    yield refused("graphs swapped", sealed(_swap), "onnx")
    one = manifest(lambda v: part_of(v, "denoiser").update(file="vae_decoder.onnx"))
    yield refused("one graph for both", one, "several parts")
    yield refused("weights cut", sealed(lambda root: _cut(root / "denoiser.onnx.data")), "denoiser.onnx")
    yield refused("spec of others", sealed(lambda root: _edit(root, "classes: 4", "classes: [4")), "spec.yaml")
    yield refused("spec of another condition", sealed(_without_condition), "denoiser.onnx")
    for name, content in {
        "a mapping": b"{}", "no JSON": b"[", "numbers": b"[1, 2]", "twice": b'["a", "a"]', "text": b'"a"',
        "too many": b'["a", "b", "c", "d", "e"]', "not UTF-8": b'["\xff"]', "empty": b"", "deep": b"[" * 100_000,
    }.items():  # fmt: skip
        spoiled = sealed(lambda root, c=content: (root / "classes.json").write_bytes(c))
        yield refused(f"class names {name}", spoiled, "classes.json")


def _swap(root: Path) -> None:
    values = read(root)
    for name, other in (("denoiser", "vae_decoder"), ("vae_decoder", "denoiser")):
        part_of(values, name)["file"] = f"{other}.onnx"
    write(root, values)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _edit(root: Path, old: str, new: str) -> None:
    text = (root / "spec.yaml").read_text()
    assert old in text
    (root / "spec.yaml").write_text(text.replace(old, new))


def _without_condition(root: Path) -> None:
    from sora_spec.language.loading import dump_spec, load_spec

    spec = load_spec(str(root / "spec.yaml"), ["condition={kind: none}"])
    (root / "spec.yaml").write_text(dump_spec(spec))
