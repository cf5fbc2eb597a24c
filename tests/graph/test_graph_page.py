"""docs/graph.md: every command of it runs, what it says they print they print, and its Python runs."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from sora_spec import output
from sora_spec.cli import main
from sora_spec.graph import COMPONENTS

PAGE = (Path(__file__).parents[2] / "docs" / "graph.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.S | re.M)
COMMANDS = [line for kind, text in BLOCKS if not kind for line in text.splitlines() if line.startswith("sora-spec ")]
EXCERPTS = [text for kind, text in BLOCKS if kind == "console"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def call(command: str) -> str:
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(sys, "argv", shlex.split(command, comments=True))
        monkeypatch.setattr(output.VERBOSITY, "level", 0)
        with pytest.raises(SystemExit) as stop:
            main.run()
        found = capsys.readouterr()
        assert (stop.value.code, found.err) == (0, "")
        return found.out

    return call


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, run) -> None:
    assert run(command)


@pytest.mark.parametrize("excerpt", EXCERPTS)
def test_excerpts_are_what_is_printed(excerpt: str, run) -> None:
    command, *lines = excerpt.splitlines()
    printed = run(command.removeprefix("$ "))
    assert "\n".join(lines) in printed


def test_the_python_of_the_page_runs() -> None:
    (code,) = [text for kind, text in BLOCKS if kind == "python"]
    exec(compile(code, "docs/graph.md", "exec"), {})


def test_the_page_names_every_component() -> None:
    for component in COMPONENTS:
        assert f"`{component}`" in PAGE
    assert len(COMMANDS) > 5
    assert len(EXCERPTS) == 2
