"""A bundle: a folder that generates video by itself. Torch-free.

```
BUNDLE/
  manifest.json              what is inside, how it was made and checked, hashes
  spec.yaml                  the resolved spec
  denoiser.onnx (+ .data)    (latents, time[, label]) → prediction
  vae_decoder.onnx (+ .data) latents → video
  classes.json               class names in label order, where the run has them
  engines/sm89/rtx-1.7.1/    denoiser.engine, denoiser.json, vae_decoder.engine, …
```

All that generating reads is listed in the manifest with its size and hash, and lies inside the folder, links followed.
A bundle appears whole, by one rename, and generating never writes into it. Adding an engine writes the engine first and
then replaces the manifest, so that a crash in between leaves a file that nobody refers to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sora_spec import output
from sora_spec.compile.bundle.inventory import AGAIN, CLASSES, MANIFEST, SPEC, check_graphs, check_inventory, inside
from sora_spec.compile.bundle.manifest import (
    FORMAT,
    READ_VERSIONS,
    Engine,
    ExportedPart,
    File,
    Manifest,
    upgraded,
)
from sora_spec.compile.run.labels import check_names
from sora_spec.disk.checksums import sha256_of
from sora_spec.disk.run_folder import replacing_folder, write_atomically
from sora_spec.errors import UserError
from sora_spec.recipe.parts import graph_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sora_spec.language.schema.spec import Spec
    from sora_spec.recipe.parts import GraphName

_SAY_ABOVE_BYTES = 4 * 1024**3
"""Bundles above this size take many seconds to hash, so that is said."""
_MANIFEST_LIMIT_BYTES = 16 * 1024**2


class Bundle:
    """A bundle on disk, opened for reading."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> Bundle:
        """Open the bundle at `path`.

        Whatever generating reads must be listed in the manifest, lie inside the folder, and have the size and, unless
        `verify` is false, the hash that the manifest says. Engines are hashed when they are loaded.

        Raises UserError when there is no bundle, when it is of a later format, or when a file is missing, changed,
        outside or unlisted.
        """
        path = Path(path)
        bundle = cls(path, _read_manifest(path))
        check_inventory(path, bundle.manifest)
        for file in bundle.manifest.files:
            _check_file(path, file, hashes=False)
        if verify:
            bundle._verify()
        bundle._check_parts()
        check_graphs(path, bundle.manifest)
        return bundle

    def _verify(self) -> None:
        engines = {engine.path for engine in self.manifest.engines}
        files = [file for file in self.manifest.files if file.path not in engines]
        total = sum(file.bytes for file in files)
        if total > _SAY_ABOVE_BYTES:
            output.note(f"checking {total / 1024**3:.1f} GiB of {self.path} …")
        for file in files:
            _check_file(self.path, file, hashes=True)

    def _check_parts(self) -> None:
        """Raise UserError unless the parts are those that generating from the spec runs, in that order."""
        found = [(part.name, part.role) for part in self.manifest.parts]
        wanted = [(part.name, part.role) for part in graph_parts(self.load_spec())]
        if found != wanted:
            names = (", ".join(name for name, _ in parts) or "none" for parts in (found, wanted))
            raise UserError("{} has the parts {}; its spec needs {}".format(self.path / MANIFEST, *names), AGAIN)

    @staticmethod
    def is_bundle(path: Path | str) -> bool:
        """Whether `path` is a folder with this package's manifest, whole or damaged."""
        try:
            _manifest_values(Path(path))
        except UserError:
            return False
        return True

    def load_spec(self, overrides: Sequence[str] = ()) -> Spec:
        """The spec that the bundle was made from, with `key=value` overrides."""
        from sora_spec.language.loading import load_spec

        return load_spec(str(self.path / SPEC), overrides)

    def classes(self) -> list[str] | None:
        """Class names in label order, if the run recorded them."""
        path = self.path / CLASSES
        if not path.is_file():
            return None
        try:
            names = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not JSON: {error}", AGAIN) from error
        return check_names(names, self.load_spec(), str(path))

    def part(self, name: GraphName) -> ExportedPart:
        """What the manifest says about one graph."""
        return next(part for part in self.manifest.parts if part.name == name)

    def check_engine(self, engine: Engine) -> None:
        """Compare an engine's hash with the manifest. Raises UserError when it changed."""
        record = next((file for file in self.manifest.files if file.path == engine.path), None)
        if record is None:
            raise UserError(f"{self.path / MANIFEST} does not list the engine {engine.path!r}", AGAIN)
        _check_file(self.path, record, hashes=True)

    def add_engine(self, engine: Engine, serialized: bytes) -> None:
        """Write `engine` and refer to it, in place of one for the same part, target and builder version."""
        target = inside(self.path, engine.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        inside(self.path, engine.path)
        write_atomically(target, serialized)
        settings = target.with_suffix(".json")
        write_atomically(settings, engine.model_dump_json(indent=2) + "\n")
        added = [record_file(self.path, file) for file in (target, settings)]
        replaced = {file.path for file in added}
        files = [file for file in self.manifest.files if file.path not in replaced] + added
        engines = [known for known in self.manifest.engines if known.path != engine.path] + [engine]
        self.manifest = self.manifest.model_copy(update={"files": tuple(files), "engines": tuple(engines)})
        write_manifest(self.path, self.manifest)


def record_file(root: Path, path: Path) -> File:
    """Describe `path`, which lies inside the bundle `root`."""
    return File(path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, sha256=sha256_of(path))


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, whole or not at all."""
    write_atomically(root / MANIFEST, manifest.model_dump_json(indent=2) + "\n")


@contextmanager
def writing_bundle(target: Path, force: bool = False) -> Iterator[Path]:
    """Give a temporary folder that becomes the bundle `target` when the body succeeds, and vanishes when it fails.

    Raises UserError when `target` holds something: with `force` an earlier bundle is replaced, and nothing else.
    """
    check_target(target, force)
    with replacing_folder(target) as temporary:
        yield temporary


def check_target(target: Path, force: bool) -> None:
    """Raise UserError when a bundle must not be written to `target`."""
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        raise UserError(f"{target} exists and is not a folder", "name another folder with --out")
    if not any(target.iterdir()):
        return
    if not Bundle.is_bundle(target):
        raise UserError(
            f"{target} is not empty and is not a bundle, so it is left alone", "name another folder with --out"
        )
    if not force:
        raise UserError(
            f"{target} already holds a bundle", "replace it with --force, or name another folder with --out"
        )


def _manifest_values(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not file.is_file():
        raise UserError(f"{path} is not a bundle: it has no {MANIFEST}", "make one: sora-spec export RUN --onnx")
    inside(path, MANIFEST)
    if file.stat().st_size > _MANIFEST_LIMIT_BYTES:
        raise UserError(f"{file} is too large for a manifest: {file.stat().st_size:,} bytes", AGAIN)
    try:
        values = json.loads(file.read_bytes(), object_pairs_hook=_refuse_twice, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON: {error}", AGAIN) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{file} is not the manifest of a sora-spec bundle", "make one: sora-spec export RUN --onnx")
    return values


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands in it twice")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _read_manifest(path: Path) -> Manifest:
    values = _manifest_values(path)
    version = values.get("format_version")
    if version not in READ_VERSIONS or not isinstance(version, int) or isinstance(version, bool):
        raise UserError(
            f"{path / MANIFEST} has bundle format {version!r}; this version reads "
            f"{' and '.join(map(str, READ_VERSIONS))}",
            "read it with the version of sora-spec that made it, or export the run again with this one",
        )
    try:
        return Manifest.model_validate_json(json.dumps(upgraded(values) if version == 1 else values), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its text"
        raise UserError(f"{path / MANIFEST} is damaged at {where}: {first['msg']}", AGAIN) from error


def _check_file(root: Path, record: File, hashes: bool) -> None:
    again = "copy the bundle again, or export it again with --force"
    path = inside(root, record.path)
    if not path.is_file():
        raise UserError(f"{root} is incomplete: {record.path} is missing", again)
    size = path.stat().st_size
    if size != record.bytes:
        raise UserError(
            f"{path} has {size:,} bytes, the manifest says {record.bytes:,}: it was cut short or edited",
            again,
        )
    if hashes and sha256_of(path) != record.sha256:
        raise UserError(f"{path} does not have the hash that the manifest says: it was edited", again)
