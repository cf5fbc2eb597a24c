"""What the server that forks data workers loads first: the loader, once for all of them.

A worker that is being started while the main process ends finds its queues gone. That is no fault and has no traceback;
the main process has said why it ends.
"""

from __future__ import annotations

import sys
from types import TracebackType

import sora_spec.train.data.loader as loader

__all__ = ["loader"]


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, FileNotFoundError | EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _report
