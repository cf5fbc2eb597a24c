"""How the command line ends: what the machine refuses, signals, streams that are closed, full or of any encoding."""

from __future__ import annotations

import errno
import logging
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sora_spec import output, signals
from sora_spec.cli import main
from sora_spec.disk.atomic import write_atomically
from sora_spec.os_errors import refusal, told

HOSTILE = "a\x1b]52;c;ZWNobw==\x07\x9b31m\u202egpj\u2066\u200b\x7f\ud800b"
SHOWN = r"a\x1b]52;c;ZWNobw==\x07\x9b31m\u202egpj\u2066\u200b\x7f\ud800b"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/a/x"), ("no space", "runs/a/x", "df -h runs/a")),
        (OSError(errno.ENOSPC, "No space left on device"), ("no space is left on the disk", "df -h .")),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a"), ("quota", "a")),
        (OSError(errno.EROFS, "Read-only file system", "/r/a"), ("/r/a", "can only be read")),
        (PermissionError(errno.EACCES, "Permission denied", "/r/a"), ("/r/a is not permitted", "ls -ld /r /r/a")),
        (PermissionError(errno.EPERM, "Operation not permitted"), ("not permitted",)),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.yaml"), ("no file or folder a.yaml",)),
        (FileExistsError(errno.EEXIST, "File exists", "a"), ("a is there already",)),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "runs"), ("runs is a folder", "name a file")),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), ("a/b", "folder is needed")),
        (OSError(errno.ENAMETOOLONG, "File name too long", "n" * 300), ("too long", "shorten")),
        (OSError(errno.EMFILE, "Too many open files", "a"), ("too many files are open", "ulimit -n")),
        (OSError(errno.ELOOP, "Too many levels", "a"), ("circle",)),
        (OSError(errno.EIO, "Input/output error", "a"), ("the disk reports an error at a", "dmesg")),
        (OSError(errno.ENOTEMPTY, "Directory not empty", "a", None, "b"), ("a → b is not empty",)),
        (OSError(errno.EPROTO, "Protocol error", "a"), ("a: protocol error",)),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), ("no memory left", "micro_batch")),
        (MemoryError(), ("no memory left",)),
        (RecursionError("maximum recursion depth exceeded"), ("nested too deeply",)),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
         ("no memory left for another 9 bytes",)),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2.00 GiB."),
         ("no memory left for another 2.00 GiB",)),
        (RuntimeError("DataLoader worker (pid 41) is killed by signal: Killed."), ("ended from outside", "dmesg")),
        (RuntimeError("DataLoader worker (pid(s) 41, 42) exited unexpectedly"), ("ended from outside",)),
        (UnicodeEncodeError("utf-8", "a\ud800", 1, 2, "surrogates not allowed"), (r"a\ud800", "half character")),
        (ValueError("embedded null byte"), ("NUL",)),
    ],
)  # fmt: skip
def test_what_the_machine_refuses_is_a_sentence(error: BaseException, words: tuple[str, ...]) -> None:
    found = refusal(error)
    assert found is not None
    said = f"{found.message} / {found.hint}"
    assert [word for word in words if word not in said] == []
    assert "{" not in said
    assert found.exit_code == 2


