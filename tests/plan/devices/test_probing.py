"""`sora-spec probe`: this machine as an entry, with the shares of its rates that real models reach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sora_spec.cli.main import app
from sora_spec.language.loading import load_spec
from sora_spec.plan.devices.hardware import find_device
from sora_spec.plan.devices.probing import FULL, Measured, Program, Reached, efficiency, entry, reached
from sora_spec.plan.job import Question, planned_job
from sora_spec.plan.planner import make_plan
from sora_spec.plan.time.timing import compute_seconds

STEP = Program("tiny-latte", "denoiser_step", 16, "fp32")
CALL = Program("tiny-latte", "denoiser", 16, "fp32")
MACHINE = Measured("cpu", "CPU, 2 threads", 0.0, 16 * 2**30, {"fp32": 1e11, "bf16": 5e10}, 2e10, "2.13.0")


def full() -> object:
    device = find_device("cpu")
    return replace(
        device,
        rates=MACHINE.rates,
        bandwidth=MACHINE.bandwidth,
        efficiency=FULL,
        attention_efficiency=FULL,
        memory_efficiency=FULL,
    )


@given(st.lists(st.floats(0.01, 1.5), min_size=1, max_size=4))
def test_the_interval_holds_what_was_measured(shares: list[float]) -> None:
    found = efficiency([Reached(CALL, 1.0, share) for share in shares])
    assert 0 < found.low <= found.likely <= found.high <= 1
    assert all(found.low <= share <= found.high for share in shares if share <= 1)


def test_a_plan_on_the_entry_gives_the_measured_time_back(tmp_path: Path) -> None:
    job = planned_job(load_spec("tiny-latte"), full(), Question(count=1))  # pyright: ignore[reportArgumentType]
    work = job.work(CALL.component, CALL.batch, CALL.precision)
    seconds = 2.5 * compute_seconds(work.rows, job.device, "fp32").likely  # as if 40 % had been reached
    found = reached(CALL, job.device, seconds)
    assert found.share == pytest.approx(0.4)
    (tmp_path / "machine.yaml").write_text(entry("mine", MACHINE, [found]))
    device = find_device("mine", tmp_path / "machine.yaml")
    again = compute_seconds(work.rows, device, "fp32")
    assert again.low < seconds < again.high
    assert again.likely == pytest.approx(seconds, rel=0.02)  # the entry rounds, and starts of kernels are not scaled


def test_probe_runs_real_models_and_writes_an_entry(tmp_path: Path) -> None:
    file = tmp_path / "machine.yaml"
    done = CliRunner().invoke(app, ["probe", "mine", "--device", "cpu", "--seconds", "0.02", "--out", str(file)])
    assert done.exit_code == 0, done.stderr
    device = find_device("mine", file)
    assert (device.kind, device.efficiency) == ("cpu", device.attention)
    assert 0 < device.efficiency.low <= device.efficiency.likely <= device.efficiency.high <= 1
    assert "training step of tiny-latte" in device.sources["efficiency"]
    assert "decoding of tiny-latte" in done.stderr
    plan = make_plan(planned_job(load_spec("tiny-dit"), device))
    assert 0 < plan.times.step.seconds.low < plan.times.step.seconds.likely < plan.times.step.seconds.high
