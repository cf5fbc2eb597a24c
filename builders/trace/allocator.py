"""What the CPU's allocator really hands out, by the profiler's events; a resident set would count libraries as well."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, Generic, NamedTuple, TypeVar

from torch.profiler import ProfilerActivity, profile

from sora_spec.builders.trace.component import prepare_component
from sora_spec.graph import Component, Setting
from sora_spec.language.schema.spec import Spec

Result = TypeVar("Result")


class Watched(NamedTuple, Generic[Result]):
    """What an action gave, and what it did to the allocator, in bytes above where that began."""

    result: Result
    most: int
    """The highest level."""
    left: int
    """The level at the end."""


def watched(action: Callable[[], Result]) -> Watched[Result]:
    """Do something under the profiler. What was freed in cycles before must be collected before."""
    profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with _silence():
        profiler.start()
    try:
        result = action()
    finally:
        with _silence():
            profiler.stop()
    levels = [0, *accumulate(nbytes for _, nbytes in memory_changes(profiler))]
    return Watched(result, max(levels), levels[-1])


def memory_changes(profiler: profile) -> list[tuple[int, int]]:
    """Nanosecond and bytes of each of the allocator's events, in the order in which they happened."""
    assert profiler.profiler is not None
    results: Any = profiler.profiler.kineto_results
    events: Any = results.events()
    return sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")


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
    return watched(lambda: ready.run(setting)).most
