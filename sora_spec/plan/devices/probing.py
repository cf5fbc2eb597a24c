"""Measures this machine in a process of its own: PyTorch is imported there and nowhere else.

Rates of matrix products and of memory are those of single large kernels. What whole models reach of them is found by
running some: a training step, a call of the network as in generation, and a decoding, of packaged specs at sizes that
keep the device busy. The share is the time that the planner gives at full rates, divided by the time that passed.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

from sora_spec.errors import UserError
from sora_spec.graph.component import Component, Precision
from sora_spec.language.loading import load_spec
from sora_spec.language.packaged import install_command
from sora_spec.plan.devices.hardware import Device, find_device
from sora_spec.plan.devices.machine import cpu_title
from sora_spec.plan.interval import Interval
from sora_spec.plan.job import Job, Question, planned_job
from sora_spec.plan.time.timing import compute_seconds, optimizer_seconds

# Best of several runs after a warm-up.
_SCRIPT = r"""
import json, os, sys, time
import torch

request = json.load(sys.stdin)
device = request["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
cuda = device.startswith("cuda")

def wait():
    if cuda:
        torch.cuda.synchronize()

def best(action):
    action(); wait()
    found, end = float("inf"), time.perf_counter() + request["seconds"]
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

def describe():
    rates = {"fp32": matrix(torch.float32), "bf16": matrix(torch.bfloat16)}
    if cuda:
        rates["tf32"] = matrix(torch.float32, True)
        torch.backends.cuda.matmul.allow_tf32 = False
        properties = torch.cuda.get_device_properties(device)
        memory, name = properties.total_memory, properties.name
        capability = properties.major + properties.minor / 10
    else:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        name, capability = None, 0.0
    return dict(kind="cuda" if cuda else "cpu", title=name, threads=torch.get_num_threads(), capability=capability,
                memory=memory, rates=rates, bandwidth=bandwidth(), torch=torch.__version__)

def run(program):
    from sora_spec.builders.trace.component import prepare_component
    from sora_spec.graph import Setting
    from sora_spec.language.loading import load_spec
    setting = Setting(batch=program["batch"], precision=program["precision"], attention="flash" if cuda else "cpu")
    ready = prepare_component(load_spec(program["spec"]), program["component"], setting, torch.device(device))
    optimizer = torch.optim.AdamW(ready.module.parameters(), lr=0.0, foreach=cuda) if ready.trains else None

    def action():
        ready.run(setting, forced=False)
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return best(action)

if request["programs"]:
    print(json.dumps([run(program) for program in request["programs"]]))
else:
    print(json.dumps(describe()))
"""


@dataclass(frozen=True)
class Measured:
    """What was measured of single kernels. Rates are FLOP/s and byte/s."""

    kind: str
    title: str
    capability: float
    memory: int
    rates: dict[str, float]
    bandwidth: float
    torch: str


@dataclass(frozen=True)
class Program:
    """A run of a packaged spec."""

    spec: str
    component: Component
    batch: int
    precision: Precision

    @property
    def words(self) -> str:
        """What it is."""
        kind = {"denoiser_step": "training step", "denoiser": "call of the network", "vae_decode": "decoding"}
        return f"{kind[self.component]} of {self.spec}, {self.batch} clips, {self.precision}"


@dataclass(frozen=True)
class Reached:
    """A program's time, and that at full rates."""

    program: Program
    seconds: float
    roofline_seconds: float

    @property
    def share(self) -> float:
        """Of the full rates."""
        return self.roofline_seconds / self.seconds


_CPU: tuple[Program, ...] = (
    Program("tiny-latte", "denoiser_step", 16, "fp32"),
    Program("tiny-latte", "denoiser", 16, "fp32"),
    Program("tiny-latte", "vae_decode", 4, "fp32"),
)
_CUDA: tuple[Program, ...] = (
    Program("dit", "denoiser_step", 64, "bf16"),
    Program("dit", "denoiser", 64, "bf16"),
    Program("dit", "vae_decode", 8, "bf16"),
)
_ROOM = 0.6
"""Share of the device's memory that a program may take; its batch is halved until it does."""
_BELOW, _ABOVE = 0.8, 1.2
"""By how much other models fall short of the lowest share that was measured, and exceed the highest."""
FULL = Interval(1.0, 1.0, 1.0)


def measure(device: str = "", seconds: float = 0.5) -> Measured:
    """Measure a device's kernels. Raises UserError where PyTorch is missing or the device is not there."""
    values: dict[str, Any] = _ask(device, seconds, ())
    threads: int = values.pop("threads")
    values["title"] = values["title"] or cpu_title(threads)
    return Measured(**values)


def measure_programs(found: Measured, device: str = "", seconds: float = 0.5) -> list[Reached]:
    """Run real models on a device whose kernels were measured. Raises UserError like `measure`."""
    full = _full_device(found)
    programs = tuple(_fitting(program, full) for program in (_CUDA if found.kind == "cuda" else _CPU))
    times: list[float] = _ask(device, seconds, programs)
    return [reached(program, full, time) for program, time in zip(programs, times, strict=True)]


def _ask(device: str, seconds: float, programs: tuple[Program, ...]) -> Any:
    request = {"device": device, "seconds": seconds, "programs": [vars(program) for program in programs]}
    command = [sys.executable, "-c", _SCRIPT]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        hint = install_command("train") if "No module named 'torch'" in done.stderr else "try --device cpu"
        raise UserError(f"the measurement failed: {lines[-1] if lines else 'no output'}", hint)
    return json.loads(done.stdout)


def _full_device(found: Measured) -> Device:
    """The device with every rate as it was measured, and all of it reached."""
    return replace(
        find_device("cpu" if found.kind == "cpu" else "a100-80gb"),
        title=found.title,
        capability=found.capability,
        memory_bytes=found.memory,
        rates=found.rates,
        bandwidth=found.bandwidth,
        efficiency=FULL,
        attention_efficiency=FULL,
        memory_efficiency=FULL,
    )


def _job(program: Program, device: Device) -> Job:
    return planned_job(load_spec(program.spec), device, Question(count=1))


def _fitting(program: Program, device: Device) -> Program:
    """The program at a batch that leaves the device some room."""
    while program.batch > 1:
        work = _job(program, device).work(program.component, program.batch, program.precision)
        if work.peak.tensor_bytes + 4 * work.parameter_bytes < _ROOM * device.memory_bytes:
            break
        program = replace(program, batch=program.batch // 2)
    return program


def reached(program: Program, full: Device, seconds: float) -> Reached:
    """A measured time beside that at full rates. AdamW's part is taken off both."""
    job = _job(program, full)
    work = job.work(program.component, program.batch, program.precision)
    if program.component == "denoiser_step":
        seconds = max(seconds - optimizer_seconds(job, work).likely, 0.1 * seconds)
    return Reached(program, seconds, compute_seconds(work.rows, full, program.precision).likely)


def efficiency(programs: list[Reached]) -> Interval:
    """Share of the full rates that other models will reach: the geometric mean of what some did, and room around."""
    shares = [program.share for program in programs]
    mean = math.exp(sum(map(math.log, shares)) / len(shares))
    low, likely, high = _BELOW * min(shares), mean, _ABOVE * max(shares)
    return Interval(*(min(1.0, max(0.001, share)) for share in (low, likely, high)))


def entry(name: str, found: Measured, programs: list[Reached]) -> str:
    """The measurement as an entry of a hardware file."""
    rates = ", ".join(f"{precision}: {rate / 1e12:.4g}" for precision, rate in found.rates.items())
    source = f"sora-spec probe, PyTorch {found.torch}"
    cuda, share = found.kind == "cuda", efficiency(programs)
    shares = f"[{share.low:.3g}, {share.likely:.3g}, {share.high:.3g}]"
    ran = "; ".join(f"{program.program.words} {program.seconds:.3g} s" for program in programs)
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
            f"  efficiency: {{matrix: {shares}, attention: {shares}, memory: {shares}}}",
            "  sources:",
            f"    memory_gib: {json.dumps(source)}",
            f"    tflops: {json.dumps(source + ', one large square product')}",
            f"    bandwidth_gbs: {json.dumps(source + ', scaling a large tensor in place')}",
            '    link: "not measured"',
            f"    efficiency: {json.dumps(f'{source}: {ran}')}",
        ]
    )
