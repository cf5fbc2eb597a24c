"""What the app does with files: write the what-if, save the text, watch for changes, export, copy."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.app import SuspendNotSupported

from sora_spec.disk.run_folder import write_atomically
from sora_spec.errors import UserError
from sora_spec.language.packaged import specs_folder
from sora_spec.language.reading import read_text
from sora_spec.language.yaml_tree import RefusedError
from sora_spec.os_errors import refusal
from sora_spec.plan.question import after_writing, command_line, written_values
from sora_spec.tui.boxes import Choice, Shown, Typed
from sora_spec.tui.session import OpenSpec, modified
from sora_spec.tui.writing import with_values

if TYPE_CHECKING:
    from sora_spec.tui.app import SoraSpecApp

FORMS = {"json": "JSON: sora-spec plan --json", "csv": "CSV: every term", "md": "Markdown", "svg": "SVG: this screen"}


def packaged(spec: OpenSpec) -> bool:
    """Whether the spec came with the package: then it is read, never written."""
    return Path(spec.path).parent == specs_folder()


# Writing


def write_question(app: SoraSpecApp) -> None:
    """Put what the question says into the text, and the text into the file."""
    spec = app.spec
    if spec.answer is None or not spec.fresh:
        app.notify("the answer is still to come", severity="warning")
        return
    values = written_values(spec.answer)
    if not values and not spec.unsaved:
        app.notify("the spec says all of this already")
        return
    try:
        content = with_values(spec.content, values)
    except UserError as error:
        app.notify(error.hint or "", title=error.message, severity="error")
        return
    shown = "\n".join(f"{path}: {value}" for path, value in values)
    _save(app, spec, content, f"Writes into the spec, comments kept:\n{shown}" if values else "", written=True)


def save_text(app: SoraSpecApp) -> None:
    """Save the text that is edited."""
    if not app.spec.unsaved:
        app.notify("nothing has changed since the last save")
        return
    _save(app, app.spec, app.spec.content, "", written=False)


def _save(app: SoraSpecApp, spec: OpenSpec, content: str, text: str, written: bool) -> None:
    """Ask for a name where the file is not the user's own, and before another's changes would be lost."""
    own = spec.path != "-" and not packaged(spec)
    if own and modified(spec.path) == spec.stamp and not text:
        _put(app, spec, content, spec.path, written)
        return
    target = spec.path if own else f"{spec.name}.yaml"

    def named(name: str | None) -> None:
        if not name:
            return
        if name == spec.path and modified(name) == spec.stamp:
            _put(app, spec, content, name, written)
        elif os.path.exists(name):
            _ask_over(app, spec, content, name, written)
        else:
            _put(app, spec, content, name, written)

    if own and not text:
        named(target)
    else:
        app.push_screen(
            Typed("Write to", text or "The spec came with the package; write it to a file of yours.", target), named
        )


def _ask_over(app: SoraSpecApp, spec: OpenSpec, content: str, name: str, written: bool) -> None:
    changed = "has changed on disk since it was read" if name == spec.path else "is there already"

    def over(answer: str | None) -> None:
        if answer == "over":
            _put(app, spec, content, name, written)

    choices = {"keep": "leave the file as it is", "over": "write over it"}
    app.push_screen(Choice("Write over?", f"{name} {changed}.", choices), over)


def _put(app: SoraSpecApp, spec: OpenSpec, content: str, name: str, written: bool) -> None:
    path = Path(os.path.realpath(name))
    try:
        mode = path.stat().st_mode & 0o777 if path.exists() else None
        write_atomically(path, content)
        if mode is not None:
            path.chmod(mode)
    except (OSError, ValueError) as error:  # ValueError: a NUL, or half a character, in the name or in the text
        refused = refusal(error)
        app.notify(refused.message if refused else str(error), title=f"{name} cannot be written", severity="error")
        return
    if name != spec.path:
        spec.argument = name
        spec.rename(name)
    spec.write(content)
    spec.stamp, spec.unsaved = modified(name), False
    if written:
        spec.forget(after_writing(spec.question))
    app.replan(spec)
    app.planned += 1
    app.notify(f"written to {name}")


# Watching


def look(app: SoraSpecApp) -> None:
    """Take what changed on disk; ask where the text here has changed too."""
    for spec in app.session.specs:
        now = modified(spec.path)
        if spec.path == "-" or now in (0.0, spec.stamp):
            continue
        spec.stamp = now
        if spec.unsaved:
            _ask_which(app, spec)
            return
        reload(app, spec)


def reload(app: SoraSpecApp, spec: OpenSpec) -> None:
    """The text as it is on disk."""
    try:
        content = read_text(spec.path).content
    except RefusedError as refused:
        app.notify(refused.diagnostic.message, severity="error")
        return
    spec.stamp, spec.unsaved = modified(spec.path), False
    if spec.write(content):
        app.replan(spec)
        app.notify(f"{spec.name} was read anew")
    app.planned += 1


def _ask_which(app: SoraSpecApp, spec: OpenSpec) -> None:
    def which(answer: str | None) -> None:
        if answer == "disk":
            reload(app, spec)

    choices = {"mine": "keep what is written here; ^s writes it over the file", "disk": "take the file's"}
    app.push_screen(Choice(f"{spec.name} changed on disk", "It has changed here too.", choices), which)


def edit(app: SoraSpecApp) -> None:
    """The spec in the user's editor, while the app waits."""
    spec = app.spec
    if packaged(spec):
        app.notify("it came with the package: write it to a file of yours with ^s", severity="warning")
        return
    if spec.unsaved:
        app.notify("save the text with ^s first", severity="warning")
        return
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        with app.suspend():
            subprocess.run([*shlex.split(editor), spec.path], check=False)
    except SuspendNotSupported:
        app.notify("this terminal cannot be handed over", severity="error")
        return
    except (OSError, ValueError) as error:
        app.notify(f"{editor}: {error}", title="the editor did not start", severity="error")
        return
    reload(app, spec)


