"""Whether all that a bundle reads is listed in its manifest and lies inside its folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from sora_spec.compile.bundle.external_data import external_files
from sora_spec.errors import UserError

if TYPE_CHECKING:
    from sora_spec.compile.bundle.manifest import Manifest

MANIFEST, SPEC, CLASSES = "manifest.json", "spec.yaml", "classes.json"
AGAIN = "export the bundle again with --force"


def inside(root: Path, name: str) -> Path:
    """The path of the bundle's file `name`.

    Raises UserError unless the name is a plain relative one, and what it leads to lies in the folder.
    """
    relative = PurePosixPath(name)
    plain = name.isprintable() and "\\" not in name and ":" not in name and relative.as_posix() == name
    if not plain or relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise UserError(f"{root / MANIFEST} names a file outside the bundle: {name!r}", AGAIN)
    path = root / relative
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} leads in a circle", AGAIN) from error
    if not target.is_relative_to(root.resolve()):
        raise UserError(f"{path} leads outside the bundle, to {target}", "put the file itself there")
    return path


def check_inventory(root: Path, manifest: Manifest) -> None:
    """Raise UserError unless every file that the bundle reads is listed once, and inside."""
    where = root / MANIFEST
    counts = Counter(file.path for file in manifest.files)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise UserError(f"{where} lists {twice[0]!r} twice", AGAIN)
    if MANIFEST in counts:
        raise UserError(f"{where} lists itself", AGAIN)
    for name in counts:
        inside(root, name)
    for what, name in _read_by_name(root, manifest):
        inside(root, name)
        if name not in counts:
            raise UserError(f"{where} does not list {what}, {name!r}, so it cannot be checked", AGAIN)
    if len({part.file for part in manifest.parts}) < len(manifest.parts):
        raise UserError(f"{where} gives one graph to several parts", AGAIN)
    spec = next(file for file in manifest.files if file.path == SPEC)
    if spec.sha256 != manifest.spec_sha256:
        raise UserError(f"{where} has two hashes for {SPEC}", AGAIN)


def _read_by_name(root: Path, manifest: Manifest) -> list[tuple[str, str]]:
    """What is read because it has a certain name, or because the manifest says so elsewhere than in its list."""
    found = [("the spec", SPEC)]
    if (root / CLASSES).exists() or (root / CLASSES).is_symlink():
        found.append(("the class names", CLASSES))
    found += [(f"the graph of {part.name}", part.file) for part in manifest.parts]
    return found + [(f"an engine of {engine.part}", engine.path) for engine in manifest.engines]


def check_graphs(root: Path, manifest: Manifest) -> None:
    """Raise UserError unless every file that a graph takes weights from is listed, and lies beside it."""
    listed = {file.path for file in manifest.files}
    for part in manifest.parts:
        folder = PurePosixPath(part.file).parent
        for location in sorted(external_files(inside(root, part.file))):
            target = (folder / location).as_posix()
            if location.startswith("/") or target not in listed:
                raise UserError(
                    f"{root / part.file}: the graph of {part.name} takes weights from {location!r}, which the manifest "
                    "does not list",
                    AGAIN,
                )
            inside(root, target)
