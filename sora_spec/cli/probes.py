"""What `doctor` asks of this machine. Heavy packages are imported in subprocesses, side by side, and really used."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal

from sora_spec.language.packaged import install_command

Status = Literal["ok", "missing", "absent"]
Road = Literal["check", "train", "export", "generate", "engines", "machine"]
_TIMEOUT_SECONDS = 60

# A one-node ONNX model (Identity on one float): what a provider must really run to count as usable.
_TINY_MODEL = "CAg6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEBE="

_PROBES = {
    "av": "import av; av.codec.Codec('libx264', 'w'); print('H.264 through libx264')",
    # A provider that is listed may still fail to load its libraries, so each one runs the tiny model.
    "onnxruntime": f"""
import base64, numpy, onnxruntime as ort
ort.set_default_logger_severity(4)
model, works, fails = base64.b64decode('{_TINY_MODEL}'), [], []
for name in ort.get_available_providers():
    if name.startswith('Azure'):
        continue  # calls remote services and runs nothing here
    try:
        session = ort.InferenceSession(model, providers=[name])
        session.run(None, {{'x': numpy.zeros(1, 'float32')}})
        (works if session.get_providers()[0] == name else fails).append(name.removesuffix('ExecutionProvider'))
    except Exception:
        fails.append(name.removesuffix('ExecutionProvider'))
print('runs on ' + ', '.join(works) + ('; listed but unusable: ' + ', '.join(fails) if fails else ''))
assert works
""",
    "tensorrt_rtx": "import tensorrt_rtx as trt; trt.Builder(trt.Logger(trt.Logger.ERROR)); print('builds engines')",
    "tensorrt": "import tensorrt as trt; assert trt.Builder(trt.Logger(trt.Logger.ERROR)); print('builds engines')",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    road: Road
    """What it is needed for; `engines` and `machine` are extras that the core road does without."""
    status: Status
    """`missing`: should be here and is not, or does not work. `absent`: not needed on this road."""
    detail: str
    mend: str | None = None
    """Command or step that mends it."""


def find_all() -> list[Finding]:
    """Every finding, probes run side by side."""
    running = {name: _start(code) for name, code in _PROBES.items() if _installed(name)}
    findings = [_python(), *(_package(name, "check", "") for name in ("pydantic", "ruamel.yaml", "typer", "rich"))]
    findings += [_package(name, "train", "train") for name in ("torch", "numpy", "einops", "safetensors")]
    findings.append(_probed("av", "generate", "train", running, "PyAV"))
    findings += [_package(name, "export", "export") for name in ("onnx", "onnxscript")]
    findings.append(_probed("onnxruntime", "generate", "run", running, "onnxruntime"))
    findings.append(_probed("tensorrt_rtx", "engines", "rtx", running, "tensorrt-rtx"))
    findings.append(_probed("tensorrt", "engines", "trt", running, "tensorrt"))
    return [*findings, _gpu(), _processors(), _memory(), _disk()]


def _installed(name: str) -> bool:
    return find_spec(name) is not None


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _python() -> Finding:
    enough = sys.version_info >= (3, 11)
    return Finding("python", "check", "ok" if enough else "missing", platform.python_version(), None)


def _package(name: str, road: Road, extra: str) -> Finding:
    found = _version(name)
    if found is None:
        return Finding(name, road, "missing", "not installed", install_command(extra))
    return Finding(name, road, "ok", found)


def _start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _probed(module: str, road: Road, extra: str, running: dict[str, subprocess.Popen[str]], name: str) -> Finding:
    needed: Status = "absent" if road == "engines" else "missing"
    if module not in running:
        return Finding(name, road, needed, "not installed", install_command(extra))
    process = running[module]
    try:
        out, errors = process.communicate(timeout=_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Finding(name, road, needed, f"gave no answer in {_TIMEOUT_SECONDS} seconds", install_command(extra))
    installed = _version({"av": "av", "tensorrt_rtx": "tensorrt-rtx"}.get(module, module)) or ""
    if process.returncode == 0:
        return Finding(name, road, "ok", f"{installed} {out.strip()}".strip())
    reason = (errors.strip().splitlines() or [f"ended with exit code {process.returncode}"])[-1]
    return Finding(name, road, needed, f"{installed} is installed, but: {reason[:200]}".strip(), install_command(extra))


def _gpu() -> Finding:
    program = shutil.which("nvidia-smi")
    if program is None:
        return Finding(
            "gpu", "machine", "absent", "no nvidia-smi: no NVIDIA driver here", "everything also runs on the CPU"
        )
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("gpu", "machine", "absent", f"nvidia-smi fails: {error}", "check the driver with nvidia-smi")
    if answer.returncode or not answer.stdout.strip():
        return Finding("gpu", "machine", "absent", "nvidia-smi finds no GPU", "check the driver with nvidia-smi")
    return Finding("gpu", "machine", "ok", "; ".join(answer.stdout.strip().splitlines()))


def _processors() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("processors", "machine", "ok", f"{usable} usable")


def _memory() -> Finding:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    except (ValueError, OSError, AttributeError):
        return Finding("memory", "machine", "absent", "unknown on this system")
    return Finding("memory", "machine", "ok", f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB of it free")


def _disk() -> Finding:
    free = shutil.disk_usage(os.curdir).free
    return Finding("disk", "machine", "ok", f"{free / 2**30:.1f} GiB free in this folder")


def as_json(findings: list[Finding]) -> str:
    """The findings as JSON."""
    rows = [finding.__dict__ for finding in findings]
    return json.dumps({"ok": core_road_works(findings), "findings": rows}, indent=2)


def core_road_works(findings: list[Finding]) -> bool:
    """Whether a spec can be checked, trained, exported and generated from here."""
    return all(finding.status != "missing" for finding in findings)