# Handing on


def copy_command(app: SoraSpecApp) -> None:
    """Onto the clipboard by OSC 52, which also works over ssh, and onto the screen."""
    spec = app.spec
    line = command_line(spec.argument, spec.question)
    app.copy_to_clipboard(line)
    note = "The same numbers on the command line; copied to the clipboard where the terminal allows it."
    if spec.unsaved:
        note += " The text here is not saved, so the file says something else."
    app.push_screen(Shown("Command", note, line))


def export(app: SoraSpecApp) -> None:
    """Ask for a form, then write."""
    if app.spec.good is None:
        app.notify("there is no plan to export", severity="warning")
        return

    def chosen(form: str | None) -> None:
        if form is not None:
            export_as(app, form)

    app.push_screen(Choice("Export", "", FORMS), chosen)


def export_as(app: SoraSpecApp, form: str) -> None:
    """Write the plan beside where the app was started, under a name that is free."""
    from sora_spec.tui.exporting import exported

    answer = app.spec.good_answer
    if answer is None:
        app.notify("there is no plan to export", severity="warning")
        return
    name = _free(f"{app.spec.name}-plan", form)
    command = command_line(app.spec.argument, answer.question)
    picture = app.export_screenshot(title=app.spec.name) if form == "svg" else ""

    def work() -> None:
        try:
            write_atomically(Path(name), picture or exported(form, answer, command))
        except OSError as error:
            _say(app, f"{name} cannot be written: {error.strerror}", "error")
        else:
            _say(app, f"written to {name}", "information")

    app.run_worker(work, name="export", group="export", thread=True, exit_on_error=False)


def _say(app: SoraSpecApp, text: str, severity: Any) -> None:
    app.call_from_thread(app.notify, text, severity=severity)


def _free(stem: str, form: str) -> str:
    name, number = f"{stem}.{form}", 1
    while os.path.exists(name):
        number += 1
        name = f"{stem}-{number}.{form}"
    return name
