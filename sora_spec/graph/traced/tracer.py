"""Recordings of components: asked of a process that has PyTorch, and kept in the user's cache.

This process never imports torch. The other one is started when a recording is first missed, and kept for the next.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from functools import cache, lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from sora_spec.disk.atomic import write_atomically
from sora_spec.errors import UserError
from sora_spec.language.packaged import install_command

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

_MOST_KEPT = 400
"""Recordings in the cache; those that were read longest ago go first."""


def cache_folder() -> Path:
    """Where recordings are kept: `sora-spec/traces` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "sora-spec" / "traces"


def recorded(spec: Spec, component: str, setting: dict[str, Any]) -> dict[str, Any]:
    """The recording of a component; `setting` names the fields of a `Setting` that change it.

    Raises UserError where there is none and none can be made.
    """
    whole = spec.model_dump(mode="json")
    digest = _digest(component, json.dumps([_parts(whole, component), setting], sort_keys=True))
    return _recorded(digest, component, json.dumps({"spec": whole, "component": component, "setting": setting}))


@lru_cache(maxsize=128)
def _recorded(digest: str, component: str, request: str) -> dict[str, Any]:
    kept = _kept(digest)
    if kept is not None:
        return kept
    if _torch() is None:
        message = f"{component} has no lowering: it is recorded from its PyTorch module, and PyTorch is not installed"
        raise UserError(message, install_command("train"))
    values = _tracer().ask(request)
    if "error" in values:
        raise UserError(values["error"], values["hint"])
    values |= {"made": f"{datetime.now(UTC):%Y-%m-%d}", "version": version("sora-spec")}
    _keep(digest, values)
    return values


def _digest(component: str, asked: str) -> str:
    return sha256("\n".join((component, asked, version("sora-spec"), _sources())).encode()).hexdigest()[:32]


def _parts(spec: dict[str, Any], component: str) -> list[Any]:
    """The values of a spec that decide what is recorded."""
    shape = [spec["clip"][side] for side in ("frames", "height", "width")]
    if component.startswith("vae"):
        return [*shape, spec["vae"]]
    latents = [spec["vae"].get(key) for key in ("kind", "compression", "channels")]
    network = [spec[section] for section in ("patch", "backbone", "temporal", "condition")]
    step = [spec["objective"], spec["train"]["recompute"]] if component == "denoiser_step" else []
    return [*shape, *latents, *network, *step]


@cache
def _sources() -> str:
    """Digest of the modules and of what records them: a changed module is recorded anew."""
    builders = find_spec("sora_spec.builders")
    folders = builders.submodule_search_locations if builders is not None else None
    found = sha256()
    for path in sorted(path for folder in folders or () for path in Path(folder).rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


@cache
def _torch() -> str | None:
    try:
        return version("torch")
    except PackageNotFoundError:
        return None


def _kept(digest: str) -> dict[str, Any] | None:
    """A recording from the cache: by the PyTorch that is installed, or by any where none is."""
    found = sorted(cache_folder().glob(f"{digest}-{_torch() or '*'}.json.gz"))
    if not found:
        return None
    try:
        values: dict[str, Any] = json.loads(gzip.decompress(found[-1].read_bytes()))
        found[-1].touch()
    except (OSError, EOFError, ValueError):
        return None  # a damaged file is written anew
    return values


def _keep(digest: str, values: dict[str, Any]) -> None:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        content = gzip.compress(json.dumps(values, separators=(",", ":")).encode(), 5, mtime=0)
        write_atomically(folder / f"{digest}-{_torch()}.json.gz", content)
        by_age = sorted(folder.glob("*.json.gz"), key=lambda path: path.stat().st_mtime)
        for path in by_age[:-_MOST_KEPT]:
            path.unlink(missing_ok=True)
    except OSError:
        return  # a cache that cannot be written is no reason to fail


class _Tracer:
    """The process that records."""

    def __init__(self) -> None:
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process
        self.lock = Lock()
        command = [sys.executable, "-m", "sora_spec.builders.trace"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.said, text=True)

    def ask(self, request: str) -> dict[str, Any]:
        """One recording. Raises UserError where the process ends."""
        questions, answers = self.process.stdin, self.process.stdout
        assert questions is not None
        assert answers is not None
        with self.lock:
            try:
                questions.write(f"{request}\n")
                questions.flush()
                line = answers.readline()
            except OSError:
                line = ""
        if line:
            return json.loads(line)
        _tracer.cache_clear()
        self.said.seek(0)
        last = (self.said.read().strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"the process that records modules ended: {last}", install_command("train"))


@cache
def _tracer() -> _Tracer:
    return _Tracer()
