"""The reference specs and the JSON schema that come with the package, and how more of the package is installed."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any


def specs_folder() -> Path:
    """Folder of the packaged specs."""
    import sora_spec.specs

    # A namespace that pip installs as plain files: no archive, so no `importlib.resources` and its 20 ms of imports.
    return Path(str(sora_spec.specs.__file__)).parent


def packaged_names() -> list[str]:
    """Bare names of the packaged specs, as every verb takes them."""
    return sorted(path.stem for path in specs_folder().glob("*.yaml"))


def packaged_path(name: str) -> Path | None:
    """File of a packaged spec, or None when no spec has that name."""
    path = specs_folder() / f"{name}.yaml"
    return path if name in packaged_names() else None


def about(text: str) -> str:
    """What a spec is: the first sentence of the comment at its head, without what stands in brackets."""
    lines = list[str]()
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if "yaml-language-server" not in line:
            lines.append(line.lstrip("# "))
    return re.sub(r" \([^)]*\)", "", " ".join(lines)).split(". ")[0].rstrip(".")


def install_command(extras: str = "") -> str:
    """The command that adds extras, such as `export,run`, to this installation: from its checkout, address or index."""
    import shlex
    from importlib.metadata import PackageNotFoundError, distribution

    wanted = f"[{extras}]" if extras else ""
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file():
        return f"pip install -e {shlex.quote(f'{checkout}{wanted}')}"
    origin: dict[str, Any] = {}
    with suppress(PackageNotFoundError, OSError, ValueError):
        origin = json.loads(distribution("sora-spec").read_text("direct_url.json") or "{}")
    address = origin.get("url", "")
    if "vcs_info" in origin:
        address = f"{origin['vcs_info'].get('vcs', 'git')}+{address}"
    return f"pip install {shlex.quote(f'sora-spec{wanted} @ {address}' if address else f'sora-spec{wanted}')}"


def find_spec_file(argument: str) -> str:
    """What a SPEC argument names: `-`, a path, or, when no such file exists, the bare name of a packaged spec."""
    if argument == "-" or os.path.exists(argument):  # unlike Path.exists, False for a name that is too long
        return argument
    packaged = packaged_path(argument)
    return str(packaged) if packaged is not None else argument
