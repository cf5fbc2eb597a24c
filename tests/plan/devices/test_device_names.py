"""What people and drivers call a device: understood, or refused with the right candidates; one table for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from sora_spec.compile.export.targets import compute_capability
from sora_spec.errors import UserError
from sora_spec.language.loading import check, load_spec
from sora_spec.language.packaged import find_spec_file
from sora_spec.language.source import load_document
from sora_spec.plan.devices.hardware import device_names, find_device
from tests.plan.test_plan_command import _run


@pytest.mark.parametrize(
    ("name", "device"),
    [
        *(
            ("RTX 4090", "rtx4090"),
            ("4090", "rtx4090"),
            ("NVIDIA GeForce RTX 4090", "rtx4090"),
            ("rtx-4090", "rtx4090"),
        ),
        *(
            ("rtx_4090", "rtx4090"),
            ("RTX4090", "rtx4090"),
            ("rtx 4090 24gb", "rtx4090"),
            ("geforce rtx 3090", "rtx3090"),
        ),
        *(("5090", "rtx5090"), ("A100-SXM4-80GB", "a100-80gb"), ("NVIDIA A100-SXM4-40GB", "a100-40gb")),
        *(("a100-80", "a100-80gb"), ("A100 40G", "a100-40gb"), ("a100 80 GB", "a100-80gb"), ("a100_80gb", "a100-80gb")),
        *(("H100", "h100"), ("NVIDIA H100 80GB HBM3", "h100"), ("H100 SXM5", "h100"), ("NVIDIA H200", "h200")),
        *(("RTX A6000", "a6000"), ("NVIDIA RTX A6000", "a6000"), ("L40S", "l40s"), ("NVIDIA L20", "l20")),
        *(("NVIDIA B200", "b200"), ("H20", "h20"), ("A800-SXM4-80GB", "a800"), ("h800", "h800"), ("CPU", "cpu")),
    ],
)
def test_a_device_is_known_however_it_is_called(name: str, device: str) -> None:
    assert find_device(name).name == device


@pytest.mark.parametrize(
    ("name", "words", "never"),
    [
        ("a100", "name one: a100-40gb, a100-80gb", "h100?"),
        ("NVIDIA A100", "name one: a100-40gb, a100-80gb", "did you mean"),
        *((name, "--hardware FILE", "did you mean") for name in ("v100", "Tesla V100-SXM2-32GB", "t4", "L40", "a10")),
        *((name, "--hardware FILE", "did you mean") for name in ("3090 ti", "4080", "rtx 6000 ada", "gh200", "mi300x")),
        ("RTX 4090 Laptop GPU", "--hardware FILE", "did you mean"),
        ("H100 PCIe", "name h100 to plan on that one", "did you mean"),
        ("h100-96gb", "of that model it has h100", "did you mean"),
        ("a100-20gb", "of that model it has a100-40gb, a100-80gb", "did you mean"),
        ("rtx4090 48GB", "of that model it has rtx4090", "did you mean"),
        ("rtx4900", "did you mean rtx4090?", "h100?"),
        ("l40z", "did you mean l40s?", "l20?"),
        ("x100", "known: a100-40gb", "did you mean"),
        *((name, "names no model of a device", "did you mean") for name in ("gpu", "tpu", "cuda", "cuda:0", "mps")),
        ("8xH100", "--gpu h100 --count 8", "did you mean"),
        ("RTX 4090 x 2", "--gpu rtx4090 --count 2", "did you mean"),
        ("rtx999", "known: a100-40gb", "did you mean"),
        ("80gb", "known: a100-40gb", "did you mean"),
        ("", "known: a100-40gb", "did you mean"),
    ],
)
def test_a_name_that_is_not_one_device_gets_the_right_candidates(name: str, words: str, never: str) -> None:
    with pytest.raises(UserError) as refused:
        find_device(name)
    said = f"{refused.value.message} {refused.value.hint}"
    assert words in said
    assert never not in said


@pytest.mark.parametrize("name", device_names())
def test_what_can_be_planned_on_can_be_exported_for(name: str) -> None:
    device = find_device(name)
    if device.kind == "cpu":
        with pytest.raises(UserError, match="unknown GPU 'cpu'"):
            compute_capability(name)
    else:
        assert compute_capability(name) == compute_capability(device.title) == round(10 * device.capability)


@pytest.mark.parametrize(
    ("name", "sm"),
    [
        *(("v100", 70), ("T4", 75), ("rtx 2080 ti", 75), ("a10g", 86)),
        *(("a40", 86), ("rtx3080", 86), ("L4", 89), ("rtx4080", 89)),
        *(("RTX 6000 Ada Generation", 89), ("rtx6000ada", 89), ("RTX 4090 Laptop GPU", 89), ("gh200", 90)),
        *(("b300", 103), ("rtx5080", 120), ("rtxpro6000", 120), ("RTX PRO 6000 Blackwell", 120)),
        *(("h20", 90), ("h800", 90), ("l20", 89), ("a800", 80)),
        *(("a100", 80), ("H100 PCIe", 90), ("sm_86", 86)),
    ],
)
def test_capabilities_by_name(name: str, sm: int) -> None:
    """As on NVIDIA's page "CUDA GPU Compute Capability"."""
    assert compute_capability(name) == sm


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        ("a100", "a100-40gb, a100-80gb"),
        ("v100", "no figures of that GPU"),
        ("mine", "known: a100-40gb"),
        ("''", "known"),
    ],
)
def test_validate_refuses_what_no_plan_can_be_made_for_at_its_line(gpu: str, words: str, tmp_path: Path) -> None:
    text = Path(find_spec_file("dit")).read_text(encoding="utf-8").replace("gpu: a100-80gb", f"gpu: {gpu}")
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    done = _run("validate", str(path))
    line = text[: text.index("gpu:")].count("\n") + 1
    assert done.returncode == 1
    assert "E330" in done.stdout
    assert f"spec.yaml:{line}:" in done.stdout
    assert words.lower() in done.stdout.lower()
    assert load_spec(path).hardware.gpu == gpu.strip("'")  # it can be trained all the same
    assert _run("plan", str(path), "--check").returncode == 2
    assert _run("plan", str(path), "--check", "--gpu", "h100").returncode == 0


@pytest.mark.parametrize("gpu", ["4090", "RTX 4090", "NVIDIA A100-SXM4-80GB", "cpu"])
def test_validate_takes_what_is_understood(gpu: str) -> None:
    document = load_document(find_spec_file("dit"), [f'hardware.gpu="{gpu}"'])
    assert check(document).diagnostics == []


def test_devices_of_ones_own_are_known_by_name_title_and_in_validate(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "lab: {title: NVIDIA Tesla V100-SXM2-32GB, kind: cuda, capability: 7.0, memory_gib: 31.7,\n"
        "  tflops: {fp32: 15.7}, bandwidth_gbs: 900, link: {kind: nvlink, gbs: 150}, efficiency: [0.3, 0.5, 0.8],\n"
        "  sources: {memory_gib: a, tflops: b, bandwidth_gbs: c, efficiency: d}}\n"
    )
    for name in ("lab", "v100", "V100 32GB"):
        assert find_device(name, path).name == "lab"
    assert find_device("4090", path).name == "rtx4090"
    assert _run("validate", "dit", "hardware.gpu=lab").returncode == 1
    assert _run("validate", "dit", "hardware.gpu=lab", "--hardware", str(path)).returncode == 0
