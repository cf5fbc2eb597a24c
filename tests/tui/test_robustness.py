"""Random keys, sizes, clicks and mutations of the open file: no exception, no worker that does not end.

`--hypothesis-seed` and `SEED` below make a failure come again.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import string
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from textual.errors import NoWidget
from textual.pilot import OutOfBounds

from sora_spec.tui.app import TABS, SoraSpecApp

RECORDED = Path(__file__).with_name("recorded") / "digits"
SEED = 20_261_124
SIZES = [(60, 20), (80, 24), (100, 30), (120, 32), (200, 50), (240, 70), (20, 8), (1, 1)]
KEYS = [
    *string.ascii_letters,
    *string.digits,
    *("enter", "escape", "space", "tab", "shift+tab", "backspace", "delete", "up", "down", "left", "right"),
    *("home", "end", "pageup", "pagedown", "ctrl+s", "ctrl+r", "ctrl+p", "ctrl+z", "ctrl+y", "ctrl+a", "ctrl+w"),
    *("left_square_bracket", "right_square_bracket", "question_mark", "slash", "comma", "full_stop", "equals_sign"),
    *("minus", "plus", "colon", "left_curly_bracket", "right_curly_bracket", "number_sign", "f1"),
]
ENDING = {"q", "ctrl+q", "ctrl+c"}


@pytest.fixture(autouse=True)
def editor(monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor that leaves the file as it is; suspending has no terminal to give back in a headless app."""
    monkeypatch.setenv("EDITOR", "true")


async def at_rest(app: SoraSpecApp, seconds: float = 60.0) -> None:
    """Every worker ends by itself."""
    for _ in range(round(seconds / 0.02)):
        await asyncio.sleep(0.02)
        running = [worker for worker in app.workers if worker.is_running and worker.group not in ("runs", "files")]
        if not running:
            return
    raise AssertionError(f"still running: {[(worker.name, worker.group) for worker in running]}")


def watch_workers(app: SoraSpecApp) -> list[str]:
    """Gathers what the app says of workers that failed."""
    failed: list[str] = []
    usual = app.notify

    def noted(message: str, *, title: str = "", **settings: Any) -> None:
        if "failed" in title:
            failed.append(f"{title}: {message}")
        usual(message, title=title, **settings)

    app.notify = noted  # pyright: ignore[reportAttributeAccessIssue]
    return failed


def play(app: SoraSpecApp, scene: Any, size: tuple[int, int] = (120, 32)) -> None:
    failed = watch_workers(app)

    async def run() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            await scene(pilot)
            await pilot.resize_terminal(120, 32)
            await at_rest(app)
            await pilot.pause()
            assert app.is_running
            assert not failed

    asyncio.run(run())


def runs_folder(home: Path) -> list[Path]:
    shutil.copytree(RECORDED, home / "runs" / "digits")
    return [home / "runs"]


async def press_at_random(pilot: Any, dice: random.Random, count: int) -> list[str]:
    """Keys, resizes, clicks and changes of screen, in the order in which they were made."""
    done: list[str] = []
    keys = [key for key in KEYS if key not in ENDING]
    for _ in range(count):
        what = dice.random()
        if what < 0.06:
            size = dice.choice(SIZES) if dice.random() < 0.5 else (dice.randint(20, 240), dice.randint(6, 70))
            done.append(f"resize {size}")
            await pilot.resize_terminal(*size)
        elif what < 0.12:
            place = (dice.randrange(max(1, pilot.app.size.width)), dice.randrange(max(1, pilot.app.size.height)))
            done.append(f"click {place}")
            with suppress(NoWidget, OutOfBounds):  # the pilot's own objection: the screen has just become smaller
                await pilot.click(offset=place)
        elif what < 0.18:
            name = dice.choice([*TABS, "help"])
            done.append(f"show {name}")
            pilot.app.action_show(name)
        else:
            key = dice.choice(keys)
            done.append(key)
            await pilot.press(key)
    return done


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("part", range(5))
def test_a_thousand_random_keys_and_sizes(part: int, count: int, make_app, home: Path) -> None:
    """Two hundred in each part, every part from another screen; the first forty of each in the short suite."""
    app = make_app("video.yaml", "image.yaml", "wrong.yaml", run_folders=runs_folder(home), ascii_only=part % 2 == 1)
    dice = random.Random(SEED + part)

    async def scene(pilot: Any) -> None:
        app.action_show(TABS[part])
        await pilot.pause()
        done = await press_at_random(pilot, dice, count)
        assert app.is_running, done

    play(app, scene, SIZES[part])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(100, 110))
