"""The real planner in a pseudo-terminal: signals put the terminal right, any byte may be pasted, texts are kept."""

from __future__ import annotations

import asyncio
import html
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

SECONDS = 60.0


class Planner:
    """`sora-spec tui` on a pseudo-terminal, and everything that it wrote."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.leader, self.follower = pty.openpty()
        termios.tcsetwinsize(self.leader, (32, 120))
        self.before = termios.tcgetattr(self.follower)
        self.wrote = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sora_spec", "tui", *arguments],
            stdin=self.follower, stdout=self.follower, stderr=self.follower, cwd=folder, start_new_session=True,
            env=os.environ | {"TERM": "xterm-256color", "HOME": str(folder), "XDG_STATE_HOME": str(folder)},
        )  # fmt: skip
        os.set_blocking(self.leader, False)

    def read(self) -> bool:
        """Take what is there; whether there was anything."""
        try:
            self.wrote += os.read(self.leader, 65536)
        except (BlockingIOError, OSError):
            return False
        return True

    def until(self, words: bytes) -> None:
        """Wait until it has written `words`."""
        end = time.monotonic() + SECONDS
        while words not in self.wrote:
            assert time.monotonic() < end, f"never wrote {words!r}: {self.wrote[-2000:]!r}"
            assert self.process.poll() is None or self.read(), f"ended: {self.wrote[-2000:]!r}"
            if not self.read():
                time.sleep(0.02)

    def quiet(self, seconds: float = 0.4) -> None:
        """Wait until it writes nothing for a while."""
        last = time.monotonic()
        while time.monotonic() < last + seconds:
            if self.read():
                last = time.monotonic()
            time.sleep(0.02)

    def type(self, what: bytes) -> None:
        """Send keys or a paste."""
        os.write(self.leader, what)
        self.quiet()

    def ended(self) -> int:
        """Exit code, once it has ended."""
        end = time.monotonic() + SECONDS
        while self.process.poll() is None and time.monotonic() < end:
            self.read()
            time.sleep(0.02)
        while self.read():
            pass
        if self.process.poll() is None:
            self.process.kill()
            raise AssertionError(f"does not end: {self.wrote[-2000:]!r}")
        return self.process.wait()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow)]
)
def test_a_signal_puts_the_terminal_right_and_a_paste_of_any_byte_is_kept(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    spec = tmp_path / "small.yaml"
    text = Path(__file__).parents[2].joinpath("specs", "dit.yaml").read_text()
    spec.write_text(text)
    planner = Planner(tmp_path, str(spec), "--screen", "spec")
    planner.until(b"\x1b[?1049h")
    planner.quiet()
    planner.type(b"\x1b")  # away with the greeting
    planner.type(b"\x1b[200~# pasted \xff here\x1b[201~")
    planner.type(b"\t")
    planner.type(b"\x1b[200~# pasted \xff here\x1b[201~")
    assert planner.process.poll() is None, planner.wrote[-2000:]
    os.kill(planner.process.pid, number)
    assert planner.ended() == code
    end = planner.wrote[planner.wrote.rindex(b"\x1b[?1049l") :]
    assert b"\x1b[?25h" in end
    assert b"\x1b[?2004l" in planner.wrote
    assert b"Traceback" not in planner.wrote
    assert termios.tcgetattr(planner.follower) == planner.before
    assert spec.read_text() == text
    assert "pasted \ufffd here" in (tmp_path / "small.unsaved.yaml").read_text()


def test_names_and_texts_are_neither_markup_nor_orders_to_the_terminal(tmp_path: Path) -> None:
    text = Path(__file__).parents[2].joinpath("specs", "tiny-dit.yaml").read_text()
    name = "[red]x\x1b]52;c;aa\x07\u202eb"
    (tmp_path / f"{name}.yaml").write_text(text.replace("kind: ddpm", 'kind: "[bold]k\\e[31m"'))
    (tmp_path / "runs" / name / "denoiser").mkdir(parents=True)
    (tmp_path / "runs" / name / "spec.yaml").write_text(text.replace("name: tiny-dit", "name: [red]"))
    from sora_spec.plan.job import Question
    from sora_spec.tui.app import SoraSpecApp
    from sora_spec.tui.headless import picture
    from sora_spec.tui.session import open_session

    for screen, shown in (("spec", "`[bold]k"), ("runs", r"[red]x\x1b]52;c;aa\x07\u202eb")):
        session = open_session([str(tmp_path / f"{name}.yaml")], Question())
        app = SoraSpecApp(session, screen=screen, run_folders=(tmp_path / "runs",))
        drawn = asyncio.run(picture(app, (200, 50)))
        assert not set(drawn) & {"\x1b", "\x07", "\u202e"}
        words = html.unescape(re.sub("<[^>]+>", "", drawn)).replace("\xa0", " ")
        assert shown in words
        assert r"[red]x\x1b]52;c;aa\x07\u202eb" in words
