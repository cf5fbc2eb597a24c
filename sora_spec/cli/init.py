"""`sora-spec init`: a commented spec to start from."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from sora_spec import output
from sora_spec.errors import UserError
from sora_spec.language.diagnostics import nearest
from sora_spec.language.packaged import about, packaged_names, packaged_path

DEFAULT = "tiny-sit-digits"
_ANY_NAME = "spec"
"""Stem of the file that is written when none is named; no name for a system."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def _complete_name(incomplete: str) -> list[str]:
    return [name for name in packaged_names() if name.startswith(incomplete)]


def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="File or folder to write to; `-` prints it.")] = Path(
        "spec.yaml"
    ),
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="NAME", help="Starting point; `--list` names them.", autocompletion=_complete_name
        ),
    ] = DEFAULT,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the starting points, and write nothing.")] = False,
) -> None:
    """Write a spec to start from, every line explained. It is named after its file. Never overwrites by itself."""
    if listed:
        _print_list()
        return
    from sora_spec.language.starting import schema_reference, starting_point

    packaged = _packaged(source)
    if str(path) == "-":
        output.data(starting_point(packaged, packaged.stem, None, schema_reference(None)).rstrip("\n"))
        return
    target = path / packaged.name if path.is_dir() else path
    named = target.stem != _ANY_NAME and _NAME.fullmatch(target.stem) is not None
    text = starting_point(packaged, str(target), target.stem if named else None, schema_reference(target))
    _write(target, text, force)
    output.note(f"wrote {target}, which begins as {source}")
    output.hint(f"sora-spec validate {shlex.quote(str(target))}; other starting points: sora-spec init --list")


def _write(target: Path, text: str, force: bool) -> None:
    from sora_spec.disk.atomic import write_atomically

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text, replace=force)
    except FileExistsError as error:
        raise UserError(f"{target} exists already", "name another file, or overwrite it with --force") from error
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}", "name a file in a folder of yours") from error


def _print_list() -> None:
    names = packaged_names()
    width = max(map(len, names))
    for name in names:
        path = packaged_path(name)
        assert path is not None
        output.data(f"{name:<{width}}  {about(path.read_text(encoding='utf-8'))}")
    output.hint(f"sora-spec init my.yaml --from {DEFAULT} writes one, every line explained")


def _packaged(name: str) -> Path:
    path = packaged_path(name)
    if path is not None:
        return path
    match = nearest(name, packaged_names())
    hint = f"did you mean {match}? " if match else ""
    raise UserError(f"there is no starting point called {name}", f"{hint}there are: {', '.join(packaged_names())}")
