"""The real program in a real terminal: tmux is a requirement of the test suite."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SECONDS = 60.0


class Terminal:
    """A program in a tmux server of its own."""

    def __init__(self, folder: Path) -> None:
        assert shutil.which("tmux"), "the tests of the terminal interface need tmux: apt-get install tmux"
        self.base = ["tmux", "-f", "/dev/null", "-S", str(folder / "tmux")]
        self.folder = folder

    def run(self, *arguments: str) -> str:
        return subprocess.run([*self.base, *arguments], capture_output=True, text=True, check=True).stdout

    def start(self, command: str, columns: int, rows: int, **environment: str) -> None:
        settings = [f"{key}={value}" for key, value in environment.items()]
        shell = shlex.join(["env", "-u", "NO_COLOR", *settings, "sh", "-c", f"{command}; echo left with $?; sleep 60"])
        self.run("new-session", "-d", "-x", str(columns), "-y", str(rows), "-c", str(self.folder), shell)

    def keys(self, *keys: str) -> None:
        self.run("send-keys", *keys)

    def screen(self) -> str:
        return self.run("capture-pane", "-p")

    def until(self, *words: str, gone: str = "") -> str:
        """The screen once it shows all the words, and one no more."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            found = self.screen()
            if all(word in found for word in words) and not (gone and gone in found):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{words} not on the screen:\n{self.screen()}")


@pytest.fixture
def terminal(home: Path) -> Iterator[Terminal]:
    made = Terminal(home)
    yield made
    subprocess.run([*made.base, "kill-server"], check=False, capture_output=True)


def program(*arguments: str) -> str:
    return shlex.join([sys.executable, "-m", "sora_spec", "tui", *arguments])


def test_from_start_to_quit(terminal: Terminal, home: Path) -> None:
    state = {"XDG_STATE_HOME": str(home / "state"), "LC_ALL": "C.UTF-8", "EDITOR": "true"}
    terminal.start(program("video.yaml", "wrong.yaml", "--gpu", "rtx4090"), 100, 30, **state)
    terminal.until("The planner in the terminal", "enter begins")
    terminal.keys("Enter")
    assert "has errors" in terminal.until("YES, it fits", "of 23.6 GiB", "Where it goes")
    terminal.keys("Down", "Down", "Down", "Right")
    terminal.until("◂ 48 ▸")
    terminal.keys("u")
    terminal.until("◂ 32 ▸")
    terminal.keys("c")
    terminal.until("sora-spec plan video.yaml --gpu rtx4090")
    terminal.keys("Escape")
    terminal.until("YES, it fits", gone="copied to the clipboard")
    terminal.keys("4")
    terminal.until("version: 1", "▸ video.yaml", "Problems")
    terminal.keys("Escape")
    terminal.until("▸ Problems")
    terminal.keys("?")
    terminal.until("Keys and words")
    terminal.keys("1")
    terminal.run("resize-window", "-x", "60", "-y", "20")
    terminal.until("YES, it fits", "What if")
    terminal.keys("q")
    assert "left with 0" in terminal.until("left with 0")
    assert (home / "state" / "sora-spec" / "tui.json").exists()


def test_a_dumb_locale_gets_ascii_and_the_greeting_comes_once(terminal: Terminal, home: Path) -> None:
    state = home / "state" / "sora-spec"
    state.mkdir(parents=True)
    (state / "tui.json").write_text('{"greeted": true}')
    terminal.start(program("video.yaml"), 80, 24, XDG_STATE_HOME=str(home / "state"), LC_ALL="C")
    found = terminal.until("YES, it fits", "GPU-hours", "fastest")
    assert found.isascii()
    terminal.keys("q")
    terminal.until("left with 0")


def test_a_state_folder_that_cannot_be_written_is_no_reason_to_fail(terminal: Terminal, home: Path) -> None:
    (home / "state").write_text("a file, not a folder")
    terminal.start(program("video.yaml"), 80, 24, XDG_STATE_HOME=str(home / "state"), LC_ALL="C.UTF-8")
    terminal.until("enter begins")
    terminal.keys("Enter")
    terminal.until("YES, it fits")
    terminal.keys("C-q")
    terminal.until("left with 0")


def test_without_a_terminal_it_says_so() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "sora_spec", "tui", "video.yaml"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    assert found.returncode == 2
    assert "need a terminal" in found.stderr
    assert "--json" in found.stderr
