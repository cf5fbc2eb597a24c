"""`sora-spec plan`, `diff` and `probe` as processes see them."""

from __future__ import annotations

import gc
import io
import json
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from sora_spec.cli.main import run
from sora_spec.language.loading import check, load_spec
from sora_spec.language.packaged import find_spec_file
from sora_spec.language.schema.spec import Spec
from sora_spec.language.source import Document, load_document
from sora_spec.plan import find_device, make_plan
from sora_spec.plan.job import Question, planned_job
from sora_spec.plan.search.sweep import parse_axes, render, sweep
from sora_spec.plan.show.values import plan_values

ROOT = Path(__file__).parents[2]
SCHEMA: dict[str, Any] = json.loads((ROOT / "specs" / "plan.schema.json").read_text())


def loaded(name: str, overrides: list[str]) -> tuple[Document, Spec]:
    document = load_document(find_spec_file(name), overrides)
    return document, check(document).spec()


@dataclass
class Done:
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


def _run(*arguments: str) -> Done:
    """The command in this process, from the root of the command line down."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with patch.object(sys, "argv", ["sora-spec", *arguments]), redirect_stdout(out), redirect_stderr(err):
        try:
            run()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            gc.enable()
    return Done(code, out.getvalue(), err.getvalue())


def _problems(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    """Where a value breaks a schema, for the words that plan.schema.json uses."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return [] if any(not _problems(value, part, path) for part in schema["anyOf"]) else [f"{path}: none fits"]
    if "const" in schema or "enum" in schema:
        return [] if value in schema.get("enum", [schema.get("const")]) else [f"{path}: {value!r}"]
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is(value, kind) for kind in kinds):
        return [f"{path}: {value!r} is no {kinds}"]
    found: list[str] = []
    if isinstance(value, dict):
        found += [f"{path}.{key} is missing" for key in schema["required"] if key not in value]
        found += [f"{path}.{key} is unknown" for key in value if key not in schema["properties"]]
        for key, part in schema["properties"].items():
            found += _problems(value[key], part, f"{path}.{key}") if key in value else []
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += _problems(item, schema["items"], f"{path}[{index}]")
    return found


def _is(value: Any, kind: str) -> bool:
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    if kind in kinds:
        return isinstance(value, kinds[kind])
    number = isinstance(value, int) or (kind == "number" and isinstance(value, float))
    return number and not isinstance(value, bool)


def test_json_of_a_plan_that_fits_keeps_the_contract_and_imports_no_torch() -> None:
    code = (
        "import sys; from sora_spec.cli import main; sys.argv[1:] = ['plan', 'dit', '--gpu', 'h100', '--json']\n"
        "try: main.run()\n"
        "except SystemExit as stop: assert 'torch' not in sys.modules and not stop.code, stop.code\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert _problems(found, SCHEMA) == []
    assert found["fits"] is True
    assert found["components"]["denoiser"]["parameters"] == 674_834_720
    allocated = [term["bytes"] for term in found["memory"]["terms"] if term["level"] == "allocated"]
    assert sum(allocated) == pytest.approx(found["memory"]["allocated_bytes"]["likely"], abs=len(allocated))
    lines = (ROOT / "specs" / "dit.yaml").read_text().splitlines()
    mlp = next(term for term in found["memory"]["terms"] if term["path"] == "backbone.heads")
    assert "heads: 16" in lines[mlp["line"] - 1]
    # The same plan in process.
    document, spec = loaded("dit", [])
    plan = make_plan(planned_job(spec, find_device("h100")))
    again = plan_values(plan, document=document)
    assert again["memory"] == found["memory"]
    assert again["time"] == found["time"]


def test_exit_one_and_fixes_that_are_in_the_contract() -> None:
    done = _run("plan", "dit", "--gpu", "rtx4090", "--count", "1", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert _problems(found, SCHEMA) == []
    assert found["fits"] is False
    assert found["fixes"]
    fix = found["fixes"][0]
    again = _run("plan", "dit", *fix["overrides"], "--gpu", "rtx4090", "--count", str(fix["count"]), "--check")
    assert again.returncode == 0, again.stdout + again.stderr


def test_the_report_fits_eighty_columns_and_says_where_and_how_sure() -> None:
    done = _run("plan", "dit", "--gpu", "a100-80gb")
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "\x1b" not in done.stdout
    for words in ("YES, it fits", "← peak", "backbone.mlp_ratio:14", "exact", "estimated", "not counted"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "dit", "--gpu", "rtx999"], "there is no device 'rtx999'"),
        (["plan", "dit", "--mode", "dream"], "--mode dream is none of train, generate"),
        (["plan", "dit", "--count", "0"], "--count 0 is not a number from 1 to 4096"),
        (["plan", "dit", "--count", "7"], "a batch of 256 cannot be shared by 7 devices"),
        (["plan", "tiny-dit", "--stage", "vae"], "has nothing to train"),
        (["diff", "dit"], "this takes two specs"),
    ],
)
def test_mistakes_are_told(arguments: list[str], message: str) -> None:
    done = _run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sweep_shares_the_numbers_of_single_plans() -> None:
    document, spec = loaded("tiny-latte", [])
    axes = parse_axes(["train.batch=8,16", "train.precision=fp32,bf16"])
    rows = sweep(document, Question(), ["rtx4090", "h100"], [None], axes)
    assert len(rows) == 8
    alone = make_plan(planned_job(spec, find_device("h100")))
    row = next(r for r in rows if r.device == "h100" and r.settings == ("train.batch=16", "train.precision=fp32"))
    assert row.plan is not None
    assert row.plan.phases == alone.phases
    assert row.plan.times == alone.times
    assert len(render(rows, "csv").splitlines()) == 9
    assert [entry["fits"] for entry in json.loads(render(rows, "json"))] == [True] * 8
    assert "train.precision=bf16" in render(rows, "table")


