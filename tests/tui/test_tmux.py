"""The real program in a real terminal: tmux on a socket of its own, with one TERM after the other."""

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

RECORDED = Path(__file__).with_name("recorded") / "digits"
PATIENCE = 120.0


class Terminal:
    """One tmux session that runs one command."""

    def __init__(self, home: Path, size: tuple[int, int]) -> None:
        assert shutil.which("tmux"), "the tests of the terminal interface need tmux: apt-get install tmux"
        self.home, self.size = home, size
        self.socket = str(home / "tmux.sock")

    def tmux(self, *arguments: str) -> str:
        """A command of tmux; what it prints."""
        command = ["tmux", "-f", "/dev/null", "-S", self.socket, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def start(self, command: str, **variables: str) -> None:
        """Run a command in a new session; its exit code goes to `exit-code`."""
        width, height = map(str, self.size)
        given = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        line = f"cd {shlex.quote(str(self.home))}; env -u COLUMNS -u LINES {given} {command}; echo $? > exit-code"
        term = variables.get("TERM", "screen-256color")
        self.tmux("new-session", "-d", "-x", width, "-y", height, "-s", "t", line, ";", "set", "-g", "status", "off")
        self.tmux("set", "-g", "default-terminal", term)

    def keys(self, *keys: str) -> None:
        """Press keys by tmux's names."""
        self.tmux("send-keys", "-t", "t", *keys)

    def text(self, colours: bool = False) -> str:
        """What is on the screen."""
        return self.tmux("capture-pane", "-p", "-t", "t", *(["-e"] if colours else []))

    def wait_for(self, *words: str) -> str:
        """The screen once all words are on it."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            text = self.text()
            if all(word in text for word in words):
                return text
            time.sleep(0.1)
        raise AssertionError(f"no {words} on:\n{self.text()}")

    def exit_code(self) -> int:
        """That of the command, once it has ended."""
        path = self.home / "exit-code"
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if path.exists() and path.read_text().strip():
                return int(path.read_text())
            time.sleep(0.05)
        raise AssertionError(f"it has not ended:\n{self.text()}")


@pytest.fixture
def terminal(home: Path) -> Iterator[Terminal]:
    run = shutil.copytree(RECORDED, home / "runs" / "digits")
    (run / "denoiser" / "metrics.jsonl").touch()  # copied files are all of one moment
    found = Terminal(home, (80, 24))
    yield found
    found.tmux("kill-server")


def program(*arguments: str) -> str:
    return shlex.join([sys.executable, "-m", "sora_spec", "tui", *arguments])


def environment(home: Path, term: str, **more: str) -> dict[str, str]:
    return {"TERM": term, "XDG_STATE_HOME": str(home / "state"), "LANG": "C.UTF-8", "LC_ALL": "", **more}


def past_welcome(terminal: Terminal) -> None:
    """The first start explains itself; a key closes that."""
    terminal.wait_for("enter begins")
    terminal.keys("Escape")
    terminal.wait_for("What if")


def test_from_start_to_quit_at_two_sizes(terminal: Terminal) -> None:
    """Every screen, a question, a resize and the way out; numbers are those of the command line."""
    terminal.start(program("video.yaml", "image.yaml"), **environment(terminal.home, "screen-256color"))
    past_welcome(terminal)
    command = [sys.executable, "-m", "sora_spec", "plan", "video.yaml", "--check"]
    headline = subprocess.run(command, cwd=terminal.home, capture_output=True, text=True, check=False).stdout
    needed = headline.split(": ")[1].split(" GiB")[0]
    terminal.wait_for("video", f"{needed} of")
    terminal.keys("2")
    terminal.wait_for("Compared", "A video", "B image", "differences only")
    terminal.keys("3")
    text = terminal.wait_for("train.batch=16,32,64", "this row", "of 90 fit")
    assert "does not fit" in text
    terminal.tmux("resize-window", "-t", "t", "-x", "120", "-y", "32")
    text = terminal.wait_for("GPU-hours")
    lines = text.rstrip("\n").split("\n")
    assert len(lines) == 32
    assert all(len(line) <= 120 for line in lines)
    terminal.keys("b")
    terminal.wait_for("Budget")
    terminal.keys("3", "0", "Space", "d", "a", "y", "s", "Enter")
    terminal.wait_for("best:")
    terminal.keys("5")
    terminal.wait_for("tiny-sit-digits", "step 80 of 80", "samples of step 80", "predicted and real")
    assert "▀" in terminal.text()
    terminal.keys("4")
    terminal.wait_for("A latent video transformer")
    terminal.keys("Escape")
    terminal.keys("F1")
    terminal.wait_for("Keys and words")
    terminal.keys("F1")
    terminal.tmux("resize-window", "-t", "t", "-x", "80", "-y", "24")
    terminal.keys("1")
    terminal.wait_for("What if")
    terminal.keys("q")
    assert terminal.exit_code() == 0


@pytest.mark.parametrize(
    ("term", "more", "unicode"),
    [
        ("screen-256color", {}, True),
        ("xterm", {}, True),
        ("linux", {}, False),
        ("xterm-256color", {"LC_ALL": "C"}, False),
        ("screen-256color", {"NO_COLOR": "1"}, True),
    ],
)
def test_every_terminal_shows_what_it_can(terminal: Terminal, term: str, more: dict[str, str], unicode: bool) -> None:
    terminal.start(program("video.yaml"), **environment(terminal.home, term, **more))
    past_welcome(terminal)
    terminal.keys("5")
    pictured = unicode and "NO_COLOR" not in more
    text = terminal.wait_for("finished", "step 80 of 80", *(["▀"] if pictured else []))
    assert text.isascii() is not unicode
    assert ("▀" in text) is pictured
    terminal.keys("3")
    text = terminal.wait_for("of 90 fit")
    assert text.isascii() is not unicode
    assert ("✘ does not fit" if unicode else "x does not fit") in text
    if "NO_COLOR" in more:
        assert not coloured(terminal.text(colours=True))
    terminal.keys("2")
    terminal.wait_for("Compared", "A video")
    terminal.keys("q")
    assert terminal.exit_code() == 0


def coloured(text: str) -> bool:
    """Whether any colour is no shade of grey."""
    import re

    for codes in re.findall(r"\x1b\[([\d;]+)m", text):
        numbers = [int(code) for code in codes.split(";") if code]
        for start in (38, 48):
            if start in numbers and numbers[numbers.index(start) + 1 : numbers.index(start) + 2] == [2]:
                red, green, blue = numbers[numbers.index(start) + 2 : numbers.index(start) + 5]
                if max(red, green, blue) - min(red, green, blue) > 2:
                    return True
        if any(30 < number < 37 or 90 < number < 97 for number in numbers if 38 not in numbers and 48 not in numbers):
            return True
    return False


@pytest.mark.slow
def test_a_key_is_answered_while_a_long_sweep_runs(terminal: Terminal) -> None:
    terminal.start(program("video.yaml", "--screen", "sweep"), **environment(terminal.home, "screen-256color"))
    terminal.wait_for("Sweep")
    time.sleep(0.5)
    terminal.keys("Escape")
    terminal.wait_for("of 90 fit")
    for key in ("e", "C-a", "C-k"):  # Textual runs a binding after the letters that follow it at once
        terminal.keys(key)
        time.sleep(0.5)
    terminal.keys("-l", "train.steps=" + ",".join(map(str, range(1000, 1150))))
    terminal.keys("Enter")
    terminal.wait_for("planned; escape stops")
    begun = time.monotonic()
    terminal.keys("1")
    terminal.wait_for("What if")
    assert time.monotonic() - begun < PATIENCE
    terminal.keys("3")
    terminal.wait_for("of 4,500 fit")
    terminal.keys("q")
    assert terminal.exit_code() == 0


def test_ending_the_session_ends_the_program(terminal: Terminal) -> None:
    """As a lost ssh connection does: the terminal goes away, and nothing is left behind."""
    terminal.start(program("video.yaml"), **environment(terminal.home, "screen-256color"))
    terminal.wait_for("Planner")
    shell = int(terminal.tmux("list-panes", "-t", "t", "-F", "#{pane_pid}").strip())
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(shell)], capture_output=True, text=True, check=False)
    pids = [int(pid) for pid in children.stdout.split()]
    assert pids
    terminal.tmux("kill-session", "-t", "t")
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and any(alive(pid) for pid in pids):
        time.sleep(0.1)
    assert not [pid for pid in pids if alive(pid)]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_greeting_comes_once_and_a_plain_locale_gets_ascii(terminal: Terminal, home: Path) -> None:
    state = home / "state" / "sora-spec"
    state.mkdir(parents=True)
    (state / "tui.json").write_text('{"greeted": true}')
    terminal.start(program("video.yaml"), **environment(home, "xterm", LC_ALL="C"))
    assert terminal.wait_for("YES, it fits", "GPU-hours", "fastest").isascii()
    terminal.keys("q")
    assert terminal.exit_code() == 0


def test_a_state_folder_that_cannot_be_written_is_no_reason_to_fail(terminal: Terminal, home: Path) -> None:
    (home / "state").write_text("a file, not a folder")
    terminal.start(program("video.yaml"), **environment(home, "xterm"))
    terminal.wait_for("enter begins")
    terminal.keys("Enter")
    terminal.wait_for("YES, it fits")
    terminal.keys("C-q")
    assert terminal.exit_code() == 0


def test_without_a_terminal_it_says_so() -> None:
    command = [sys.executable, "-m", "sora_spec", "tui", "video.yaml"]
    settings = os.environ | {"LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=settings)
    assert done.returncode == 2
    assert "need a terminal" in done.stderr
    assert "--json" in done.stderr
