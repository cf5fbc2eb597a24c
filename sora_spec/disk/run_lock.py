"""One training at a time in a run folder: a lock that ends with the process that holds it.

The lock is the kernel's (`flock`) on `RUN/train.lock`, so that no ended process can hold it. The file says who holds
it: process, machine and time as JSON. It is emptied when training ends; a file that still names a process which is
gone tells that the process was killed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sora_spec import output
from sora_spec.disk.atomic import alive, this_host
from sora_spec.errors import UserError
from sora_spec.os_errors import told

NAME = "train.lock"
_PATIENCE_SECONDS = 1.0
"""How long a lock is asked for again: someone who only looks at it holds it for an instant."""
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@dataclass(frozen=True)
class Holder:
    """Who trains in a run folder."""

    process: int
    host: str
    since: str
    """Local time, as `2026-01-31 12:00:00`."""

    def __str__(self) -> str:
        """As a report names it."""
        return f"process {self.process} on {self.host} (since {self.since})"


@contextmanager
def locked(run: Path) -> Generator[None]:
    """Hold the lock of a run folder, which must exist, while the body runs.

    Raises UserError that names the holder when another process trains there, or when the folder cannot be written.
    """
    path = run / NAME
    with told(f"{run} cannot be locked for training; nothing was changed"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _take(descriptor, run)
        own = Holder(os.getpid(), this_host(), time.strftime("%Y-%m-%d %H:%M:%S"))
        with told(f"{path} cannot be written; nothing was changed"):
            _write(descriptor, json.dumps(asdict(own)) + "\n")
        try:
            yield
        finally:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, run: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno in _NO_LOCKS:
                _take_by_name(run)
                return
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
                raise
        if time.monotonic() > deadline:
            raise _taken(run)
        time.sleep(0.05)


def _take_by_name(run: Path) -> None:
    """On a disk without locks, the holder's own word is all there is."""
    holder = named_holder(run)
    if holder is not None and (holder.host != this_host() or alive(holder.process)):
        raise _taken(run)
    output.warn(f"{run} lies on a disk without locks: start no second training there")


def _taken(run: Path) -> UserError:
    holder = named_holder(run) or "another process"
    return UserError(
        f"{run} is being trained by {holder}; nothing was changed",
        "wait for it or stop it (kill PID: it writes a checkpoint first); or train into another folder with --run",
    )


def _write(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)
    os.fsync(descriptor)


def named_holder(run: Path) -> Holder | None:
    """Who is written down as the holder, alive or not; None where nobody is."""
    try:
        values = json.loads((run / NAME).read_bytes())
        return Holder(int(values["process"]), str(values["host"]), str(values["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def ended_without_word(run: Path) -> str | None:
    """How training came to its end where nobody trains any more; None while somebody does, or may on another machine.

    Folders of versions without a lock say nothing.
    """
    gone = killed_holder(run)
    if gone is not None:
        return f"process {gone.process} was killed"
    try:
        return "training ended" if (run / NAME).stat().st_size == 0 else None
    except OSError:
        return None


def killed_holder(run: Path) -> Holder | None:
    """The process of this machine that trained here and ended without a word; None where there is none."""
    holder = named_holder(run)
    if holder is None or holder.host != this_host():
        return None
    try:
        descriptor = os.open(run / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return holder if error.errno in _NO_LOCKS and not alive(holder.process) else None
    finally:
        os.close(descriptor)
    return holder