def test_a_sweep_tells_why_a_row_has_no_plan() -> None:
    document, _ = loaded("tiny-latte", [])
    rows = sweep(document, Question(), ["rtx4090"], [None], parse_axes(["backbone.heads=4,5"]))
    assert rows[0].plan is not None
    assert rows[1].plan is None
    assert "192" in rows[1].problem


def test_diff_shows_fields_and_costs() -> None:
    done = _run("diff", "dit", "backbone.depth=14", "--gpu", "h100", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["fields"] == {"backbone.depth": ["28", "14"]}
    a, b = found["costs"]["parameters"]
    assert a == 674_834_720
    assert b < a
    assert _run("diff", "dit", "dit").returncode == 0


def test_a_plan_that_fits_names_the_fastest_setting_which_is_as_fast_as_it_says() -> None:
    found = json.loads(_run("plan", "latte", "--gpu", "a100-80gb", "--count", "8", "--json").stdout)
    assert _problems(found, SCHEMA) == []
    fastest = found["fastest"]
    arguments = ["plan", "latte", *fastest["overrides"], "--gpu", "a100-80gb", "--count", "8", "--json"]
    again = json.loads(_run(*arguments).stdout)
    assert again["time"]["step_seconds"] == fastest["step_seconds"]
    assert again["micro_batch"] == fastest["micro_batch"]
    clips = load_spec("latte", fastest["overrides"]).train.batch
    assert fastest["seconds_per_clip"]["likely"] == pytest.approx(fastest["step_seconds"]["likely"] / clips)
    assert fastest["time_factor"] < 1
    assert again["fastest"]["time_factor"] == pytest.approx(1)
    assert again["fastest"]["overrides"] == []


def test_attention_and_tf32_are_part_of_the_question() -> None:
    def plan(*options: str) -> dict[str, Any]:
        done = _run("plan", "opendit-video", "--gpu", "h100", "train.precision=fp32", *options, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    own, math, fast = plan(), plan("--attention", "math"), plan("--tf32")
    assert plan("train.tf32=true")["time"] == fast["time"]
    assert plan("--attention", "efficient")["memory"] == own["memory"]
    assert math["memory"]["allocated_bytes"]["likely"] > own["memory"]["allocated_bytes"]["likely"]
    assert fast["memory"] == own["memory"]
    assert fast["time"]["step_seconds"]["likely"] < own["time"]["step_seconds"]["likely"]
    flash = plan("--attention", "flash", "train.precision=bf16")
    assert any("attention kernel: flash" in text for text in flash["assumptions"])


def test_kernels_across_frames_and_of_norms_are_part_of_the_question() -> None:
    """Scores held in fp32, and norms written out in fp32: both take memory and time where they run."""

    def plan(*options: str) -> dict[str, Any]:
        spec = ("stdit", "temporal={kind: alternating}", "backbone.qk_norm=true", "export.precision=bf16")
        done = _run("plan", *spec, "--gpu", "h100", "--mode", "generate", *options, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def denoising(found: dict[str, Any]) -> float:
        return next(p["allocated_bytes"]["likely"] for p in found["phases"] if p["name"] == "denoise")

    own, same = plan(), plan("--temporal-attention", "flash", "--rms-norm", "fused")
    assert (denoising(same), same["time"]) == (denoising(own), own["time"])
    for options in (("--temporal-attention", "math"), ("--rms-norm", "composite")):
        other = plan(*options)
        assert denoising(other) > denoising(own)
        assert other["time"]["total_seconds"]["likely"] > own["time"]["total_seconds"]["likely"]
    told = plan("--temporal-attention", "math", "--rms-norm", "composite")["assumptions"][0]
    assert told.endswith("attention kernel: flash, math across frames; RMS norm written out")


@pytest.mark.parametrize(
    ("attention", "temporal", "rows"),
    [
        # 8 clips of 16 frames of 256 tokens: 128 sequences of 256; across frames 2,048 sequences of 16, rounded to 128.
        ("flash", None, 2048 * 128),
        ("flash", "math", 128 * 256),
        ("math", "flash", 2048 * 128),
        ("math", "efficient", 0),
    ],
)
def test_only_axes_with_flash_take_its_scratch(attention: Any, temporal: Any, rows: int) -> None:
    spec = load_spec("latte", ["train.precision=bf16", "train.batch=8", "parallel.shard=1"])
    job = planned_job(spec, find_device("h100"), Question(count=1, attention=attention, temporal_attention=temporal))
    terms = {term.name: term.bytes.likely for phase in make_plan(job).phases for term in phase.terms}
    assert terms.get("attention workspace", 0) == rows * 16 * 4 * (96 + 1)  # 16 heads of 72 channels, rounded to 96


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "latte", "--graph", "--setting", "temporal_attention=cpu"], "temporal_attention is one of flash"),
        (
            ["show", "latte", "--graph", "--setting", "attention=cpu", "--setting", "temporal_attention=math"],
            "the CPU has one kernel for all attention",
        ),
        (["plan", "latte", "--temporal-attention", "ring"], "--temporal-attention ring is none of flash, efficient"),
        (["plan", "latte", "--temporal-attention", "flash"], "--temporal-attention flash does not run here"),
        (["plan", "dit", "--temporal-attention", "math"], "dit-xl-2-256 has no attention across frames alone"),
        (["plan", "dit", "--rms-norm", "fast"], "--rms-norm fast is none of fused, composite"),
        (["plan", "tiny-dit", "--gpu", "cpu", "--rms-norm", "fused"], "PyTorch has no fused RMS norm for the CPU"),
        (["plan", "dit", "--attention", "ring"], "--attention ring is none of flash, efficient, math"),
        (["plan", "dit", "--attention", "flash"], "FlashAttention takes 16-bit types"),
        (["plan", "tiny-dit", "--gpu", "cpu", "--attention", "math"], "the CPU has attention kernels of its own"),
        (["plan", "dit", "--plot", "a.svg"], "--plot belongs to --sweep"),
        (["plan", "dit", "--over", "train.batch=8"], "--over belongs to --sweep"),
        (["plan", "tiny-dit", "--sweep", "--plot", "no/such/folder/a.svg"], "no/such/folder/a.svg cannot be written"),
        (["plan", "dit", "--solve", "wishes"], "--solve wishes is none of batch, frames, resolution, gpus"),
        (["plan", "dit", "--solve", "frames"], "its clip has no length to solve for"),
        (["plan", "latte", "--mode", "generate", "--solve", "gpus"], "generation runs on one device"),
    ],
)
def test_mistakes_in_options_are_told(arguments: list[str], message: str) -> None:
    done = _run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_sweep_draws_itself_beside_its_table(tmp_path: Path) -> None:
    path = tmp_path / "sweep.svg"
    done = _run(
        *("plan", "tiny-latte", "--sweep", "--gpu", "h100,cpu", "--over", "train.batch=8,16"), "--plot", str(path)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("gpu")
    assert path.read_text(encoding="utf-8").startswith("<svg ")


@pytest.mark.parametrize(
    ("field", "mode"),
    [
        *((field, mode) for field in ("batch", "frames", "resolution") for mode in ("train", "generate")),
        ("gpus", "train"),
    ],
)
def test_what_solve_prints_fits_when_it_is_typed(field: str, mode: str) -> None:
    base = ["plan", "opendit-video", "--gpu", "rtx4090", "--mode", mode]
    done = _run(*base, "--solve", field, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    options = [word for option in found["options"] for word in option.split()]
    again = _run(*base, *found["overrides"], *options, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["memory"]["device_bytes"] == found["device_bytes"]
    text = _run(*base, "--solve", field).stdout.splitlines()
    assert text[0] == f"{found['value']} (was {found['was']})"
    assert shlex.split(" ".join(text[2:])) == [*found["overrides"], *options]
