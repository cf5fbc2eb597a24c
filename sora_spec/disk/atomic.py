"""Files and folders that appear whole or not at all, and what a killed process left of them.

A temporary name carries the process and the machine that use it: `.NAME.PID@HOST.tmp`. The next call that writes the
same name removes those whose process is gone.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

_OWNED = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)(?:@(?P<host>[^.@/]+))?\.(?P<kind>tmp|old)(?:\.[a-z0-9]+)?$")
_FOREIGN_SECONDS = 7 * 86400
"""Age after which another machine's leftovers count as such: whether their process lives cannot be seen from here."""


def this_host() -> str:
    """This machine's name, with nothing in it that a file name cannot hold."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname()) or "host"


def alive(process: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _temporary(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}@{this_host()}.{kind}")


def write_atomically(path: Path, content: str | bytes, replace: bool = True) -> None:
    """Put `content` at `path` in one step: a reader sees the old file or the new one, also after a crash.

    A device or a pipe is written as it is: put in its place, a file would be the end of `/dev/null`.

    Raises FileExistsError when the file is there and `replace` is off.
    """
    raw = content.encode() if isinstance(content, str) else content
    if replace and _is_device(path):
        with path.open("wb") as device:
            device.write(raw)
        return
    with replacing_file(path, replace) as temporary, temporary.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


@contextmanager
def replacing_file(target: Path, replace: bool = True) -> Generator[Path]:
    """A temporary name beside `target` to write to, which takes its place when the body succeeds.

    Raises FileExistsError when the file is there and `replace` is off.
    """
    temporary = _temporary(target, "tmp")
    try:
        with _named_after(target, temporary):
            yield temporary
            if replace:
                temporary.replace(target)
            else:
                _place_new(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def _named_after(target: Path, temporary: Path) -> Generator[None]:
    """Let what the system refuses name the file that was meant: nobody knows the temporary one."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str) and str(temporary) in error.filename:
            # A new one, since PyAV's own errors let no name be set.
            raise OSError(error.errno, error.strerror, error.filename.replace(str(temporary), str(target))) from error
        raise


def _is_device(path: Path) -> bool:
    """Whether a name leads to something that is neither a file nor a folder."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _place_new(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # fails where the name is taken, at whatever moment it was
    except FileExistsError:
        raise
    except OSError:  # a disk without links
        if path.exists() or path.is_symlink():
            raise FileExistsError(17, "File exists", str(path)) from None
        temporary.replace(path)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(path: Path) -> None:
    for file in path.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    _sync_folder(path)


@contextmanager
def replacing_folder(target: Path) -> Generator[Path]:
    """Fill a temporary folder beside `target` and rename it into place when the body succeeds.

    An existing `target` is moved aside first and deleted last, so that a crash never leaves neither. What killed
    processes left of earlier attempts is put right before.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent, target.name)
    temporary, retired = _temporary(target, "tmp"), _temporary(target, "old")
    try:
        with _named_after(target, temporary):
            temporary.mkdir()
            yield temporary
            _sync_tree(temporary)
            if target.exists():
                target.rename(retired)
            temporary.rename(target)
        _sync_folder(target.parent)
        shutil.rmtree(retired, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Delete a folder; to readers it is gone at once."""
    temporary = _temporary(path, "tmp")
    path.rename(temporary)
    shutil.rmtree(temporary)


def is_temporary(path: Path) -> bool:
    """Whether a name is one that is given only while something is written."""
    return _OWNED.match(path.name) is not None


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what ended processes left half-written in `folder`: of `name`, or of every name.

    A folder that was moved aside for a new one which never came is put back.
    """
    try:
        found = [(path, match) for path in folder.iterdir() if (match := _OWNED.match(path.name))]
    except OSError:
        return
    for path, match in sorted(found):
        if (name is not None and match["name"] != name) or not _is_left(path, match):
            continue
        target = folder / match["name"]
        with suppress(OSError):
            if match["kind"] == "old" and not target.exists():
                path.rename(target)
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _is_left(path: Path, match: re.Match[str]) -> bool:
    """Whether nobody uses a temporary name any more. One of this very process is of an earlier life of its number."""
    process = int(match["process"])
    if match["host"] in (None, this_host()):
        return process == os.getpid() or not alive(process)
    try:
        return time.time() - path.stat().st_mtime > _FOREIGN_SECONDS
    except OSError:
        return False
