"""Every action as a command of the palette, from the same bindings that the keys come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from textual.app import SystemCommand
from textual.binding import Binding
from textual.command import CommandPalette
from textual.screen import Screen

from sora_spec.tui.files import FORMS

if TYPE_CHECKING:
    from sora_spec.tui.app import SoraSpecApp


class Palette(CommandPalette):
    """Textual's palette, without its failure when a page is turned before the list has been laid out."""

    def _action_command_list(self, action: str) -> None:
        with suppress(KeyError):
            super()._action_command_list(action)


def commands(app: SoraSpecApp, screen: Screen[Any]) -> Iterator[SystemCommand]:
    """Commands of the app, then of the screen, then the specs of the list."""
    seen = set[str]()
    for owner in (app, screen):
        for _, binding in owner._bindings:
            if binding.description and binding.action not in seen:
                seen.add(binding.action)
                yield _command(app, owner, binding)
    for form, words in FORMS.items():
        yield SystemCommand(f"Export {words.partition(':')[0]}", words, partial(app.action_export, form))
    yield SystemCommand("Write the what-if into the spec", "Comments and layout stay", app.action_write_spec)
    yield SystemCommand("Save the text of the spec", "As it is on the Spec screen", app.action_save_text)
    for index, spec in enumerate(app.session.specs):
        yield SystemCommand(f"Look at {spec.name}", spec.path, partial(app.select_spec, index))


def _command(app: SoraSpecApp, owner: Any, binding: Binding) -> SystemCommand:
    async def run() -> None:
        await app.run_action(binding.action, owner)

    key = binding.key_display or binding.key.partition(",")[0]
    return SystemCommand(binding.description, f"key {key}", run)
