"""Training begins with its plan, stops where the plan says no, and ends with what it took."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from sora_spec.cli.main import app
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from sora_spec.language.loading import dump_spec
from sora_spec.plan.devices import machine
from sora_spec.plan.devices.hardware import find_device
from sora_spec.plan.devices.machine import this_cpu, this_gpu
from sora_spec.plan.devices.probing import Measured, Program, Reached, entry
from sora_spec.train import preflight as preflight_module
from sora_spec.train.preflight import device_of, preflight
from sora_spec.train.ranks import Ranks
from sora_spec.train.start import train_stage, try_stage

GIB = 2**30


def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which not even PyTorch fits."""
    monkeypatch.setattr(machine, "host_memory_bytes", lambda: 64 * 2**20)


def test_a_run_holds_its_plan_and_what_it_took(tiny_spec, tmp_path: Path) -> None:
    train_stage(tiny_spec(), tmp_path / "run")
    stage = RunFolder.open(tmp_path / "run").stage("denoiser")
    plan, found = json.loads(stage.plan_path.read_text()), json.loads(stage.measured_path.read_text())
    assert (plan["stage"], plan["fits"], plan["gpu"]) == ("denoiser", True, "cpu")
    lines = (tmp_path / "run" / "spec.yaml").read_text().splitlines()
    term = next(term for term in plan["memory"]["terms"] if term["path"] == "train.ema")
    assert lines[term["line"] - 1].strip().startswith("ema:")
    assert (found["status"], found["step"], found["memory"]["of_step"]) == ("finished", 6, 2)
    # The allocator's own count, against the graph's: neither knows of the other.
    assert found["memory"]["allocated_bytes"] == pytest.approx(
        found["memory"]["predicted_allocated_bytes"]["likely"], rel=2e-3
    )
    assert found["time"]["steps"] == 4
    assert found["time"]["predicted_step_seconds"] == plan["time"]["step_seconds"]


def test_the_vaes_stage_is_planned_and_measured_too(tiny_spec, tmp_path: Path) -> None:
    vae = {"kind": "causal3d", "compression": {"time": 1, "space": 2}, "channels": 2, "width": 4, "multipliers": [1, 2]}
    training = {"steps": 3, "batch": 2, "crop": 8, "frames": 2}
    train_stage(tiny_spec(vae=vae | {"training": training}, patch__space=2), tmp_path / "run", "vae")
    found = json.loads((tmp_path / "run/vae/measured.json").read_text())
    # Convolutions take scratch that no graph sees: the stated interval must hold it.
    predicted = found["memory"]["predicted_allocated_bytes"]
    assert 0.98 * predicted["low"] <= found["memory"]["allocated_bytes"] <= 1.02 * predicted["high"]


