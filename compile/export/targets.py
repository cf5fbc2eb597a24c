"""GPU names → compute capabilities, and what is plugged into this machine. Torch-free."""

from __future__ import annotations

import ctypes
import re

from sora_spec.errors import UserError
from sora_spec.language.device_names import WITHOUT_FIGURES, known_capability, model_of
from sora_spec.plan.devices.hardware import device_names, find_device, meant_devices, nearest_name

RTX_CAPABILITIES = frozenset({75, 80, 86, 89, 120, 121})
"""What TensorRT-RTX 1.7 compiles for ahead of time (`ComputeCapability` of its Python module)."""

_MAJOR_ATTRIBUTE, _MINOR_ATTRIBUTE = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{MAJOR,MINOR} of cuda.h


def compute_capability(target: str) -> int:
    """Compute capability of a GPU, however it is called (`rtx4090`, `RTX 4090`, `a100-80gb`), or of `sm89`.

    Names and figures are those of the planner's table, and of GPUs that it only knows by their capability.
    Raises UserError for another name.
    """
    if match := re.fullmatch(r"sm_?(\d{2,3})", target.strip().lower()):
        return int(match.group(1))
    key = model_of(target).key.removesuffix("laptop")
    meant = [device.capability for device in meant_devices(key) if device.kind == "cuda"]
    found = next(iter(meant), known_capability(target))
    if found is not None:
        return round(10 * found)
    names = [*(name for name in device_names() if find_device(name).kind == "cuda"), *WITHOUT_FIGURES]
    near = nearest_name(target, names)
    raise UserError(
        f"unknown GPU {target!r} for --target",
        f"{f'did you mean {near}? ' if near else ''}known: {', '.join(names)}; "
        "or name the compute capability, as in --target sm89",
    )


def local_compute_capability() -> int | None:
    """Compute capability of this machine's first CUDA device; None without a driver or a device."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    failed = cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR_ATTRIBUTE, device)
    failed |= cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR_ATTRIBUTE, device)
    return None if failed else major.value * 10 + minor.value
