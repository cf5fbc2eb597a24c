"""Bytes of a spec to text, refusing what is no text and never reading more than a spec can hold."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from sora_spec.language.diagnostics import Diagnostic, nearest
from sora_spec.language.span import Span, Text
from sora_spec.language.yaml_tree import UNPRINTABLE, RefusedError

MAX_BYTES = 128 * 1024
"""The largest reference spec has under 3 KiB."""
_PIPE_SECONDS = 2.0

_BYTE_ORDER_MARKS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"), (b"\x00\x00\xfe\xff", "UTF-32"))


def read_text(path: str) -> Text:
    """Text of a file, or of standard input for `-`.

    Raises RefusedError: it is missing, unreadable, too large or no text.
    """
    if path == "-":
        return decode(_read_stdin(), "<stdin>", "stdin")
    return decode(_read_file(path), path, "file")


def decode(raw: bytes, name: str, origin: str = "file") -> Text:
    """UTF-8 bytes as text, without a byte-order mark.

    Raises RefusedError: the bytes are too many, of another encoding, or hold characters that no text has.
    """
    if len(raw) > MAX_BYTES:
        message = f"{name} holds more than {MAX_BYTES // 1024} KiB, the most that a spec may have"
        raise RefusedError(Diagnostic("E102", message, file=name, help="Name the spec itself, not data or weights."))
    for mark, encoding in _BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            message = f"{name} is encoded as {encoding}; specs are UTF-8"
            help = f"Convert it: `iconv -f {encoding} -t UTF-8 {name}`."
            raise RefusedError(Diagnostic("E103", message, file=name, help=help))
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedError(_undecodable(raw, error.start, name)) from error
    text = Text(name, content, "stdin" if origin == "stdin" else "file")
    wrong = UNPRINTABLE.search(content)
    if wrong is None:
        return text
    what = "a NUL byte" if wrong.group() == "\0" else f"the control character U+{ord(wrong.group()):04X}"
    message = f"{name} holds {what}, so it is no text file"
    span = Span(text, wrong.start(), wrong.end())
    raise RefusedError(
        Diagnostic("E103", message, span, help="Name a YAML file; remove the character if it slipped in.")
    )


def _undecodable(raw: bytes, start: int, name: str) -> Diagnostic:
    """Point at the bad byte in a text that shows it as a replacement character."""
    content = raw.decode("utf-8", errors="replace").removeprefix("\ufeff")
    offset = len(raw[:start].decode("utf-8", errors="replace").removeprefix("\ufeff"))
    if UNPRINTABLE.search(content[: offset + 64]):
        message = f"{name} is no text: byte {start + 1} is 0x{raw[start]:02X}"
        return Diagnostic("E103", message, file=name, help="Name a YAML file.")
    message = f"{name} is not UTF-8: byte {start + 1} is 0x{raw[start]:02X}"
    span = Span(Text(name, content), offset, offset + 1)
    return Diagnostic("E103", message, span, "not UTF-8", help=f"Convert it: `iconv -f LATIN1 -t UTF-8 {name}`.")


def _read_stdin() -> bytes:
    if sys.stdin is None or sys.stdin.closed:  # pyright: ignore[reportUnnecessaryComparison] - None under pythonw
        raise RefusedError(Diagnostic("E101", "standard input is closed", file="<stdin>", help="Pipe a spec into it."))
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def _read_file(path: str) -> bytes:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise RefusedError(_unreadable(path, f"{path} is a folder", _specs_inside(path)))
        if stat.S_ISFIFO(mode):
            return _read_pipe(path)
        if not stat.S_ISREG(mode):
            raise RefusedError(_unreadable(path, f"{path} is a device, not a file", "Name a YAML file."))
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise RefusedError(_unreadable(path, f"no file {path}", _similar(path))) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        help = "Check the permissions: `ls -l`." if isinstance(error, PermissionError) else "Name a YAML file."
        raise RefusedError(_unreadable(path, f"{path} cannot be read: {reason}", help)) from error


def _read_pipe(path: str) -> bytes:
    """What a pipe holds, without hanging on one that nobody writes to."""
    import select
    import time

    chunks, size, deadline = list[bytes](), 0, time.monotonic() + _PIPE_SECONDS
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while size <= MAX_BYTES:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise RefusedError(
                    _unreadable(path, f"{path} is a pipe that brings nothing", "Name a YAML file, or `-`.")
                )
            chunk = os.read(descriptor, 65_536)
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
    finally:
        os.close(descriptor)
    return b"".join(chunks)


def _unreadable(path: str, message: str, help: str) -> Diagnostic:
    return Diagnostic("E101", message, file=path, help=help)


def _specs_inside(path: str) -> str:
    found = sorted(entry.name for entry in Path(path).glob("*.y*ml"))[:3]
    return f"Name a file in it, for example {Path(path) / found[0]}." if found else "Name a YAML file."


def _similar(path: str) -> str:
    from sora_spec.language.packaged import packaged_names

    folder = Path(path).parent
    try:
        files = {entry.stem: entry for entry in folder.iterdir() if entry.suffix in (".yaml", ".yml")}
    except OSError:
        files = {}
    match = nearest(Path(path).stem, files)
    if match:
        return f"Did you mean {files[match]}?"
    match = nearest(Path(path).stem, packaged_names())
    if match:
        return f"Did you mean the packaged spec `{match}`? `sora-spec ls` lists them all."
    return "`sora-spec ls` lists the packaged specs; `sora-spec init` writes one to start from."
