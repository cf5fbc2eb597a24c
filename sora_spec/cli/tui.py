"""`sora-spec tui`: the planner in the terminal, its answers as JSON, and its screens as pictures."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sora_spec import output, signals
from sora_spec.cli.arguments import MODES, STAGES, check_svg, complete_spec, one_of, split_arguments
from sora_spec.errors import UserError

if TYPE_CHECKING:
    from sora_spec.plan.job import Question


_SCREENS = ("planner", "compare", "sweep", "spec", "runs", "help")
_SMALLEST, _LARGEST = (20, 8), (400, 200)


def tui(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SPEC]... [KEY=VALUE]...",
            help="Files or names of packaged specs, all of them when left out; overrides apply to every one.",
            autocompletion=complete_spec,
        ),
    ] = None,
    gpu: Annotated[str, typer.Option(metavar="NAME", help="Device of the table; each spec's own when left out.")] = "",
    count: Annotated[str, typer.Option(metavar="N", help="Number of devices; each spec's own when left out.")] = "",
    mode: Annotated[str, typer.Option(metavar="train|generate", help="What is to be done.")] = "train",
    stage: Annotated[str, typer.Option(metavar="denoiser|vae", help="What is trained.")] = "denoiser",
    hardware: Annotated[str, typer.Option(metavar="FILE", help="Your own devices, as in hardware.yaml.")] = "",
    runs: Annotated[str, typer.Option(metavar="FOLDER", help="Where the Runs screen looks for runs.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print every spec's answer and leave.")] = False,
    screen: Annotated[str, typer.Option(metavar="|".join(_SCREENS), help="The screen to begin with.")] = "planner",
    svg: Annotated[str, typer.Option(metavar="FILE.svg", help="Draw the screen into a file and leave.")] = "",
    size: Annotated[str, typer.Option(metavar="COLUMNSxROWS", help="Of the picture; 120x32 when left out.")] = "",
    keys: Annotated[str, typer.Option(metavar="KEY,KEY,…", help="Keys pressed before the picture is drawn.")] = "",
    theme: Annotated[str, typer.Option(metavar="NAME", help="A theme of Textual, such as textual-light.")] = "",
    ascii_only: Annotated[bool, typer.Option("--ascii", help="Draw with ASCII alone.")] = False,
) -> None:
    """Settle what to train, on what, and whether it fits: the planner in the terminal.

    `--json` exits with 0 if every spec fits, 1 if one does not, like `plan`.
    """
    specs, overrides = split_arguments(arguments or [])
    way = {"mode": one_of("--mode", mode, MODES), "stage": one_of("--stage", stage, STAGES)}
    one_of("--screen", screen, _SCREENS)
    _check_together(as_json, svg, size, keys)
    question = _question(overrides, gpu, count, hardware, way)
    if not specs:
        from sora_spec.language.packaged import packaged_names

        specs = packaged_names()
    if as_json:
        _print_json(specs, question)
        return
    if svg:
        _draw(specs, question, screen, svg, _extent(size or "120x32"), _pressed(keys), theme, ascii_only, runs)
        return
    _open(specs, question, screen, theme, ascii_only, runs)


def _question(overrides: list[str], gpu: str, count: str, hardware: str, way: dict[str, Any]) -> Question:
    from sora_spec.plan.devices.hardware import find_device
    from sora_spec.plan.question import question_from
    from sora_spec.plan.search.listing import number

    devices = number("--count", count)
    if gpu or hardware:
        find_device(gpu or "cpu", hardware or None)
    return question_from(overrides, gpu=gpu, count=devices, hardware=hardware, **way)


def _check_together(as_json: bool, svg: str, size: str, keys: str) -> None:
    """Options that would have no effect are refused."""
    if as_json and svg:
        raise UserError("--json and --svg are two forms", "leave one of the two out")
    for option, given in (("--size", size), ("--keys", keys)) if not svg else ():
        if given:
            raise UserError(f"{option} is about a picture", "add --svg FILE.svg, or leave it out")
    check_svg("--svg", svg)


def _pressed(text: str) -> list[str]:
    from sora_spec.tui.headless import check_key

    keys = [key for key in text.split(",") if key]
    for key in keys:
        check_key(key)
    return keys


def _extent(size: str) -> tuple[int, int]:
    columns, _, rows = size.partition("x")
    if not (columns.isdecimal() and rows.isdecimal() and len(size) < 10):
        raise UserError(f"--size {size} is not COLUMNSxROWS", "for example --size 120x32")
    extent = int(columns), int(rows)
    if not all(low <= value <= high for low, value, high in zip(_SMALLEST, extent, _LARGEST, strict=True)):
        raise UserError(f"--size {size} is not between 20x8 and 400x200")
    return extent


def _print_json(specs: list[str], question: Question) -> None:
    """What the screen would show, for scripts: no Textual is needed."""
    from sora_spec.plan.question import snapshot_values

    values = [snapshot_values(spec, question) for spec in specs]
    output.data(json.dumps({"version": 1, "specs": values}, indent=2))
    if not all(value["plan"] is not None and value["plan"]["fits"] for value in values):
        raise typer.Exit(1)


def _app(
    specs: list[str], question: Question, screen: str, theme: str, ascii_only: bool, runs: str, first: bool
) -> Any:
    from sora_spec.tui.app import SoraSpecApp
    from sora_spec.tui.session import open_session
    from sora_spec.tui.signs import unicode_allowed

    app = SoraSpecApp(
        open_session(specs, question),
        ascii_only=ascii_only or not unicode_allowed(),
        screen=screen,
        run_folders=(Path(runs or "runs"),),
        greet=first,
    )
    if theme:
        if theme not in app.available_themes:
            raise UserError(f"there is no theme {theme}", f"themes: {', '.join(sorted(app.available_themes))}")
        app.theme = theme
    return app


def _open(specs: list[str], question: Question, screen: str, theme: str, ascii_only: bool, runs: str) -> None:
    import os
    import sys

    from sora_spec.tui.ending import outlive_the_terminal, rescue, take_any_byte

    if not (output.is_terminal(sys.stdin) and output.is_terminal(sys.stdout)):
        raise UserError(
            "the planner's screens need a terminal", "sora-spec tui --json prints the answers, --svg draws a screen"
        )
    for name in ("COLUMNS", "LINES"):  # exported, they would hold the size fast while the terminal changes its own
        os.environ.pop(name, None)
    # Collections while the first screen is built would be a tenth of the start; the app turns them on again.
    gc.disable()
    app = _app(specs, question, screen, theme, ascii_only, runs, first=True)
    app.plan_first()
    take_any_byte()
    outlive_the_terminal()
    try:
        app.run()
    finally:
        if not app.left:
            rescue(app.session)
    if app.return_code:
        if signals.received() is None:
            output.error("the planner ended by a fault of its own; report what it says above")
        raise typer.Exit(app.return_code if signals.received() else 2)


def _draw(
    specs: list[str],
    question: Question,
    screen: str,
    file: str,
    extent: tuple[int, int],
    keys: list[str],
    theme: str,
    ascii_only: bool,
    runs: str,
) -> None:
    from sora_spec.tui.headless import draw

    app = _app(specs, question, screen, theme, ascii_only, runs, first=False)
    draw(app, file, extent, keys)
    output.note(f"{screen} as {extent[0]}x{extent[1]} in {file}")
