"""Measures this machine in a process of its own: PyTorch is imported there and nowhere else."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from sora_spec.errors import UserError

# Best of several runs after a warm-up; sizes grow until a run takes a tenth of a second.
_SCRIPT = r"""
import json, os, sys, time
import torch

device = sys.argv[1] or ("cuda" if torch.cuda.is_available() else "cpu")
seconds = float(sys.argv[2])
cuda = device.startswith("cuda")

def wait():
    if cuda:
        torch.cuda.synchronize()

def best(action):
    action(); wait()
    found, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter(); action(); wait()
        found = min(found, time.perf_counter() - start)
    return found

def matrix(dtype, tf32=False):
    torch.backends.cuda.matmul.allow_tf32 = tf32
    size = 8192 if cuda else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / best(lambda: a @ a)

def bandwidth():
    count = (1 << 28) if cuda else (1 << 25)
    a = torch.ones(count, device=device)
    return 8 * count / best(lambda: a.mul_(1.0))

rates = {"fp32": matrix(torch.float32), "bf16": matrix(torch.bfloat16)}
if cuda:
    rates["tf32"] = matrix(torch.float32, True)
    properties = torch.cuda.get_device_properties(device)
    memory, name = properties.total_memory, properties.name
    capability = properties.major + properties.minor / 10
else:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    name, capability = f"CPU, {torch.get_num_threads()} threads", 0.0
found = dict(kind="cuda" if cuda else "cpu", title=name, capability=capability, memory=memory, rates=rates,
             bandwidth=bandwidth(), torch=torch.__version__)
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Measured:
    """What was measured. Rates are FLOP/s and byte/s."""

    kind: str
    title: str
    capability: float
    memory: int
    rates: dict[str, float]
    bandwidth: float
    torch: str


def measure(device: str = "", seconds: float = 0.5) -> Measured:
    """Measure a device. Raises UserError where PyTorch is missing or the device is not there."""
    command = [sys.executable, "-c", _SCRIPT, device, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        hint = "pip install 'sora-spec[train]'" if "No module named 'torch'" in done.stderr else "try --device cpu"
        raise UserError(f"the measurement failed: {lines[-1] if lines else 'no output'}", hint)
    values: dict[str, Any] = json.loads(done.stdout)
    return Measured(**values)


def entry(name: str, found: Measured) -> str:
    """The measurement as an entry of a hardware file. Rates are reached ones, so the efficiency is near 1."""
    rates = ", ".join(f"{precision}: {rate / 1e12:.4g}" for precision, rate in found.rates.items())
    source = f"sora-spec probe, PyTorch {found.torch}"
    cuda = found.kind == "cuda"
    return "\n".join(
        [
            f"{name}:",
            f"  title: {json.dumps(found.title)}",
            f"  kind: {found.kind}",
            f"  capability: {found.capability:.1f}",
            f"  memory_gib: {found.memory / 2**30:.2f}",
            f"  tflops: {{{rates}}}",
            f"  bandwidth_gbs: {found.bandwidth / 1e9:.4g}",
            f"  link: {{kind: {'pcie' if cuda else 'memory'}, gbs: {25 if cuda else 5}}}",
            f"  efficiency: {'[0.6, 0.8, 0.95]' if cuda else '[0.5, 0.8, 1.0]'}",
            "  sources:",
            f"    memory_gib: {json.dumps(source)}",
            f"    tflops: {json.dumps(source + ', one large square product')}",
            f"    bandwidth_gbs: {json.dumps(source + ', scaling a large tensor in place')}",
            '    link: "not measured"',
            '    efficiency: "share of one large product that a whole model reaches, assumed"',
        ]
    )
