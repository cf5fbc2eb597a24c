"""The table of devices, and users' own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from sora_spec.errors import UserError
from sora_spec.plan.hardware import TABLE, device_names, find_device
from sora_spec.plan.probing import Measured, entry
from sora_spec.span import Text
from sora_spec.yaml_tree import MapNode, read_tree

WANTED = {
    *("a100-40gb", "a100-80gb", "a6000", "rtx3090", "rtx4090", "rtx5090", "l40s", "h100", "h200", "b200", "h20"),
    *("l20", "cpu"),
}


def test_every_wanted_device_is_there_with_sources() -> None:
    assert set(device_names()) >= WANTED
    for name in device_names():
        device = find_device(name)
        assert set(device.sources) >= {"memory_gib", "tflops", "bandwidth_gbs", "link", "efficiency", "usd_per_hour"}
        assert 0 < device.efficiency.low <= device.efficiency.likely <= device.efficiency.high <= 1
        assert device.rate("fp8") >= device.rate("fp32") * (device.kind == "cuda")


def test_published_rates() -> None:
    a100, h100 = find_device("a100-80gb"), find_device("h100")
    assert (a100.rate("bf16"), a100.rate("tf32"), a100.rate("fp32")) == (312e12, 156e12, 19.5e12)
    assert a100.bandwidth == 2039e9
    assert h100.rate("bf16") == pytest.approx(989.4e12)
    assert find_device("rtx4090").bandwidth == 1008e9


def test_names_are_found_without_reading_the_whole_table() -> None:
    tree, problems = read_tree(Text("hardware.yaml", TABLE.read_text()))
    assert not problems
    assert isinstance(tree, MapNode)
    assert list(tree.entries) == device_names()


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match="no device 'rtx-4090'") as caught:
        find_device("rtx-4090")
    assert caught.value.hint is not None
    assert "did you mean rtx4090?" in caught.value.hint


def test_every_problem_of_a_users_file_has_its_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "good: {kind: cpu, memory_gib: 8, tflops: {fp32: 1}, bandwidth_gbs: 10, link: {kind: memory, gbs: 1},\n"
        "  efficiency: [0.1, 0.2, 0.3],\n"
        "  sources: {memory_gib: a, tflops: b, bandwidth_gbs: c, efficiency: d}}\n"
        "bad:\n"
        "  kind: tpu\n"
        "  memory_gib: -3\n"
        "  tflops: {fp32: fast}\n"
        "  bandwidth_gbs: 10\n"
        "  link: {kind: pcie, gbs: 10}\n"
        "  efficiency: [0.5, 0.4, 0.9]\n"
        "  sources: {memory_gib: x, tflops: x, bandwidth_gbs: x}\n"
    )
    with pytest.raises(UserError) as caught:
        find_device("good", path)
    for place in (f"{path}:5:9: 'tpu'", f"{path}:6:15: -3 is outside", f"{path}:7:18: 'fast'", f"{path}:10:15: effici"):
        assert place in caught.value.message
    assert "does not say where `efficiency` comes from" in caught.value.message


def test_a_measurement_is_an_entry(tmp_path: Path) -> None:
    found = Measured("cpu", "two threads", 0.0, 8 * 2**30, {"fp32": 1e11, "bf16": 2e10}, 1.5e10, "2.13")
    path = tmp_path / "machine.yaml"
    path.write_text(entry("mine", found))
    device = find_device("mine", path)
    assert device.memory_bytes == 8 * 2**30
    assert device.rate("fp32") == pytest.approx(1e11)
    assert device.bandwidth == pytest.approx(1.5e10)
    assert find_device("h100", path).name == "h100"


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UserError, match="cannot be read"):
        find_device("mine", "/nowhere/mine.yaml")


def test_efficiencies_are_those_of_the_published_timings() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "calibration.py"
    module_spec = importlib.util.spec_from_file_location("calibration", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    calibration = importlib.util.module_from_spec(module_spec)
    sys.modules["calibration"] = calibration
    module_spec.loader.exec_module(calibration)
    for device in {row.device for row in calibration.ROWS}:
        fitted = calibration.fitted([row for row in calibration.ROWS if row.device == device])
        assert find_device(device).efficiency.likely == pytest.approx(fitted, abs=1e-3)
    errors = sorted(abs(seconds / row.seconds - 1) for row, seconds in calibration.leave_one_out())
    assert errors[len(errors) // 2] <= 0.15
