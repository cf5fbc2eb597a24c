"""Signals as a way to end: Ctrl-C, SIGTERM and SIGHUP unwind what is running and become an exit code.

The first one raises `KeyboardInterrupt` wherever the program is, so that temporary folders go and terminals are put
right. Libraries turn that exception into others when it meets them in the middle of an import, so the signal's number
is kept: whoever sees an error asks `received` first. `train` has its own way, which ends with a checkpoint.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What asks a program to end."""


class EndedError(KeyboardInterrupt):
    """A signal asked to end.

    A class of its own: Python notes a plain KeyboardInterrupt that leaves an `exec`, as when a dataclass is made, and
    ends the process by SIGINT at the very end, whatever the exit code was to be.
    """


class _Received:
    number: int | None = None
    again: threading.Timer | None = None
    """Raises once more what was lost."""


def received() -> int | None:
    """Number of the signal that asked to end, or None."""
    return _Received.number


def note_received(number: int) -> None:
    """Remember a signal that was taken in another way than by `handled`."""
    _Received.number = number


def exit_code() -> int:
    """128 + the signal's number, as shells count: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + int(_Received.number or signal.SIGINT)


def name_of(number: int) -> str:
    """`SIGTERM` for 15."""
    return signal.Signals(number).name


def ending_signals() -> list[signal.Signals]:
    """Those that are handled: under `nohup` SIGHUP is ignored, and stays so."""
    return [number for number in ENDING if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN]


def stop_listening() -> None:
    """Take no more of them, once the program is ending."""
    if threading.current_thread() is threading.main_thread():
        for number in ending_signals():
            signal.signal(number, signal.SIG_IGN)
    if _Received.again is not None:
        _Received.again.cancel()


def _interrupt(number: int, frame: FrameType | None) -> None:
    _Received.number = number
    raise EndedError


@contextmanager
def handled() -> Generator[None]:
    """While the body runs, the ending signals raise `KeyboardInterrupt` and are remembered."""
    _Received.number = None
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers nowhere else
        yield
        return
    before = {number: signal.signal(number, _interrupt) for number in ending_signals()}
    hook = sys.unraisablehook
    sys.unraisablehook = _again_if_lost(hook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        stop_listening()
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def _again_if_lost(hook: Any) -> Any:
    """An interrupt that meets a destructor or a callback is dropped by Python with a traceback: raise it once more."""

    def report(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt) and _Received.number is not None:
            _Received.again = threading.Timer(0.05, signal.raise_signal, (_Received.number,))
            _Received.again.daemon = True
            _Received.again.start()
        else:
            hook(lost)

    return report
