"""Points of the curves, and columns of a comparison, against what the command prints for the same question."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from sora_spec.language.packaged import find_spec_file
from sora_spec.language.source import load_document
from sora_spec.plan.amounts import whole
from sora_spec.plan.axes.all_axes import FIELDS
from sora_spec.plan.axes.clip import MOST_POINTS, spread
from sora_spec.plan.job import Question
from sora_spec.plan.question import Answer, plan_of
from sora_spec.plan.show.contrast import contrast
from sora_spec.plan.show.curves import curve


def command(*arguments: str) -> Any:
    run = subprocess.run([sys.executable, "-m", "sora_spec", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stderr
    return json.loads(run.stdout)


def answer(name: str, question: Question | None = None) -> Answer:
    return plan_of(load_document(find_spec_file(name)), question or Question())


@pytest.mark.parametrize(
    ("spec", "knob", "argument"),
    [
        ("latte", "frames", "clip.frames={x}"),
        ("dit", "batch", "train.batch={all}"),
        ("dit", "gpus", "--count={x}"),
        ("latte", "resolution", "clip={{frames: 16, fps: 8, height: {x}, width: {x}}}"),
    ],
)
def test_a_point_is_what_the_command_prints(spec: str, knob: Any, argument: str) -> None:
    job = answer(spec).job
    assert job is not None
    points = list(curve(job, knob))
    assert [point.x for point in points] == sorted({point.x for point in points})
    assert sum(point.asked for point in points) == 1
    for point in (points[0], points[len(points) // 2]):
        given = argument.format(x=point.x, all=point.x * job.ranks * job.accumulation)
        printed = command("plan", spec, given, "--json")
        assert printed["memory"]["device_bytes"] == whole(point.memory_bytes)
        assert printed["time"]["total_seconds"] == point.total_seconds._asdict()


def test_generation_turns_its_batch_and_has_no_devices_to_turn() -> None:
    job = answer("latte", Question(mode="generate")).job
    assert job is not None
    points = {point.x: point for point in curve(job, "batch")}
    printed = command("plan", "latte", "--mode", "generate", "--batch", "2", "--json")
    assert printed["memory"]["device_bytes"] == whole(points[2].memory_bytes)
    assert list(curve(job, "gpus")) == []


def test_an_image_model_has_no_frames_to_turn() -> None:
    job = answer("dit").job
    assert job is not None
    assert list(curve(job, "frames")) == []
    assert all(len(list(curve(job, field))) > 3 for field in FIELDS if field != "frames")


def test_spreading_keeps_ends_and_the_one_asked_for() -> None:
    found = spread(range(1, 500), 123)
    assert (found[0], found[-1]) == (1, 499)
    assert 123 in found
    assert len(found) <= MOST_POINTS + 1
    assert spread([3, 5], 5) == [3, 5]


def test_columns_equal_the_commands_diff() -> None:
    before, after = answer("dit"), answer("sit")
    lines = contrast([before, after])
    printed = command("diff", "dit", "sit", "--json")
    assert {line.name: list(line.values) for line in lines if line.group == "cost"} == printed["costs"]
    differing = {line.name: list(line.values) for line in lines if line.group == "field" and line.differs}
    assert differing == printed["fields"]


def test_three_questions_side_by_side() -> None:
    found = [answer("dit"), answer("dit", Question(gpu="h100", overrides=(("train.batch", "512"),))), answer("latte")]
    lines = {line.name: line for line in contrast(found)}
    assert lines["train.batch"].values == ("256", "512", "40")
    assert lines["devices"].values == ("8 × a100-80gb", "8 × h100", "8 × a100-80gb")
    printed = command("plan", "dit", "train.batch=512", "--gpu", "h100", "--json")
    assert lines["device_bytes"].values[1] == printed["memory"]["device_bytes"]["likely"]
    assert lines["step_seconds"].values[1] == printed["time"]["step_seconds"]["likely"]
    assert not lines["mode"].differs
    assert "(× " in lines["device_bytes"].shown[1]


def test_a_question_without_an_answer_has_its_column() -> None:
    wrong = answer("dit", Question(overrides=(("backbone.heads", "7"),)))
    unshared = answer("dit", Question(count=3))
    lines = {line.name: line for line in contrast([answer("dit"), wrong, unshared])}
    assert lines["verdict"].values[1:] == ("no plan", "no plan")
    assert "heads" in str(lines["problem"].values[1])
    assert "cannot be shared" in str(lines["problem"].values[2])
    assert lines["device_bytes"].values[1:] == (None, None)
