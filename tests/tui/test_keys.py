"""Every key of every screen reaches the action that its binding names, and Help lists it."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from textual.binding import Binding

from sora_spec.tui.app import PLACES, TABS, SoraSpecApp
from sora_spec.tui.headless import settled
from sora_spec.tui.help import sections

RECORDED = Path(__file__).with_name("recorded") / "digits"
LEAVING = {"quit"}


def keys_of(kind: Any) -> list[tuple[str, str]]:
    """Key and action of each binding of a class."""
    given = [binding for binding in kind.BINDINGS if isinstance(binding, Binding)]
    return [(key, bare(binding.action)) for binding in given for key in binding.key.split(",")]


def bare(action: str) -> str:
    """An action without the place where it is looked up."""
    return action.removeprefix("app.").removeprefix("screen.")


async def back_to(pilot: Any, screen: str) -> None:
    """The screen as it is first shown, without a box over it and with nothing in focus."""
    app = pilot.app
    while len(app.screen_stack) > 1:
        app.pop_screen()
        await pilot.pause()
    if app.current_mode != screen:
        app.switch_mode(screen)
    await pilot.pause()
    app.screen.set_focus(None)
    await settled(app)


@pytest.mark.parametrize("screen", [*TABS, "help"])
def test_every_key_reaches_its_action(
    screen: str, make_app, drive, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(RECORDED, home / "runs" / "digits")
    monkeypatch.setenv("EDITOR", "true")
    app = make_app("video.yaml", "image.yaml", run_folders=[home / "runs"])
    reached, usual = list[str](), app.run_action

    async def noted(action: Any, *arguments: Any, **settings: Any) -> bool:
        reached.append(bare(str(action)))
        return await usual(action, *arguments, **settings)

    monkeypatch.setattr(app, "run_action", noted)

    async def scene(pilot: Any) -> None:
        await back_to(pilot, screen)
        missed = list[str]()
        for key, action in dict.fromkeys([*keys_of(type(app.screen)), *keys_of(SoraSpecApp)]):
            if action in LEAVING or any(own == key and other != action for own, other in keys_of(type(app.screen))):
                continue  # it ends the app, or the screen has another use for the key
            await back_to(pilot, screen)
            reached.clear()
            await pilot.press(key)
            await pilot.pause()
            if action not in reached:
                missed.append(f"{key}: {action}, but {reached}")
            assert app.is_running
        assert missed == []

    drive(app, scene)


def test_help_lists_every_binding() -> None:
    listed = {words for _, bindings in sections() for _, words in bindings}
    for name in TABS:
        module, kind = PLACES[name]
        for binding in getattr(import_module(module), kind).BINDINGS:
            assert isinstance(binding, Binding)
            assert binding.description in listed, binding
