"""An app on fixed specs, in a folder of its own, and the command line to hold it against."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import shlex
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from sora_spec.plan import planner
from sora_spec.plan.devices import hardware
from sora_spec.plan.interval import Interval, exactly
from sora_spec.plan.job import Job, Question
from sora_spec.plan.memory.terms import Phase, Term, hold
from sora_spec.plan.planner import Plan, Times
from sora_spec.plan.search.advised import Advice, Advised
from sora_spec.plan.time.timing import StepTime
from sora_spec.tui import app as app_module
from sora_spec.tui.app import SoraSpecApp
from sora_spec.tui.headless import settled, steady
from sora_spec.tui.session import open_session

SPECS = Path(__file__).with_name("specs")
GIB = 2**30
Scene = Callable[[Any], Awaitable[None]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the specs, which is also the current one and that of what is remembered."""
    for name in ("NO_COLOR", "LC_ALL", "LC_CTYPE", "VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for spec in SPECS.glob("*.yaml"):
        shutil.copy(spec, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make_app() -> Callable[..., SoraSpecApp]:
    """An app on files of the folder."""

    def made(*specs: str, **settings: Any) -> SoraSpecApp:
        question = settings.pop("question", Question())
        return SoraSpecApp(open_session(specs or ("video.yaml", "image.yaml", "wrong.yaml"), question), **settings)

    return made


@pytest.fixture
def drive() -> Callable[..., None]:
    """Run an app headlessly and hand its pilot to a scene once everything is answered."""

    def driven(app: SoraSpecApp, scene: Scene, size: tuple[int, int] = (120, 32)) -> None:
        async def run() -> None:
            async with app.run_test(size=size) as pilot:
                await settled(app)
                await scene(pilot)

        asyncio.run(run())

    return driven


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """Wait for what must come, however loaded the machine is; fail after two minutes."""

    async def waited(pilot: Any, holds: Callable[[], bool]) -> None:
        end = monotonic() + 120
        while not holds():
            assert monotonic() < end, "it did not come"
            await pilot.pause(0.01)

    return waited


@pytest.fixture
def printed() -> Iterator[Callable[[str], dict[str, Any]]]:
    """What a `sora-spec plan` line prints with --json: the real command, in this process."""
    from sora_spec.cli.lazy import load_verb

    def run(line: str) -> dict[str, Any]:
        program, verb, *arguments = shlex.split(line)
        assert (program, verb) == ("sora-spec", "plan")
        stream = io.StringIO()  # not pytest's capture: an app that runs takes what is printed for itself
        with redirect_stdout(stream):
            code = load_verb("plan").main([*arguments, "--json"], standalone_mode=False)
        assert code in (0, 1, None)
        return json.loads(stream.getvalue())

    yield run
    gc.enable()  # the command is made for short processes


# --- pictures --------------------------------------------------------------------------------------------------------
# Pictures show what the screens make of a plan, not what the planner says: its numbers are invented, and so are those
# of the devices. A planner or a table that learns better redraws none.


def weights(ranks: int) -> list[Term]:
    """What a rank keeps: 3 GiB of weights, and twice and once as much of moments and average."""
    return [
        hold("denoiser", "weights", GIB / ranks, "backbone.heads"),
        hold("denoiser", "weights", 2 * GIB / ranks, "backbone.mlp_ratio"),
        hold("denoiser", "AdamW moments", 6 * GIB / ranks),
        hold("denoiser", "moving average", 3 * GIB / ranks),
        hold("VAE", "frozen weights", GIB / 2),
    ]


def outside() -> list[Term]:
    """What the allocator and the driver take."""
    return [
        hold("machine", "fragmentation", Interval(GIB / 2, GIB, 2 * GIB)),
        hold("machine", "CUDA context", Interval(GIB / 4, GIB / 2, GIB)),
    ]


def invented_phases(job: Job) -> list[Phase]:
    """3/4 GiB of activations a clip, a quarter of it with recomputation, and half a GiB in the VAE."""
    if job.mode == "generate":
        kept = [term for term in weights(1) if "weights" in term.name]
        working = hold("denoiser", "activations", job.generated * GIB, "backbone.heads")
        decoding = hold("VAE", "activations", job.generated * GIB / 2, "vae.multipliers")
        return [
            Phase("denoise", (*kept, working, *outside())),
            Phase("decode", (*kept, decoding, *outside())),
        ]
    clips = job.micro_batch * (0.25 if job.spec.train.recompute.kind == "blocks" else 1.0)
    kept, gradients = weights(job.ranks), hold("denoiser", "gradients", 3 * GIB / job.ranks)
    encoding = hold("VAE", "activations", job.micro_batch * GIB / 2, "vae.multipliers")
    passes = [
        hold("denoiser", "activations", clips * GIB / 2, "backbone.mlp_ratio"),
        hold("denoiser", "activations", clips * GIB / 4, "backbone.heads"),
        hold("ranks", "gathered weights", GIB / 8),
    ]
    return [
        Phase("encode", (*kept, encoding, *outside())),
        Phase("forward and backward", (*kept, gradients, *passes, *outside())),
        Phase("optimizer", (*kept, gradients, *outside())),
    ]


def around(seconds: float) -> Interval:
    """A guess of a time."""
    return Interval(0.75 * seconds, seconds, 1.5 * seconds)


def invented_times(job: Job) -> Times:
    """A clip takes as many seconds as 10 TFLOP do on the device; a sampler calls the network fifty times."""
    clip = 10e12 / job.device.rates["fp32"]
    if job.mode == "generate":
        step = StepTime({"denoise": around(clip * job.generated), "decode": exactly(0)})
        seconds, devices = step.seconds.times(50), 1
    else:
        whole = around(clip * job.micro_batch)
        parts = {"forward and backward": 0.75, "encode": 0.2, "optimizer": 0.05}
        step, devices = StepTime({name: whole.times(share) for name, share in parts.items()}), job.ranks
        seconds = step.seconds.times(job.spec.train.steps)
    hours, price = seconds.times(devices / 3600), job.device.usd_per_hour
    return Times(step, seconds, hours, None if price is None else hours.times(price))


def invented_advice(plan: Plan | None, spec: Any = None) -> Advice:
    """Two fixes of what does not fit; more clips and another precision for what does."""
    if plan is None:
        return Advice()
    if plan.fits:
        largest = Advised(plan, ("train.batch=48",), (), ("48 clips a step, 6 a pass",))
        return Advice((), largest, Advised(plan, ("train.precision=bf16", "parallel.reshard=false"), ()))
    small = replace(plan, phases=(Phase("optimizer", (*weights(plan.job.ranks), *outside())),))
    return Advice(
        fixes=(
            Advised(small, ("train.accumulation=8",), (), ("4 clips a pass instead of 32",)),
            Advised(
                small, ("train.recompute={kind: blocks}",), ("--count 64",), ("recompute every block", "64 devices")
            ),
        )
    )


@pytest.fixture
def invented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices and plans with round numbers that nobody claims."""
    monkeypatch.setattr(hardware, "TABLE", Path(__file__).with_name("devices.yaml"))
    monkeypatch.setattr(planner, "bare_phases", invented_phases)
    monkeypatch.setattr(planner, "_whole", lambda _, phase: phase)
    monkeypatch.setattr(planner, "times_of", invented_times)
    monkeypatch.setattr(planner, "assumptions", lambda _: ["a thing that was taken for granted, as long as it gets"])
    monkeypatch.setattr(planner, "not_counted", lambda _: ["a thing that was left out", "and another one"])
    monkeypatch.setattr(app_module, "advise", invented_advice)


@pytest.fixture
def photograph(snap_compare: Any, invented: None) -> Callable[..., None]:
    """Compare the screen, once keys were pressed and all has come to rest, with its picture."""

    def compare(app: SoraSpecApp, size: tuple[int, int], theme: str, keys: list[str], then: Any = None) -> None:
        async def ready(pilot: Any) -> None:
            app.theme = theme
            await settled(app)
            for key in keys:
                await pilot.press(key)
                await settled(app)
            if then is not None:
                await then()
                await settled(app)
            steady(app)
            await settled(app)
            for widget in app.screen.query("*"):  # what was drawn on the way to the last layout is drawn once more
                widget.refresh()
            await settled(app)

        assert snap_compare(app, terminal_size=size, run_before=ready)

    return compare
