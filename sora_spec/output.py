"""The one sink: data on stdout, everything else on stderr, readable without colour.

Whatever comes from a file, a name or a library may hold characters that drive a terminal: they leave as visible escapes
(`characters.visible`). Colour is ours and put in by `painted`, which the sink alone can tell from what a text holds.

`rich` is imported only when a bar or colour is really drawn, so that short verbs stay short.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from sora_spec.characters import SUBSTITUTE, visible
from sora_spec.errors import UserError
from sora_spec.os_errors import refusal


@dataclass
class Verbosity:
    """What the user asked to see: -1 quiet, 0 normal, 1 and more verbose."""

    level: int = 0


VERBOSITY = Verbosity()

# No file can hold this mark of a colour: it is drawn anew by every process.
_MARK = f"\x00{os.urandom(8).hex()}["
_COLOUR = re.compile(re.escape(_MARK) + "([0-9;]+m)")
# GitHub's runner obeys lines of a log that begin so; only our own report for it may.
_WORKFLOW_COMMAND = re.compile(r"^(\s*)(?=::[A-Za-z]|##\[)", re.MULTILINE)


def set_verbosity(level: int) -> None:
    """Set how much goes to stderr: -1 for `-q`, +1 for each `-v`."""
    VERBOSITY.level = level


def colour_allowed(stream_is_terminal: bool) -> bool:
    """Colours only on a terminal that has them and only if NO_COLOR (https://no-color.org) is unset or empty."""
    return stream_is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(to_stderr: bool = False) -> bool:
    """Whether colours are allowed on stdout, or on stderr; a stream that is closed has none."""
    stream: TextIO | None = sys.stderr if to_stderr else sys.stdout
    return colour_allowed(is_terminal(stream))


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is open and leads to a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


def painted(text: str, colour: str) -> str:
    """`text` in a colour, such as "31;1", once `data` or one of its sisters prints it."""
    return f"{_MARK}{colour}m{text}{_MARK}0m"


def prepare_streams() -> None:
    """Let stdout and stderr take what their encoding lacks, wait where they would not, and never be another file.

    A descriptor of the three that is closed would be given to the next file opened, which everything that is printed
    then lands in.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # a stand-in for a stream may have none of it
            stream.reconfigure(errors=SUBSTITUTE)  # pyright: ignore
        with contextlib.suppress(AttributeError, ValueError, OSError):
            os.set_blocking(stream.fileno(), True)


class Guarded:
    """stderr as libraries get it, for warnings and logs of theirs: what drives a terminal leaves as escapes."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(harmless(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def guarded_stderr() -> Generator[None]:
    """Let libraries have a guarded stderr while the body runs."""
    before = sys.stderr
    if before is not None:  # pyright: ignore[reportUnnecessaryComparison] - None after `2>&-`
        sys.stderr = Guarded(before)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        sys.stderr = before


def _own_stderr() -> TextIO | None:
    """stderr for what the sink has made harmless; a progress bar stands before it while it is drawn."""
    stream: Any = sys.stderr
    return stream.stream if isinstance(stream, Guarded) else stream


def harmless(text: str, command: bool = False) -> str:
    """The text as it may be printed: escapes visible, our colours real; `command` spares lines for GitHub's runner."""
    parts = _COLOUR.split(text)
    clean = "".join(f"\x1b[{part}" if index % 2 else visible(part) for index, part in enumerate(parts))
    return clean if command or ("::" not in clean and "##[" not in clean) else _WORKFLOW_COMMAND.sub(r"\1\\", clean)


def data(text: str, command: bool = False) -> None:
    """Print the answer itself on stdout. `command`: its lines are meant for GitHub's runner.

    Raises UserError: stdout is closed, or its disk is full. Raises BrokenPipeError: the reader has gone.
    """
    check_open()
    try:
        sys.stdout.write(harmless(text if text.endswith("\n") else text + "\n", command))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence(sys.stdout)
        raise refusal(error, "standard output cannot be written") or error from error


def check_open() -> None:
    """Raise UserError where stdout is closed, for what is printed by others than `data`: nothing would tell of it."""
    if sys.stdout is None or sys.stdout.closed:  # pyright: ignore[reportUnnecessaryComparison] - None after `>&-`
        raise UserError("standard output is closed, so the answer cannot be printed", "give it a file: `> answer.txt`")


def encodable(text: str) -> bool:
    """Whether stdout has every character of the text, so that a file made of it says the same."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def json_data(values: Any, indent: int | None = None) -> None:
    """Print values as JSON on stdout, in ASCII: no character of a name reaches the terminal, none is lost."""
    data(json.dumps(values, indent=indent))


def silence(stream: TextIO | None) -> None:
    """Lead a stream that cannot be written into nothing, so that the interpreter's last flush does not fail again."""
    with contextlib.suppress(AttributeError, ValueError, OSError):  # a stand-in for a stream has no descriptor
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())  # pyright: ignore
        os.close(nothing)


def _to_stderr(text: str, prefix: str = "", colour: str = "") -> None:
    """What cannot be told is left out: a log whose reader has gone must not end a training."""
    stream = _own_stderr()
    if stream is None or stream.closed:
        return
    if prefix:
        text = text.replace("\n", "\n  ")  # a line end in a name must not begin another sentence
        prefix = painted(prefix, colour) if coloured(to_stderr=True) else prefix
    try:
        stream.write(harmless(f"{prefix}{text}\n"))
        stream.flush()
    except (OSError, ValueError):
        silence(stream)


def note(text: str) -> None:
    """Tell the user what happens; silent with -q."""
    if VERBOSITY.level >= 0:
        _to_stderr(text)


def hint(text: str) -> None:
    """Name the next command; silent with -q."""
    if VERBOSITY.level >= 0:
        _to_stderr(text, "hint: ", "36")


def warn(text: str) -> None:
    """Something is off but work goes on. Shown even with -q."""
    _to_stderr(text, "warning: ", "33")


def error(text: str) -> None:
    """Why the program stops. Always shown."""
    _to_stderr(text, "error: ", "31;1")


def report(text: str) -> None:
    """Why the program stops, as a report of its own with several lines and colours. Always shown."""
    _to_stderr(text)


def verbose(text: str) -> None:
    """Detail for -v."""
    if VERBOSITY.level >= 1:
        _to_stderr(text)


class Advance:
    """Handle of a progress bar: call it with how much was done; `describe` replaces the label."""

    def __init__(self, step: Callable[[float], None], describe: Callable[[str], None]) -> None:
        self._step = step
        self.describe = describe

    def __call__(self, amount: float = 1) -> None:
        self._step(amount)


@contextmanager
def progress(label: str, total: float | None = None) -> Generator[Advance]:
    """A bar on stderr while the body runs; with no terminal or with -q it draws nothing.

    `total` None shows a pulse. Without a terminal the label is noted once, so that logs say what ran.
    """
    if VERBOSITY.level < 0 or not is_terminal(sys.stderr):
        note(f"{label} …")
        yield Advance(lambda _: None, lambda _: None)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=_own_stderr()), transient=False) as bar:
        task = bar.add_task(harmless(label), total=total)
        yield Advance(
            lambda amount: bar.advance(task, amount),
            lambda text: bar.update(task, description=harmless(text)),
        )
