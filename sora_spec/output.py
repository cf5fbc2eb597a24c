"""The one sink: data on stdout, everything else on stderr, readable without colour.

`rich` is imported only when a bar or colour is really drawn, so that short verbs stay short.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Verbosity:
    """What the user asked to see: -1 quiet, 0 normal, 1 and more verbose."""

    level: int = 0


VERBOSITY = Verbosity()


def set_verbosity(level: int) -> None:
    """Set how much goes to stderr: -1 for `-q`, +1 for each `-v`."""
    VERBOSITY.level = level


def colour_allowed(stream_is_terminal: bool) -> bool:
    """Colours only on a terminal that has them and only if NO_COLOR (https://no-color.org) is unset or empty."""
    return stream_is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def data(text: str) -> None:
    """Print the answer itself on stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def _to_stderr(text: str, prefix: str = "", colour: str = "") -> None:
    if prefix and colour_allowed(sys.stderr.isatty()):
        prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
    sys.stderr.write(f"{prefix}{text}\n")
    sys.stderr.flush()


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
        """Advance the bar by `amount`."""
        self._step(amount)


@contextmanager
def progress(label: str, total: float | None = None) -> Generator[Advance]:
    """A bar on stderr while the body runs; with no terminal or with -q it draws nothing.

    `total` None shows a pulse. Without a terminal the label is noted once, so that logs say what ran.
    """
    if VERBOSITY.level < 0 or not sys.stderr.isatty():
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
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
        task = bar.add_task(label, total=total)
        yield Advance(
            lambda amount: bar.advance(task, amount),
            lambda text: bar.update(task, description=text),
        )
