"""The machine at hand as a device of the table: a GPU by the name that its driver gives, a CPU by its memory."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from sora_spec.language.device_names import TABLE, model_of
from sora_spec.plan.devices.hardware import Device, device_names, find_device, meant_devices, own_names
from sora_spec.plan.interval import Interval

TABLE_THREADS = 2
"""Cores of the table's CPU, whose rates are scaled to those of this machine."""
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def gpu_of_table(name: str, memory_bytes: int, file: str | Path | None = None) -> Device | None:
    """The entry of a GPU that CUDA calls `name`; of several memory sizes the nearest. None where none is meant.

    An entry is meant by its title, which is how `sora-spec probe` writes it, or by its model (`device_names.model_of`):
    `rtx4090` by "NVIDIA GeForce RTX 4090". Laptop GPUs bear the names of faster ones, and are not meant.
    """
    for source in (file, TABLE) if file is not None else (TABLE,):
        devices = [find_device(entry, source) for entry in own_names(source)]
        titled = [device for device in devices if device.kind == "cuda" and device.title == name]
        if titled:
            return titled[0]
    key = model_of(name).key  # the memory in a name is the board's, and the driver says how much there is
    meant = [device for device in meant_devices(key, file) if device.kind == "cuda"]
    return min(meant, key=lambda device: abs(device.memory_bytes - memory_bytes), default=None)


def this_gpu(name: str, memory_bytes: int, capability: float, file: str | Path | None = None) -> tuple[Device, bool]:
    """The GPU at hand with its real memory, and whether it was recognised.

    One that was not borrows the rates of the newest entry that is not newer, or of the oldest; the low end is halved.
    """
    found = gpu_of_table(name, memory_bytes, file)
    if found is not None:
        return replace(found, memory_bytes=memory_bytes), True
    every = [find_device(entry, file) for entry in device_names(file)]
    known = [device for device in every if device.kind == "cuda"]
    age = max(min(device.capability for device in known), capability)
    older = [device for device in known if device.capability <= age]
    like = max(older, key=lambda device: (device.capability, -abs(device.memory_bytes - memory_bytes)))
    return replace(
        like,
        title=f"{name}, which is not in the table, with the rates of {like.title}",
        memory_bytes=memory_bytes,
        capability=capability,
        efficiency=_wider(like.efficiency),
        attention_efficiency=_wider(like.attention),
        memory_efficiency=_wider(like.memory),
        usd_per_hour=None,
    ), False


def _wider(share: Interval) -> Interval:
    return Interval(share.low / 2, share.likely, share.high)


def this_cpu(threads: int, sharers: int = 1, file: str | Path | None = None) -> Device:
    """The CPU at hand: its memory, divided by the processes that share it, and the table's rates for its threads.

    An entry of the user's file whose title is that of this CPU counts first.
    """
    title, memory = cpu_title(threads), host_memory_bytes() // sharers
    for entry in device_names(file) if file is not None else ():
        device = find_device(entry, file)
        if device.kind == "cpu" and device.title == title:
            return replace(device, memory_bytes=memory)
    table = find_device("cpu")
    scale = threads / TABLE_THREADS
    return replace(
        table,
        title=title,
        memory_bytes=memory,
        rates={precision: rate * scale for precision, rate in table.rates.items()},
        bandwidth=table.bandwidth * min(scale, 4.0),  # memory channels are fewer than cores
    )


def cpu_title(threads: int) -> str:
    """What a CPU of so many threads is called."""
    return f"CPU, {threads} thread{'s' * (threads != 1)}"


def host_memory_bytes() -> int:
    """Memory of this machine, or of the container that this process runs in."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _CGROUPS:
        try:
            limit = Path(path).read_text().strip()
        except OSError:
            continue
        if limit.isdigit():  # `max` where there is none
            total = min(total, int(limit))
    return total
