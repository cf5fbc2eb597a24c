"""What the hostile trial is made of: cases with the right answer, and the command line run for them."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_NOT_OURS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters that no report may send to a terminal; a newline and a tab are ours."""


@dataclass(frozen=True)
class Case:
    """One hostile input. `run` gets an empty folder and returns what went wrong, or None if all was as it should be.

    A case states the right answer: an exit code, a sentence about the file at fault, or the values that must come out.
    """

    name: str
    run: Callable[[Path], str | None]


@dataclass(frozen=True)
class Result:
    """What the command line did."""

    code: int
    out: str
    err: str

    def fault(self) -> str | None:
        """What no input may ever cause: a traceback, the word "bug", another exit code, a raw control character."""
        text = self.out + self.err
        if "Traceback (most recent call last)" in text:
            return f"a traceback: {text[-400:]}"
        if "this is a bug" in text:
            return f"called a bug: {text[-400:]}"
        if self.code not in (0, 1, 2, 129, 130, 143):
            return f"exit code {self.code}: {text[-400:]}"
        raw = _NOT_OURS.search(text)
        return f"control character {raw.group()!r} sent raw" if raw else None

    def refused(self, *words: str) -> str | None:
        """None if this ended as a refusal (exit code 1 or 2) that says all `words`; otherwise what is wrong."""
        missing = [word for word in words if word not in self.err]
        if self.fault() is not None or self.code == 0:
            return self.fault() or f"accepted with exit code 0: {self.err[-300:]}"
        return f"does not say {missing}: {self.err[-400:]}" if missing else None

    def accepted(self) -> str | None:
        """None if this ended with exit code 0; otherwise what is wrong."""
        return self.fault() or (f"exit code {self.code}: {self.err[-400:]}" if self.code else None)


def sora_spec_here(*arguments: str, encoding: str = "utf-8") -> Result:
    """Run the command line in this process, on streams of an encoding; for verbs whose start would be most of it."""
    from sora_spec import output
    from sora_spec.cli.main import run

    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2)]
    before, sys.argv, output.VERBOSITY.level = sys.argv, ["sora-spec", *arguments], 0
    code: object = None
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            run()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = before
    out, err = (stream.buffer.getvalue().decode(encoding, "replace") for stream in streams)  # pyright: ignore
    return Result(code if isinstance(code, int) else int(code is not None), out, err)


def sora_spec(
    *arguments: str, cwd: Path, stdin: str = "", timeout: float = 300, environment: dict[str, str] | None = None
) -> Result:
    """Run the real command line in a process of its own."""
    # Bytes that are not UTF-8 come out as surrogates, which `fault` need not know.
    done = subprocess.run(
        [sys.executable, "-m", "sora_spec", *arguments],
        cwd=cwd,
        input=stdin.encode("utf-8", "surrogateescape"),
        capture_output=True,
        timeout=timeout,
        env=os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"} | (environment or {}),
        check=False,
    )
    return Result(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))
