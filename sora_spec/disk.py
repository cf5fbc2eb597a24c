"""Faults of disks, folders and files as sentences."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sora_spec.errors import UserError

_SAID = {
    errno.ENOSPC: ("the disk is full", "make room there (df -h shows how much), then run the command again"),
    errno.EDQUOT: ("the quota of disk space is used up", "make room there, then run the command again"),
    errno.EFBIG: ("the file grew beyond the largest size allowed", "raise the limit (ulimit -f), or use another disk"),
    errno.EROFS: ("the disk is read-only", "name a folder on a disk that can be written"),
    errno.EACCES: ("there is no right to use it", "check owner and mode with ls -ld, or name another folder"),
    errno.EPERM: ("the system does not allow it", "check owner, mode and attributes, or name another folder"),
    errno.ENOENT: ("it does not exist, or was deleted meanwhile", "check the path; what was deleted must come back"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "check the path"),
    errno.EISDIR: ("it is a folder, and a file is needed", "check the path"),
    errno.EIO: ("the disk answers with an error", "the disk may be failing: copy its files away and look at dmesg"),
    errno.ESTALE: ("the network disk lost the file", "mount it again, then run the command again"),
    errno.EMFILE: ("too many files are open", "raise the limit: ulimit -n 65536"),
    errno.ENFILE: ("too many files are open on this machine", "end other programs, or raise fs.file-max"),
    errno.ENAMETOOLONG: ("the name is too long for this disk", "use a shorter name"),
    errno.ELOOP: ("its links lead in a circle", "check the links with ls -l"),
    errno.ENOMEM: ("the system has no memory left", "end other programs, or take a smaller batch"),
}
_IN_TEXT = re.compile(r"os error (\d+)")


def number_of(error: BaseException) -> int | None:
    """The system's number of an error, also where a library kept it only in its text."""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return number
    found = _IN_TEXT.search(str(error))
    return int(found[1]) if found else None


def disk_error(error: BaseException, path: Path | str | None = None, after: str = "") -> UserError:
    """What to tell the user about a failed use of a disk.

    `path`: what was used, where the error does not know; `after`: what stands because of it, said behind the reason.
    """
    named = getattr(error, "filename", None)
    where = os.fsdecode(named) if isinstance(named, str | bytes) else "" if path is None else str(path)
    number = number_of(error)
    said, hint = _SAID.get(number or 0, (None, None))
    said = said or getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return UserError(": ".join(part for part in (where, said) if part) + (f"; {after}" if after else ""), hint)


@contextmanager
def disk_faults(path: Path | str, after: str = "") -> Generator[None]:
    """Let an OSError of the body end as a sentence about `path`, or about the file that the error itself names.

    Raises UserError in its place. Broken pipes and connections are none of the disk's.
    """
    try:
        yield
    except (ConnectionError, TimeoutError, InterruptedError):
        raise
    except OSError as error:
        raise disk_error(error, path, after) from error
