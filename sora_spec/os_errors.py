"""What the machine refuses, in a sentence: no space, no permission, no memory, a folder where a file should be.

`refusal` is the one place that turns such an exception into a `UserError`. The command line asks it for whatever ends a
verb; code that knows what it was doing asks earlier, with `doing` or within `told`, so that the sentence says so.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Generator
from contextlib import contextmanager

from sora_spec.errors import UserError

# errno → (sentence with {file}, sentence where no file is known, hint with {file} and {folder}).
_SENTENCES: dict[int, tuple[str, str, str]] = {
    errno.ENOSPC: (
        "no space is left on the disk that holds {file}",
        "no space is left on the disk",
        "free some space there (`df -h {folder}` shows it), then run the same command again",
    ),
    errno.EDQUOT: (
        "your disk quota is used up where {file} lies",
        "your disk quota is used up",
        "free some space there, then run the same command again",
    ),
    errno.EFBIG: (
        "{file} would be larger than the disk or `ulimit -f` allows",
        "a file would be larger than the disk or `ulimit -f` allows",
        "raise `ulimit -f`, or write to another disk",
    ),
    errno.EROFS: (
        "{file} lies on a disk that can only be read",
        "the disk can only be read",
        "name a folder on another disk",
    ),
    errno.EACCES: (
        "access to {file} is not permitted",
        "access is not permitted",
        "check who may read and write it: `ls -ld {folder} {file}`",
    ),
    errno.EPERM: (
        "access to {file} is not permitted",
        "access is not permitted",
        "check who may read and write it: `ls -ld {folder} {file}`",
    ),
    errno.ENOENT: (
        "there is no file or folder {file}",
        "a file or folder is gone",
        "check the name; was it moved or deleted meanwhile?",
    ),
    errno.EEXIST: ("{file} is there already", "the file is there already", "name another one, or move this one away"),
    errno.ENOTEMPTY: ("the folder {file} is not empty", "the folder is not empty", "name another one, or empty it"),
    errno.EISDIR: ("{file} is a folder, and a file is needed", "a folder stands where a file is needed", "name a file"),
    errno.ENOTDIR: (
        "a part of the path {file} is a file, and a folder is needed",
        "a file stands where a folder is needed",
        "name a folder, or move that file away",
    ),
    errno.ENAMETOOLONG: ("the name {file} is too long for this disk", "a name is too long for this disk", "shorten it"),
    errno.ELOOP: ("the links at {file} lead in a circle", "symbolic links lead in a circle", "name the file itself"),
    errno.EMFILE: (
        "too many files are open at once, at {file}",
        "too many files are open at once",
        "raise the limit: `ulimit -n 65536`",
    ),
    errno.ENFILE: (
        "this machine has too many files open, at {file}",
        "this machine has too many files open",
        "close other programs",
    ),
    errno.EIO: (
        "the disk reports an error at {file}",
        "the disk reports an error",
        "look at the system's log (`dmesg`); copy what can still be read to another disk",
    ),
    errno.ESTALE: (
        "{file} is gone from the network disk",
        "a file is gone from the network disk",
        "is the disk still mounted?",
    ),
    errno.EBUSY: ("{file} is in use", "the file is in use", "wait until the other program has ended"),
    errno.ETXTBSY: ("{file} is in use", "the file is in use", "wait until the other program has ended"),
    errno.ENXIO: ("{file} is no file that can be opened", "a device does not answer", "name an ordinary file"),
    errno.ENODEV: ("{file} is no file that can be opened", "a device does not answer", "name an ordinary file"),
    errno.EADDRINUSE: (
        "the network address {file} is in use",
        "the network address is in use",
        "choose another port, such as MASTER_PORT=29501",
    ),
    errno.ECONNREFUSED: (
        "nobody answers at {file}",
        "nobody answers at the network address",
        "are all ranks started, with the same MASTER_ADDR and MASTER_PORT?",
    ),
}
_NO_MEMORY_HINT = "a smaller `train.micro_batch` needs less; `sora-spec plan SPEC` says how much and why"
# What libraries say where Python would raise MemoryError. PyTorch's allocators raise RuntimeError and its child.
_NO_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|out of memory|Cannot allocate memory|failed to allocate|bad_alloc"
)
_DEAD_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ?[\d, ]+\)")


def refusal(error: BaseException, doing: str = "") -> UserError | None:
    """The sentence for what the machine refused, or None if `error` is of another kind.

    `doing` is put before it, such as "the checkpoint of step 40 cannot be written".
    """
    found = _refusal(error)
    if found is None:
        return None
    message, hint = found
    return UserError(f"{doing}: {message}" if doing else message, hint)


@contextmanager
def told(doing: str) -> Generator[None]:
    """Turn what the machine refuses inside the body into a `UserError` that begins with `doing`.

    Raises UserError: the body met a full disk, a missing file, no memory or the like.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, MemoryError, RuntimeError, ValueError) as error:
        refused = refusal(error, doing)
        if refused is None:
            raise
        raise refused from error


def _refusal(error: BaseException) -> tuple[str, str] | None:
    match error:
        case MemoryError():
            return "this machine has no memory left", _NO_MEMORY_HINT
        case RecursionError():
            return (
                "something that was read is nested too deeply",
                "are all files whole, and of the kind they should be?",
            )
        case OSError() if error.errno is not None:
            return _os_sentence(error)
        case UnicodeEncodeError() if "surrogates" in error.reason:
            name = ascii(error.object)[1:-1][:80]
            return f"{name} holds a half character (a lone surrogate), which no file name has", "type the name again"
        case ValueError() if "embedded null" in str(error):
            return "a file name holds a NUL character", "type the name again"
        case RuntimeError() if _DEAD_WORKER.search(str(error)):
            hint = "the system ends processes when memory runs out: `dmesg` says so; fewer `train.workers` need less"
            return "a process that reads the data was ended from outside", hint
        case RuntimeError() if type(error).__name__ == "OutOfMemoryError" or _NO_MEMORY.search(str(error)):
            return f"the device has no memory left{_tried(str(error))}", _NO_MEMORY_HINT
        case _:
            return None


def _os_sentence(error: OSError) -> tuple[str, str]:
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    file = " → ".join(names)
    if error.errno == errno.ENOMEM:
        return "this machine has no memory left", _NO_MEMORY_HINT
    sentence = _SENTENCES.get(error.errno or 0)
    if sentence is None:
        reason = (error.strerror or os.strerror(error.errno or 0)).lower()
        return (f"{file}: {reason}" if file else f"the system refuses: {reason}"), "the system's log may say more"
    with_file, without, hint = sentence
    first = names[0] if names else ""
    folder = os.path.dirname(first) or "."
    if "{file}" in hint and not names:
        hint = "check who may read and write the folder"
    message = with_file.replace("{file}", file) if names else without
    return message, hint.replace("{folder}", folder).replace("{file}", first)


def _tried(text: str) -> str:
    """What an allocator says that it was asked for."""
    found = re.search(r"[Tt]ried to allocate ([\d.,]+ ?(?:[KMGT]i?B|bytes)?)", text)
    return f" for another {found[1].strip()}" if found else ""
