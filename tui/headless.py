"""A screen as a picture, drawn without a terminal: by the app itself, under a pilot."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from textual.keys import KEY_NAME_REPLACEMENTS, Keys, key_to_character
from textual.message_pump import MessagePump
from textual.screen import Screen
from textual.widgets import Input, TextArea

from sora_spec.disk.run_folder import write_atomically
from sora_spec.errors import UserError
from sora_spec.language.diagnostics import nearest

if TYPE_CHECKING:
    from sora_spec.tui.app import SoraSpecApp


async def picture(app: SoraSpecApp, extent: tuple[int, int], keys: Sequence[str] = ()) -> str:
    """The screen as SVG once every answer is there."""
    async with app.run_test(size=extent) as pilot:
        await settled(app)
        for key in keys:
            await pilot.press(key)
            await settled(app)
        steady(app)
        await settled(app)
        return app.export_screenshot(title="sora-spec")


_MODIFIERS = {"ctrl", "shift", "alt", "super", "hyper", "meta"}


def check_key(name: str) -> None:
    """Raise UserError for a name that no key has; `wait:MS` is a pause."""
    *modifiers, key = name.split("+")
    named = {*(each.value for each in Keys), *KEY_NAME_REPLACEMENTS.values()}
    known = name in named or ((key in named or key_to_character(key)) and _MODIFIERS.issuperset(modifiers))
    if not (known or len(name) == 1 or re.fullmatch(r"wait:\d{1,6}", name)):
        match = nearest(name, named)
        raise UserError(
            f"there is no key {name}", f"did you mean {match}?" if match else "such as f, enter, down, ctrl+s"
        )


async def settled(app: SoraSpecApp, seconds: float = 120.0) -> None:
    """Wait until every question is answered, every message handled and everything drawn, however long that takes.

    Raises:
        TimeoutError: something was still going on after so many seconds, such as a worker that does not end.
    """
    end = monotonic() + seconds
    while True:
        await _every_message_handled(app)
        if app.settled and not _to_draw(app.screen) and not any(map(_waits, _pumps(app))):
            return
        if monotonic() > end:
            raise TimeoutError(f"the screen was not ready after {seconds:g} seconds")
        await asyncio.sleep(0.01)


def steady(app: SoraSpecApp) -> None:
    """Stop the cursor of the line or text in focus from blinking, so that a picture does not depend on the moment."""
    focused: Any = app.screen.focused
    if isinstance(focused, Input | TextArea):
        focused._pause_blink(visible=True)  # pyright: ignore[reportPrivateUsage] - no public way to stop it while shown


def _pumps(app: SoraSpecApp) -> list[MessagePump]:
    """Whatever gets messages: the app, and every widget of the screens that lie on one another."""
    return [app, *(widget for screen in app.screen_stack for widget in screen.walk_children(with_self=True))]


# Textual's own names: a pilot's pause looks at the processor's load instead, which on a busy machine says nothing.


def _waits(pump: MessagePump) -> bool:
    """Whether a message is still to be handled."""
    return bool(pump.message_queue_size or pump._next_callbacks)  # pyright: ignore[reportPrivateUsage]


def _to_draw(screen: Screen[object]) -> bool:
    """Whether something has changed that is not on the screen yet."""
    return bool(screen._dirty_widgets or screen._callbacks or screen._layout_required)  # pyright: ignore[reportPrivateUsage]


async def _every_message_handled(app: SoraSpecApp) -> None:
    """Return when all messages that are there now have been handled; later for those of a widget that is leaving."""
    handled: list[asyncio.Event] = []
    for pump in _pumps(app):
        event = asyncio.Event()
        if pump.call_later(event.set):
            handled.append(event)
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*(event.wait() for event in handled)), 1.0)


def draw(app: SoraSpecApp, file: str, extent: tuple[int, int], keys: Sequence[str] = ()) -> None:
    """Write the picture. Raises UserError: the file cannot be written."""
    content = asyncio.run(picture(app, extent, keys))
    try:
        write_atomically(Path(file), content)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from error
