"""SPEC and `key=value` arguments, as every verb takes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from sora_spec.errors import UserError
from sora_spec.language.overrides import is_override

if TYPE_CHECKING:
    from sora_spec.plan.job import Mode, Stage

MODES: tuple[Mode, ...] = ("train", "generate")
STAGES: tuple[Stage, ...] = ("denoiser", "vae")
_Choice = TypeVar("_Choice", bound=str)


def one_of(option: str, value: str, choices: Sequence[_Choice]) -> _Choice:
    """The choice of that name. Raises UserError where there is none."""
    for choice in choices:
        if choice == value:
            return choice
    raise UserError(f"{option} {value} is none of {', '.join(choices)}")


def check_svg(option: str, path: str) -> None:
    """Refuse a file for a drawing whose name ends otherwise: programs go by it. Raises UserError."""
    if path and Path(path).suffix.lower() != ".svg":
        raise UserError(f"{option} draws SVG, and {path} ends otherwise", f"name it {Path(path).with_suffix('.svg')}")


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Specs and overrides. `a.b=c` is an override unless a file of that name exists."""
    specs, overrides = list[str](), list[str]()
    for argument in arguments:
        (overrides if is_override(argument) and not os.path.exists(argument) else specs).append(argument)
    return specs, overrides


def one_spec(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The one spec and its overrides. Raises UserError: no spec, or more than one."""
    specs, overrides = split_arguments(arguments)
    if len(specs) != 1:
        what = "no spec" if not specs else f"{len(specs)} specs: {', '.join(specs)}"
        hint = "name one file or packaged spec; overrides are `dotted.path=value` without spaces"
        raise UserError(f"this takes one spec, and the arguments name {what}", hint)
    return specs[0], overrides


def complete_spec(incomplete: str) -> list[str]:
    """Shell completion: packaged names and YAML files."""
    from sora_spec.language.packaged import packaged_names

    folder, prefix = Path(incomplete).parent, Path(incomplete).name if not incomplete.endswith("/") else ""
    folder = Path(incomplete) if incomplete.endswith("/") else folder
    try:
        files = sorted(entry for entry in folder.iterdir() if entry.name.startswith(prefix))
    except OSError:
        files = []
    found = [f"{entry}/" if entry.is_dir() else str(entry) for entry in files if entry.is_dir() or _is_yaml(entry)]
    return [name for name in packaged_names() if name.startswith(incomplete)] + found


def _is_yaml(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml")


OneSpec = Annotated[
    list[str],
    typer.Argument(
        metavar="SPEC [KEY=VALUE]...",
        help="A file, `-` for standard input, or the name of a packaged spec; and overrides.",
        autocompletion=complete_spec,
    ),
]
"""What `one_spec` reads."""
