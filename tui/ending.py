"""How the planner ends when no key asked for it: by a signal or a fault. The terminal is put right, texts are kept."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_spec import output, signals
from sora_spec.disk.run_folder import write_atomically

if TYPE_CHECKING:
    from sora_spec.tui.app import SoraSpecApp
    from sora_spec.tui.session import OpenSpec, Session


def listen(app: SoraSpecApp) -> None:
    """Let the ending signals close the app in the way a key does: Textual itself leaves the terminal raw at SIGTERM."""
    try:
        loop = asyncio.get_running_loop()
        for number in signals.ending_signals():
            loop.add_signal_handler(number, partial(_end, app, number))
    except (NotImplementedError, RuntimeError, ValueError):
        pass  # Windows, or a test in a thread of its own


def _end(app: SoraSpecApp, number: signal.Signals) -> None:
    signals.note_received(number)
    app.exit(return_code=signals.exit_code())


def take_any_byte() -> None:
    """Read bytes that are no UTF-8, which a paste may hold, as replacement characters.

    Textual decodes its input strictly and ends with a traceback at the first such byte; it has no setting for it.
    """
    from textual.drivers import linux_driver

    def decoder(encoding: str) -> Any:
        return partial(codecs.getincrementaldecoder(encoding), errors="replace")

    setattr(linux_driver, "getincrementaldecoder", decoder)  # noqa: B010 - a name that textual does not export


def outlive_the_terminal() -> None:
    """Go on taking what is to be written once the terminal is gone, and end as at SIGHUP.

    Textual's thread that writes dies of the first error; whatever comes after fills its queue of 30, and the program
    waits for ever for room in it.
    """
    from textual.drivers import linux_driver
    from textual.drivers._writer_thread import WriterThread

    class Writer(WriterThread):
        def run(self) -> None:
            try:
                super().run()
            except (OSError, ValueError):  # gone, or closed
                if signals.received() is None:
                    ending = signals.ending_signals()
                    os.kill(os.getpid(), signal.SIGHUP if signal.SIGHUP in ending else signal.SIGTERM)
                while self._queue.get() is not None:
                    pass

    setattr(linux_driver, "WriterThread", Writer)  # noqa: B010 - a name that textual does not export


def rescue(session: Session) -> None:
    """Write every text that is not saved beside its file, and say where it is."""
    for spec in session.specs:
        if spec.unsaved:
            kept = _keep(spec)
            if kept is None:
                output.warn(f"the text of {spec.name} was not saved, and nowhere can be written")
            else:
                output.note(f"the text of {spec.name} was not saved; it is in {kept}")


def _keep(spec: OpenSpec) -> Path | None:
    stem = Path(spec.name).name or "spec"
    beside = Path(spec.path).parent if os.path.exists(spec.path) else Path()
    for folder in (beside, Path(), Path(tempfile.gettempdir())):
        names = (f"{stem}.unsaved{number}.yaml" for number in ("", *map(str, range(2, 100))))
        free = next((folder / name for name in names if not (folder / name).exists()), None)
        try:
            if free is not None:
                write_atomically(free, spec.content.encode("utf-8", "replace").decode())
                return free
        except OSError:
            continue
    return None
