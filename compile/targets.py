"""GPU names → compute capabilities, and what is plugged into this machine. Torch-free."""

from __future__ import annotations

import ctypes
import difflib
import re

from sora_spec.errors import UserError

# NVIDIA, "CUDA GPU Compute Capability": https://developer.nvidia.com/cuda-gpus
COMPUTE_CAPABILITIES: dict[str, int] = {
    "t4": 75,
    "rtx2080ti": 75,
    "a100": 80,
    "a30": 80,
    "a10": 86,
    "a40": 86,
    "a4000": 86,
    "a5000": 86,
    "a6000": 86,
    "rtx3060": 86,
    "rtx3070": 86,
    "rtx3080": 86,
    "rtx3090": 86,
    "l4": 89,
    "l40": 89,
    "l40s": 89,
    "rtx4060": 89,
    "rtx4070": 89,
    "rtx4080": 89,
    "rtx4090": 89,
    "rtx6000ada": 89,
    "h100": 90,
    "h200": 90,
    "b200": 100,
    "rtx5070": 120,
    "rtx5080": 120,
    "rtx5090": 120,
    "rtxpro6000": 120,
}
RTX_CAPABILITIES = frozenset({75, 80, 86, 89, 120, 121})
"""What TensorRT-RTX 1.7 compiles for ahead of time (`ComputeCapability` of its Python module)."""

_MAJOR_ATTRIBUTE, _MINOR_ATTRIBUTE = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{MAJOR,MINOR} of cuda.h


def compute_capability(target: str) -> int:
    """Compute capability of a GPU name (`rtx4090`, `RTX 4090`, `a100-80gb`) or of `sm89`.

    Raises UserError for a name that is not in the table.
    """
    name = re.sub(r"nvidia|geforce|[\s_-]|\d+gb\Z", "", target.strip().lower())
    if match := re.fullmatch(r"sm(\d{2,3})", name):
        return int(match.group(1))
    for candidate in (name, f"rtx{name}", name.removeprefix("rtx")):
        if candidate in COMPUTE_CAPABILITIES:
            return COMPUTE_CAPABILITIES[candidate]
    close = difflib.get_close_matches(name, COMPUTE_CAPABILITIES, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(
        f"unknown GPU {target!r} for --target",
        f"{hint}known: {', '.join(COMPUTE_CAPABILITIES)}; or name the compute capability, as in --target sm89",
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
