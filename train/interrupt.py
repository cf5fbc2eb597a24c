"""Ctrl-C, SIGTERM and SIGHUP as a polite request: finish the step, write a checkpoint, stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from sora_spec import output, signals


class StopRequest:
    """Context in which the first signal sets `requested`; a second one acts as it always does."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._before = {number: signal.signal(number, self._request) for number in signals.ending_signals()}
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signals.note_received(number)
        self._restore()
        output.note("stopping after this step; once more to stop at once")

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._before = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