def test_five_thousand_more(part: int, make_app, home: Path) -> None:
    app = make_app("video.yaml", "image.yaml", "wrong.yaml", run_folders=runs_folder(home))
    dice = random.Random(SEED + part)

    async def scene(pilot: Any) -> None:
        app.action_show(dice.choice(TABS))
        await press_at_random(pilot, dice, 500)

    play(app, scene)


def mutated(text: str, dice: random.Random) -> str:
    """One of the things that happen to a YAML file while it is written."""
    place = dice.randrange(len(text) + 1)
    lines = text.split("\n")
    row = dice.randrange(len(lines))
    match dice.randrange(10):
        case 0:
            return text[:place]
        case 1:
            return text[:place] + dice.choice("{}[]:#&*!|>'\"%@`,?-\t\n \0é漢\u2028\ufeff") + text[place:]
        case 2:
            return text[:place] + text[place + dice.randint(1, 30) :]
        case 3:
            lines[row] = dice.choice(("", "  ", "\t")) + lines[row].strip()
        case 4:
            lines.insert(row, lines[dice.randrange(len(lines))])
        case 5:
            del lines[row]
        case 6:
            key, _, _ = lines[row].partition(":")
            values = ("null", "-1", "1e400", "[]", "{}", "yes", ".nan", "9" * 400, "'x", "*a", "&a [*a]", "kind: vae")
            lines[row] = f"{key}: {dice.choice(values)}"
        case 7:
            dice.shuffle(lines)
        case 8:
            return "".join(chr(dice.choice((*range(32, 127), 9, 10))) for _ in range(dice.randint(0, 80)))
        case _:
            return text.replace(
                dice.choice(("4", "1", "transformer", "train", ": ")), dice.choice(("0", "7", "", "  "))
            )
    return "\n".join(lines)


@pytest.mark.parametrize("count", [10, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("screen", TABS)
def test_two_hundred_mutations_of_the_open_file(screen: str, count: int, make_app, home: Path) -> None:
    """Forty on each of five screens. They pile up, and now and then the right text is back."""
    app = make_app("video.yaml", "image.yaml", run_folders=runs_folder(home))
    path = home / "video.yaml"
    right, dice = path.read_text(), random.Random(SEED + TABS.index(screen))

    async def scene(pilot: Any) -> None:
        app.action_show(screen)
        await pilot.pause()
        text = right
        for number in range(count):
            text = right if number % 7 == 6 else mutated(text, dice)
            raw = text.encode("utf-8", "surrogatepass")
            path.write_bytes(raw + (b"\xff\xfe" if dice.random() < 0.05 else b""))
            app._look_at_files()
            if dice.random() < 0.5:
                await pilot.press(dice.choice(("up", "down", "u", "right", "left", "enter", "escape", "n", "d", "c")))
            await pilot.pause()
        for _ in range(3):
            await pilot.press("escape")
        path.write_text(right)
        app._look_at_files()
        await at_rest(app)

    play(app, scene)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_anything_may_stand_in_the_file(data: st.DataObject, make_app, home: Path) -> None:
    app = make_app("video.yaml")
    path, right = home / "video.yaml", (Path(__file__).with_name("specs") / "video.yaml").read_text()
    texts = data.draw(st.lists(st.one_of(st.text(max_size=200), st.just(right)), min_size=1, max_size=5))

    async def scene(pilot: Any) -> None:
        app.action_show("spec")
        for text in texts:
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
            app._look_at_files()
            await pilot.pause()

    play(app, scene)
    path.write_text(right)


def test_a_file_that_goes_and_comes_back(make_app, home: Path) -> None:
    app = make_app("video.yaml")
    path = home / "video.yaml"
    right = path.read_text()

    async def scene(pilot: Any) -> None:
        for number, screen in enumerate(TABS):
            app.action_show(screen)
            path.unlink()
            app._look_at_files()
            await pilot.pause()
            if number % 2:
                path.mkdir()
                app._look_at_files()
                await pilot.pause()
                path.rmdir()
            path.write_text(right)
            app._look_at_files()
            await pilot.pause()
            await pilot.press("escape", "escape")

    play(app, scene)


def test_a_clock_that_outlives_the_screens_does_no_harm(make_app) -> None:
    """A timer may fire once more while the app is ending, when there is no screen left to ask."""
    app = make_app("video.yaml")
    assert app.screen_stack == []
    app._look_at_files()
