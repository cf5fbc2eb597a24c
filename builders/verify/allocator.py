"""What the CPU's allocator really hands out, by the profiler's events; a resident set would count libraries as well."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch.profiler import ProfilerActivity, profile

from sora_spec.builders.verify.component import prepare_component
from sora_spec.graph import Component, Setting
from sora_spec.schema.spec import Spec

Result = TypeVar("Result")


def watched(action: Callable[[], Result]) -> tuple[Result, int]:
    """Do something: its result, and the most bytes by which the allocator rose above where it began.

    Memory that was there before is not followed: what is freed of it must be freed beforehand.
    """
    profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with _silence():
        profiler.start()
    try:
        result = action()
    finally:
        with _silence():
            profiler.stop()
    return result, _rise(profiler)


def _rise(profiler: profile) -> int:
    """Highest sum of the allocator's events, in the order in which they happened."""
    assert profiler.profiler is not None
    events: Any = profiler.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    live = highest = 0
    for _, nbytes in changes:
        live += nbytes
        highest = max(highest, live)
    return highest


@contextmanager
def _silence() -> Generator[None]:
    """Keep what a C++ library writes to stderr by itself from the user."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def real_peak_bytes(spec: Spec, component: Component, setting: Setting) -> int:
    """Peak of a component that really runs on this CPU, above its weights and inputs: its second pass."""
    ready = prepare_component(spec, component, setting)
    ready.run(setting)  # a first pass makes what stays
    ready.module.zero_grad(set_to_none=True)
    gc.collect()
    return watched(lambda: ready.run(setting))[1]