def test_what_is_no_refusal_stays_what_it_is() -> None:
    assert refusal(RuntimeError("shapes do not match")) is None
    assert refusal(ValueError("no number")) is None
    with pytest.raises(ValueError, match="no number"), told("reading"):
        raise ValueError("no number")
    with pytest.raises(Exception, match=r"^run\.json cannot be written: no space"), told("run.json cannot be written"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_the_sink_escapes_what_is_not_ours() -> None:
    assert output.harmless(HOSTILE) == SHOWN
    assert output.harmless(output.painted(HOSTILE, "31;1")) == f"\x1b[31;1m{SHOWN}\x1b[0m"
    assert output.harmless("\x1b[31mred") == r"\x1b[31mred"
    kept = "two\nlines\tof GiB² → 8 × A100 · 漢字 👨‍👩‍👧 می‌خواهم"
    assert output.harmless(kept) == kept
    assert output.harmless("x\u200dy") == r"x\u200dy"
    assert output.harmless("ok\n ::error::no\n##[group]x\n::: a.yaml") == "ok\n \\::error::no\n\\##[group]x\n::: a.yaml"
    assert output.harmless("::error::ours", command=True) == "::error::ours"


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, ""), (signal.SIGTERM, 143, "error: stopped by SIGTERM\n"), (signal.SIGHUP, 129, "SIGHUP")],
)
@pytest.mark.parametrize("swallowed", [False, True])
def test_a_signal_is_an_exit_code_even_where_an_import_made_an_error_of_it(
    number: signal.Signals, code: int, words: str, swallowed: bool,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fail() -> list[str]:
        try:
            signal.raise_signal(number)
            time.sleep(5)
        except KeyboardInterrupt:
            if swallowed:
                raise ImportError("numpy._core.multiarray failed to import") from None
            raise
        return []

    before = [signal.getsignal(each) for each in signals.ENDING]
    monkeypatch.setattr("sora_spec.cli.ls.packaged_names", fail)
    monkeypatch.setattr(sys, "argv", ["sora-spec", "ls"])
    with pytest.raises(SystemExit) as stop:
        main.run()
    assert stop.value.code == code
    said = capsys.readouterr().err
    assert words in said
    assert "bug" not in said
    assert [signal.getsignal(each) for each in signals.ENDING] == before


def in_shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell line in which `sora-spec` is this checkout's."""
    line = f'sora-spec() {{ "{sys.executable}" -m sora_spec "$@"; }}; {command}'
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, env=os.environ | environment, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("ls > /dev/full", 2, b"error: standard output cannot be written: no space is left"),
        ("ls >&-", 2, b"error: standard output is closed"),
        ("--help > /dev/full", 2, b"no space is left"),
        *((f"{verb} >&-", 2, b"error: standard output is closed") for verb in ("--help", "", "plan -h", "data")),
        ("data digits --help >&-", 2, b"error: standard output is closed"),
        ("ls 2> /dev/full", 0, b""),
        ("validate dit 2>&-", 0, b""),
        ("validate no-such.yaml >&- 2>&-", 2, b""),
    ],
)
def test_streams_that_cannot_be_written(command: str, code: int, words: bytes) -> None:
    done = in_shell(f"sora-spec {command}")
    assert done.returncode == code
    assert words in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"bug" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_an_answer_is_printed_in_every_encoding(encoding: str) -> None:
    done = in_shell("sora-spec show dit", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    sign = "x" if encoding == "ascii" else "×"
    assert f"# tokens       256 a clip = 1 {sign} 16 {sign} 16" in done.stdout.decode(encoding)


def test_a_file_is_never_opened_as_standard_output(tmp_path: Path) -> None:
    target = tmp_path / "schema.json"
    done = in_shell(f"sora-spec schema --output '{target}' >&- 2>&-")
    assert done.returncode == 0
    assert target.read_text().startswith("{")
    assert target.read_text().rstrip().endswith("}")


def test_what_libraries_say_is_escaped_and_what_is_ours_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def say() -> list[str]:
        logging.StreamHandler().emit(logging.LogRecord("a library", 30, "a.py", 1, HOSTILE, None, None))
        print(HOSTILE, file=sys.stderr)
        output.note(output.painted("ours", "32"))
        return []

    monkeypatch.setattr("sora_spec.cli.ls.packaged_names", say)
    monkeypatch.setattr(sys, "argv", ["sora-spec", "ls", "-v"])
    with pytest.raises(SystemExit):
        main.run()
    said = capsys.readouterr().err
    assert said.count(SHOWN) >= 2
    assert "\x1b[32mours\x1b[0m" in said
    assert "\x1b]" not in said
    assert "\u202e" not in said


def test_a_bar_draws_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(output.VERBOSITY, "level", 0)
        with output.guarded_stderr(), output.progress(f"[red]{HOSTILE}[/red]", 2) as advance:
            advance(2)
        terminal.write("the end")
        terminal.flush()
        raw = b""
        while b"the end" not in raw:
            raw += os.read(leader, 65536)
    os.close(leader)
    drawn = raw.decode("utf-8", "replace")
    assert "[red]a\\x1b]52" in drawn.replace("\n", "").replace("\r", "")
    assert "\x1b]52" not in drawn


def test_a_pipe_is_written_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_atomically(pipe, "version: 1\n")
    reader.join(10)
    assert read == ["version: 1\n"]
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
