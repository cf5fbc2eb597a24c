"""The table of devices, and users' own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from sora_spec.errors import UserError
from sora_spec.language.span import Text
from sora_spec.language.yaml_tree import MapNode, read_tree
from sora_spec.plan.devices.hardware import TABLE, device_names, find_device
from sora_spec.plan.devices.probing import Measured, Program, Reached, entry

WANTED = {
    *("a100-40gb", "a100-80gb", "a6000", "rtx3090", "rtx4090", "rtx5090", "l40s", "h100", "h200", "b200", "h20"),
    *("l20", "h800", "a800", "cpu"),
}


NUMBERS = {"memory_gib", "tflops", "bandwidth_gbs", "link", "network_gbs", "efficiency", "usd_per_hour"}


def test_every_wanted_device_is_there_with_sources() -> None:
    assert set(device_names()) >= WANTED
    for name in device_names():
        device = find_device(name)
        assert set(device.sources) >= NUMBERS
        for low, likely, high in (device.efficiency, device.attention, device.memory):
            assert 0 < low <= likely <= high
            assert high <= 1 or device.kind == "cpu"  # whose caches are faster than its memory
        assert device.rate("fp8") >= device.rate("fp32") * (device.kind == "cuda")


# Dense bf16 with fp32 accumulation, TF32, fp32 and bandwidth, of the documents that `sources` names.
PUBLISHED = {
    "a100-40gb": (312, 156, 19.5, 1555),
    "a100-80gb": (312, 156, 19.5, 2039),
    "a6000": (154.8, 77.4, 38.7, 768),
    "rtx3090": (71, 35.6, 35.6, 936),
    "rtx4090": (165.2, 82.6, 82.6, 1008),
    "rtx5090": (209.5, 104.8, 104.8, 1792),
    "l40s": (362.05, 183, 91.6, 864),
    "h100": (1979 / 2, 989 / 2, 67, 3350),
    "h200": (1979 / 2, 989 / 2, 67, 4800),
    "b200": (4500 / 2, 2200 / 2, 75, 7700),
    "h20": (148, 74, 44, 4000),
    "l20": (119.5, 59.8, 59.8, 864),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_rates(name: str) -> None:
    device = find_device(name)
    found = (*(device.rate(precision) / 1e12 for precision in ("bf16", "tf32", "fp32")), device.bandwidth / 1e9)
    assert found == pytest.approx(PUBLISHED[name], rel=2e-3)


def test_names_are_found_without_reading_the_whole_table() -> None:
    tree, problems = read_tree(Text("hardware.yaml", TABLE.read_text()))
    assert not problems
    assert isinstance(tree, MapNode)
    assert list(tree.entries) == device_names()


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match="no device 'rtx-4900'") as caught:
        find_device("rtx-4900")
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
    ran = [Reached(Program("tiny-latte", "denoiser", 16, "fp32"), seconds, 1.0) for seconds in (2.0, 2.0)]
    path.write_text(entry("mine", found, ran))
    device = find_device("mine", path)
    for share in (device.efficiency, device.attention, device.memory):
        assert share == pytest.approx((0.4, 0.5, 0.6))
    assert device.memory_bytes == 8 * 2**30
    assert device.rate("fp32") == pytest.approx(1e11)
    assert device.bandwidth == pytest.approx(1.5e10)
    assert find_device("h100", path).name == "h100"


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UserError, match="cannot be read"):
        find_device("mine", "/nowhere/mine.yaml")


@pytest.fixture(scope="module")
def calibration() -> Any:
    """`benchmarks/calibration.py` as a module."""
    path = Path(__file__).parents[3] / "benchmarks" / "calibration.py"
    module_spec = importlib.util.spec_from_file_location("calibration", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules["calibration"] = module
    module_spec.loader.exec_module(module)
    return module


def test_efficiencies_are_those_of_the_published_times(calibration: Any) -> None:
    for name in (*calibration.DATA["kernels"], *calibration.SAME_CHIP):
        device, found = find_device(name), calibration.shares(name)
        assert device.efficiency == pytest.approx(found["matrix"], abs=0.01)
        assert device.attention == pytest.approx(found["attention"], abs=0.01)
        assert device.memory == pytest.approx(found["memory"], abs=0.01)


def test_a_published_time_is_predicted_from_the_others(calibration: Any) -> None:
    for name in calibration.TESTS:
        inside, count = calibration.covered(name)
        assert calibration.quantile(calibration.errors(name), 0.5) <= 0.15
        assert inside >= 0.8 * count


def test_several_devices_share_a_generation(calibration: Any) -> None:
    for run in calibration.DATA["scaling"]:
        for ranks, seconds in run["seconds"].items():
            # The part that is not shared, decoding above all, is left out: predictions may be short of what was seen.
            assert 0.75 * seconds < calibration.scaled(run, ranks) < 1.05 * seconds


def test_one_list_of_efficiencies_is_enough_and_two_are_taken_apart(tmp_path: Path) -> None:
    form = (
        "{name}: {{kind: cuda, memory_gib: 8, tflops: {{fp32: 1}}, bandwidth_gbs: 10, link: {{kind: pcie, gbs: 1}},\n"
        "  efficiency: {efficiency},\n"
        "  sources: {{memory_gib: a, tflops: b, bandwidth_gbs: c, efficiency: d}}}}\n"
    )
    path = tmp_path / "mine.yaml"
    path.write_text(
        form.format(name="one", efficiency="[0.1, 0.2, 0.3]")
        + form.format(name="two", efficiency="{matrix: [0.1, 0.2, 0.3], attention: [0.2, 0.4, 0.5]}")
    )
    assert find_device("one", path).attention == (0.1, 0.2, 0.3)
    assert find_device("two", path).efficiency == (0.1, 0.2, 0.3)
    assert find_device("two", path).attention == (0.2, 0.4, 0.5)
    assert find_device("two", path).memory == find_device("one", path).memory
    half = tmp_path / "half.yaml"
    half.write_text(form.format(name="two", efficiency="{attention: [0.2, 0.4, 0.5]}"))
    with pytest.raises(UserError, match="`efficiency` has no `matrix`"):
        find_device("two", half)
