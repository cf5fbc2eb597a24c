"""A terminal that is gone: the program ends instead of waiting for room to write."""

from __future__ import annotations

import os
import signal
from threading import Thread
from typing import Any

import pytest
from textual.drivers import linux_driver

from sora_spec import signals
from sora_spec.tui.ending import outlive_the_terminal


class Gone:
    """A terminal whose other end was closed."""

    def write(self, _: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("already", [None, int(signal.SIGHUP)])
def test_writing_to_a_terminal_that_is_gone_never_waits(already: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux_driver, "WriterThread", linux_driver.WriterThread)  # put back afterwards
    monkeypatch.setattr(signals._Received, "number", already)
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *arguments: sent.append(arguments))
    outlive_the_terminal()
    file: Any = Gone()
    writer = linux_driver.WriterThread(file)
    writer.start()

    def work() -> None:
        for _ in range(200):  # far more than its queue holds
            writer.write("text")
        writer.stop()

    worker = Thread(target=work, daemon=True)
    worker.start()
    worker.join(60)
    assert not worker.is_alive()
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as under nohup
    assert sent == ([] if already else [(os.getpid(), signal.SIGTERM if ignored else signal.SIGHUP)])
