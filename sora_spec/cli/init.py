"""`sora-spec init`: a commented spec to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sora_spec import output
from sora_spec.atomic import sweep, write_atomically
from sora_spec.diagnostics import nearest
from sora_spec.errors import UserError
from sora_spec.packaged import packaged_names, packaged_path

DEFAULT = "tiny-sit-digits"


def _complete_name(incomplete: str) -> list[str]:
    return [name for name in packaged_names() if name.startswith(incomplete)]


def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="File or folder to write to; `-` prints it.")] = Path(
        "spec.yaml"
    ),
    source: Annotated[
        str, typer.Option("--from", metavar="NAME", help="Packaged spec to copy.", autocompletion=_complete_name)
    ] = DEFAULT,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented spec to start from: a copy of a packaged one. Never overwrites a file by itself."""
    text = _packaged(source).read_text(encoding="utf-8")
    if str(path) == "-":
        output.data(text)
        return
    target = path / f"{source}.yaml" if path.is_dir() else path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent, target.name)
        write_atomically(target, text, replace=force)
    except FileExistsError as error:
        raise UserError(f"{target} exists already", "name another file, or overwrite it with --force") from error
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}", "name a file in a folder of yours") from error
    output.note(f"wrote {target}")
    output.hint(f"sora-spec validate {target}")


def _packaged(name: str) -> Path:
    path = packaged_path(name)
    if path is not None:
        return path
    match = nearest(name, packaged_names())
    hint = f"did you mean {match}? " if match else ""
    raise UserError(f"no packaged spec is called {name}", f"{hint}sora-spec ls lists them all")