def test_a_running_job_can_be_watched_from_its_third_step_on(
    tiny_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    real = preflight_module.write_atomically

    def write(path: Path, content: str) -> None:
        if path.name == "measured.json":
            seen.append((json.loads(content)["status"], json.loads(content)["step"]))
        real(path, content)

    monkeypatch.setattr("sora_spec.train.measuring.write_atomically", write)
    train_stage(tiny_spec(train__steps=7, train__checkpoint_every=5), tmp_path / "run")
    assert seen == [("running", 3), ("running", 5), ("running", 7), ("finished", 7)]


def test_a_plan_that_says_no_stops_before_anything_is_written(
    tiny_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_machine(monkeypatch)
    with pytest.raises(UserError, match="NO, it does not fit") as refused:
        train_stage(tiny_spec(), tmp_path / "run")
    assert refused.value.exit_code == 1
    assert "--force" in (refused.value.hint or "")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="does not fit"):
        try_stage(tiny_spec(), tmp_path / "run")
    assert train_stage(tiny_spec(train__steps=1), tmp_path / "run", force=True).step == 1


def test_the_command_prints_the_plan_first_and_exits_with_1(
    tiny_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(dump_spec(tiny_spec(train__steps=2)))
    run = CliRunner().invoke(app, ["train", "tiny.yaml"])
    assert run.exit_code == 0
    assert run.stderr.startswith("plan of the denoiser on 1 × CPU")
    assert run.stdout == "runs/tiny\n"
    monkeypatch.setattr(machine, "host_memory_bytes", lambda: 470 * 2**20)
    refused = CliRunner().invoke(app, ["train", "tiny.yaml", "train.batch=65536", "--run", "other"])
    assert isinstance(refused.exception, UserError)
    assert refused.exception.exit_code == 1
    assert "it would fit with\n  train.accumulation=" in refused.exception.message


def test_a_rehearsal_shows_predicted_beside_measured(tiny_spec, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(dump_spec(tiny_spec()))
    shown = CliRunner().invoke(app, ["train", str(tmp_path / "tiny.yaml"), "--dry-run"]).stdout
    memory = next(line for line in shown.splitlines() if line.startswith("memory"))
    time = next(line for line in shown.splitlines() if line.startswith("time"))
    assert "allocated at most, predicted" in memory
    assert "s a step (predicted" in time
    values = json.loads(CliRunner().invoke(app, ["train", str(tmp_path / "tiny.yaml"), "--dry-run", "--json"]).stdout)
    assert values["predicted"]["verdict"] == "yes"
    assert values["measured"]["memory"]["of_step"] == 2


def test_what_cannot_be_planned_trains_with_a_note(
    tiny_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(job: object) -> None:
        raise UserError("tiny: there is no model graph for it yet")

    monkeypatch.setattr(preflight_module, "make_plan", refuse)
    train_stage(tiny_spec(train__steps=3), tmp_path / "run")
    assert "no plan is made: tiny: there is no model graph" in capsys.readouterr().err
    assert not (tmp_path / "run/denoiser/plan.json").exists()
    found = json.loads((tmp_path / "run/denoiser/measured.json").read_text())
    assert found["memory"]["predicted_allocated_bytes"] is None
    assert found["memory"]["allocated_bytes"] > 0


class TwoRanks(Ranks):
    """A rank whose other half finds that it does not fit."""

    def any(self, flag: bool) -> bool:
        return True


def test_ranks_decide_alike_and_one_of_them_speaks(tiny_spec, capsys: pytest.CaptureFixture[str]) -> None:
    cpu = torch.device("cpu")
    with pytest.raises(UserError, match="YES, it fits"):
        preflight(tiny_spec(), "denoiser", TwoRanks(0, 1, cpu), force=False)
    with pytest.raises(SystemExit):
        preflight(tiny_spec(), "denoiser", TwoRanks(1, 1, cpu), force=False)
    assert preflight(tiny_spec(), "denoiser", TwoRanks(1, 1, cpu), force=True).plan is not None


# Names as `torch.cuda.get_device_name` gives them, with the total memory it reports, in MiB.
NAMES = [
    ("NVIDIA A100-SXM4-40GB", 40_338, "a100-40gb"),
    ("NVIDIA A100-PCIE-40GB", 40_338, "a100-40gb"),
    ("NVIDIA A100-SXM4-80GB", 81_050, "a100-80gb"),
    ("NVIDIA A100 80GB PCIe", 81_000, "a100-80gb"),
    ("NVIDIA RTX A6000", 48_670, "a6000"),
    ("NVIDIA GeForce RTX 3090", 24_245, "rtx3090"),
    ("NVIDIA GeForce RTX 4090", 24_210, "rtx4090"),
    ("NVIDIA GeForce RTX 5090", 32_110, "rtx5090"),
    ("NVIDIA L40S", 45_460, "l40s"),
    ("NVIDIA H100 80GB HBM3", 81_000, "h100"),
    ("NVIDIA H200", 143_150, "h200"),
    ("NVIDIA B200", 182_630, "b200"),
]


@pytest.mark.parametrize(("name", "mebibytes", "expected"), NAMES)
def test_gpus_are_known_by_the_names_of_their_driver(name: str, mebibytes: int, expected: str) -> None:
    device, recognised = this_gpu(name, mebibytes * 2**20, 8.0)
    assert recognised
    assert (device.name, device.memory_bytes) == (expected, mebibytes * 2**20)
    table = find_device(expected)
    assert (device.rates, device.efficiency) == (table.rates, table.efficiency)


@pytest.mark.parametrize(
    ("name", "capability", "like"),
    [
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 8.9, 8.9),
        ("Tesla V100-SXM2-32GB", 7.0, 8.0),
        ("NVIDIA GH200 480GB", 9.0, 9.0),
        ("NVIDIA RTX 6000 Ada Generation", 8.9, 8.9),
    ],
)
def test_other_gpus_borrow_rates_and_say_so(name: str, capability: float, like: float) -> None:
    device, recognised = this_gpu(name, 16 * GIB, capability)
    assert not recognised
    assert name in device.title
    assert (device.memory_bytes, device.capability, device.usd_per_hour) == (16 * GIB, capability, None)
    assert find_device(device.name).capability <= max(like, capability)


def test_the_gpu_at_hand_is_asked_for_its_name_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(major=8, minor=9, total_memory=25_386_352_640)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA GeForce RTX 4090")
    device, recognised = device_of(torch.device("cuda", 0))
    assert recognised
    assert (device.name, device.memory_bytes) == ("rtx4090", 25_386_352_640)


def test_a_measured_machine_counts_before_the_table(tmp_path: Path) -> None:
    found = Measured("cuda", "NVIDIA L40", 8.9, 45 * GIB, {"fp32": 3e13, "tf32": 6e13, "bf16": 12e13}, 8e11, "2.13.0")
    (tmp_path / "machine.yaml").write_text(
        entry("mine", found, [Reached(Program("dit", "denoiser", 8, "bf16"), 2.0, 1.0)])
    )
    device, recognised = this_gpu("NVIDIA L40", 45 * GIB, 8.9, tmp_path / "machine.yaml")
    assert recognised
    assert (device.name, device.rates["bf16"]) == ("mine", 12e13)
    assert device.efficiency == device.attention == device.memory == (0.4, 0.5, 0.6)


def test_processes_on_one_host_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "host_memory_bytes", lambda: 8 * GIB)
    assert this_cpu(threads=2, sharers=4).memory_bytes == 2 * GIB
    assert this_cpu(threads=8).rates["fp32"] == 4 * this_cpu(threads=2).rates["fp32"]
