"""An app on fixed specs, in a folder of its own, and the command line to hold it against."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import shlex
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from sora_spec.plan.whatif import WhatIf
from sora_spec.tui.app import SoraSpecApp
from sora_spec.tui.headless import settled
from sora_spec.tui.session import open_session

SPECS = Path(__file__).with_name("specs")
Scene = Callable[[Any], Awaitable[None]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the specs, which is also the current one and that of what is remembered."""
    for name in ("NO_COLOR", "LC_ALL", "LC_CTYPE", "VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for spec in SPECS.glob("*.yaml"):
        shutil.copy(spec, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make_app() -> Callable[..., SoraSpecApp]:
    """An app on files of the folder."""

    def made(*specs: str, **settings: Any) -> SoraSpecApp:
        whatif = settings.pop("whatif", WhatIf())
        return SoraSpecApp(open_session(specs or ("video.yaml", "image.yaml", "wrong.yaml"), whatif), **settings)

    return made


@pytest.fixture
def drive() -> Callable[..., None]:
    """Run an app headlessly and hand its pilot to a scene once everything is answered."""

    def driven(app: SoraSpecApp, scene: Scene, size: tuple[int, int] = (120, 32)) -> None:
        async def run() -> None:
            async with app.run_test(size=size) as pilot:
                await settled(app)
                await scene(pilot)

        asyncio.run(run())

    return driven


@pytest.fixture
def printed() -> Iterator[Callable[[str], dict[str, Any]]]:
    """What a `sora-spec plan` line prints with --json: the real command, in this process."""
    from sora_spec.cli.lazy import load_verb

    def run(line: str) -> dict[str, Any]:
        program, verb, *arguments = shlex.split(line)
        assert (program, verb) == ("sora-spec", "plan")
        stream = io.StringIO()  # not pytest's capture: an app that runs takes what is printed for itself
        with redirect_stdout(stream):
            code = load_verb("plan").main([*arguments, "--json"], standalone_mode=False)
        assert code in (0, 1, None)
        return json.loads(stream.getvalue())

    yield run
    gc.enable()  # the command is made for short processes
