"""A value that a person gives wins or is refused: ranks, devices, clips, kernels; in a plan, a sweep and a what-if."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sora_spec.errors import UserError
from sora_spec.language.loading import load_spec
from sora_spec.language.packaged import find_spec_file
from sora_spec.language.source import load_document
from sora_spec.plan.axes.all_axes import AXES
from sora_spec.plan.devices.hardware import find_device
from sora_spec.plan.job import Question, planned_job
from sora_spec.plan.layout import laid_out, with_count
from sora_spec.plan.planner import make_plan
from sora_spec.plan.question import command_line, plan_of, question_from
from sora_spec.plan.search.sweep import parse_axes, sweep
from tests.plan.test_plan_command import _run

A100 = ["--gpu", "a100-80gb"]


def _laid(*arguments: str) -> tuple[int, int, int]:
    """Shard, sequence and replicate of the planned job, as the report says them."""
    done = _run("plan", *arguments, *A100, "--json")
    assert done.returncode in (0, 1), done.stderr
    line = next(text for text in json.loads(done.stdout)["assumptions"] if "shard" in text)
    words = line.replace(",", "").replace(";", "").split()
    shard, sequence, replicate = (int(words[words.index(w) + 1]) for w in ("shard", "sequence", "replicate"))
    assert json.loads(done.stdout)["count"] == shard * sequence * replicate
    return shard, sequence, replicate


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["dit"], (8, 1, 1)),  # the file says shard 8
        (["dit", "parallel.shard=1"], (1, 1, 1)),  # and the argument says 1: one process, as `train` runs it
        (["dit", "parallel={shard: 2}"], (2, 1, 1)),
        (["dit", "parallel.replicate=2"], (8, 1, 2)),
        (["dit", "--count", "4"], (4, 1, 1)),
        (["dit", "hardware.count=4"], (4, 1, 1)),
        (["dit", "parallel.shard=1", "--count", "8"], (1, 1, 8)),
        (["dit", "parallel.shard=2", "hardware.count=8"], (2, 1, 4)),
        (["dit", "parallel.replicate=4", "--count", "8"], (2, 1, 4)),
        (["dit", "parallel={shard: 1, replicate: 2}", "--count", "2"], (1, 1, 2)),
        (["latte", "parallel.sequence=2", "--count", "4"], (2, 2, 1)),
        (["dit", "train.batch=4", "--count", "1"], (1, 1, 1)),  # the file's 8 ranks do not share 4 clips, one does
        (["dit", "train.batch=4", "hardware.count=2"], (2, 1, 1)),
        (["dit", "train.batch=6", "train.accumulation=3", "--count", "2"], (2, 1, 1)),
        (["dit", "hardware.count=8", "--count", "8"], (8, 1, 1)),
    ],
)
def test_what_was_given_is_planned(arguments: list[str], wanted: tuple[int, int, int]) -> None:
    assert _laid(*arguments) == wanted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dit", "parallel.shard=3", "--count", "8"], "parallel.shard=3 does not make 8 ranks"),
        (["dit", "parallel.shard=16", "--count", "8"], "parallel.shard=16 does not make 8 ranks"),
        (["dit", "parallel={shard: 1, sequence: 1, replicate: 2}", "--count", "8"], "does not make 8 ranks"),
        (["dit", "hardware.count=4", "--count", "2"], "two numbers of devices"),
        (["dit", "hardware.gpu=h100", "--gpu", "rtx4090"], "name two devices"),
        (["dit", "train.batch=4", "--count", "8"], "a batch of 4 cannot be shared by 8 devices"),
        (["dit", "train.micro_batch=4", "--count", "8"], "train.micro_batch=4 × 8 ranks × accumulation 1 is 32"),
        (["tiny-causal3d", "--stage", "vae", "--count", "4"], "a batch of 2 cannot be shared by 4 devices"),
        (["dit", "--batch", "4"], "--batch is about generating"),
        (["dit", "--one-at-a-time"], "--one-at-a-time is about generating"),
        (["latte", "--mode", "generate", "--stage", "vae"], "--stage is about training"),
        (["dit", "--rms-norm", "composite"], "dit-xl-2-256 has no RMS norm"),
        (["tiny-causal3d", "--gpu", "h100", "--stage", "vae", "--rms-norm", "composite"], "the VAE has no RMS norm"),
        (["latte", "--stage", "vae", "--temporal-attention", "math"], "the VAE has no attention across frames"),
        (["dit", "--mode", "generate", "--one-at-a-time", "export.offload=false"], "and export.offload=false say two"),
        (["dit", *A100, "--tf32", "train.tf32=false"], "--tf32 and train.tf32=false say two things"),
        (["dit", "--sweep", *A100, "--count", "1,,2"], "--count 1,,2 has nothing between two commas"),
        (["dit", "--sweep", "--gpu", ","], "--gpu , has nothing between two commas"),
        (["dit", "--sweep", *A100, "--over", "train.batch=8,,16"], "train.batch 8,,16 has nothing between two commas"),
        (["dit", *A100, "--solve", "batch", "train.batch=8"], "train.batch is given, and --solve batch"),
        (["dit", *A100, "--solve", "batch", "train={batch: 8}"], "train.batch is given, and --solve batch"),
        (["dit", *A100, "--solve", "batch", "train.micro_batch=32"], "train.micro_batch is given, and --solve batch"),
        (["latte", "--stage", "vae", "--solve", "batch", "vae.training.batch=8"], "vae.training.batch is given"),
        (["dit", *A100, "--mode", "generate", "--batch", "4", "--solve", "batch"], "--batch is given, and --solve"),
        (["dit", *A100, "--count", "4", "--solve", "gpus"], "--count is given, and --solve gpus"),
        (["dit", *A100, "hardware.count=4", "--solve", "gpus"], "hardware.count is given, and --solve gpus"),
        (["latte", *A100, "clip.frames=8", "--solve", "frames"], "clip.frames is given, and --solve frames"),
        (["dit", *A100, "clip.height=64", "--solve", "resolution"], "clip.height is given, and --solve resolution"),
        (["dit", *A100, "clip.height=64", "clip.width=64", "--solve", "resolution"], "clip.height and clip.width are"),
        (["dit", "--gpu", "h100,h200"], "add --sweep"),
        (["dit", "--count", "1,8"], "add --sweep"),
        (["dit", "--format", "csv"], "--format belongs to --sweep"),
        (["dit", "--sweep", "--solve", "batch"], "two questions"),
        (["dit", "--check", "--solve", "batch"], "two questions"),
        (["dit", "--sweep", "--json", "--format", "csv"], "two forms"),
        (["dit", "--sweep", "--count", "1", "--over", "hardware.count=1,2,4"], "swept over hardware.count"),
        (["dit", "--sweep", "--gpu", "h100", "--over", "hardware.gpu=h100,h200"], "swept over hardware.gpu"),
        (["dit", "--sweep", "--gpu", "h100", "hardware.gpu=h200"], "both name devices"),
        (["dit", "--sweep", *A100, "train.batch=8", "--over", "train.batch=8,16"], "train.batch is given, and swept"),
        (["dit", "--sweep", *A100, "--over", "train.batch=8", "--over", "train.batch=16"], "swept at once"),
        (["dit", "--sweep", *A100, "--over", "parallel.shard=1", "--over", "parallel={shard: 2}"], "swept at once"),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments: list[str], message: str) -> None:
    done = _run("plan", *arguments)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "field", "was", "limit"),
    [
        (["dit", "--mode", "generate", "train.batch=8"], "batch", "8 clips at a time", None),  # of another job
        (["dit", "vae.training.batch=2"], "batch", "256 clips a step, 32 a pass", None),
        (["dit", "train.batch=64"], "resolution", "256x256", None),
        (["dit", "train.batch=64", "parallel.shard=4"], "gpus", "4 devices", None),
        (["latte", "export.frames=[16,24]"], "frames", "16 frames", 24),  # a range that was given is not widened
    ],
)
def test_what_was_given_beside_the_value_that_is_solved_for_stays(
    arguments: list[str], field: str, was: str, limit: int | None
) -> None:
    done = _run("plan", *arguments, "--gpu", "h200", "--solve", field, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["was"] == was
    assert not {text.partition("=")[0] for text in found["overrides"]} & {text.partition("=")[0] for text in arguments}
    assert limit is None or found["value"] == f"{limit} frames"
    assert (field == "resolution") <= (found["clip"]["height"] == found["clip"]["width"])


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        (["--over", "parallel.shard=1,2"], [("a100-80gb", 1), ("a100-80gb", 2)]),
        (["--over", "parallel.shard=1,2", "--count", "8"], [("a100-80gb", 8), ("a100-80gb", 8)]),
        (["--over", "hardware.count=1,2,4"], [("a100-80gb", 1), ("a100-80gb", 2), ("a100-80gb", 4)]),
        (["--over", "train.batch=8,8", "--count", "1,1"], [("a100-80gb", 1)]),
        (["hardware.count=2", "--over", "train.batch=4,8"], [("a100-80gb", 2), ("a100-80gb", 2)]),
        (["--mode", "generate", "--over", "sampler.steps=10,20"], [("a100-80gb", 1), ("a100-80gb", 1)]),
    ],
)
def test_rows_of_a_sweep_are_labelled_with_what_was_planned(arguments: list[str], rows: list[Any]) -> None:
    done = _run("plan", "dit", "--sweep", *A100, *arguments, "--json")
    found = json.loads(done.stdout)
    assert [(row["gpu"], row["count"]) for row in found] == rows
    document = load_document(find_spec_file("dit"))
    if "--count" in arguments and "parallel.shard" in arguments[1]:
        planned = sweep(document, Question(), ["a100-80gb"], [8], parse_axes([arguments[1]]))
        assert [row.plan.job.spec.parallel.shard for row in planned if row.plan] == [1, 2]


def test_a_sweep_over_devices_of_the_spec_and_over_one_that_was_typed() -> None:
    over = json.loads(_run("plan", "dit", "--sweep", "--over", "hardware.gpu=h100,rtx4090", "--json").stdout)
    assert [row["gpu"] for row in over] == ["h100", "rtx4090"]
    typed = json.loads(_run("plan", "dit", "hardware.gpu=h200", "--sweep", "--json").stdout)
    assert [row["gpu"] for row in typed] == ["h200"]


def test_a_sweep_of_generations_keeps_its_clips_and_placement() -> None:
    (row,) = json.loads(_run("plan", "dit", "--mode", "generate", "--batch", "3", "--sweep", *A100, "--json").stdout)
    alone = json.loads(_run("plan", "dit", "--mode", "generate", "--batch", "3", *A100, "--json").stdout)
    assert row["device_bytes"] == alone["memory"]["device_bytes"]
    placed = ["plan", "dit", "--mode", "generate", "--one-at-a-time", *A100, "--json"]
    (row,) = json.loads(_run(*placed, "--sweep").stdout)
    assert row["device_bytes"] == json.loads(_run(*placed).stdout)["memory"]["device_bytes"]


def test_a_generation_says_how_many_devices_it_computes() -> None:
    spec, device = load_spec("dit"), find_device("a100-80gb")
    one, eight = (make_plan(planned_job(spec, device, Question(count=count, mode="generate"))) for count in (None, 8))
    assert (one.job.count, eight.job.count) == (1, 8)
    assert eight.times.total_seconds == one.times.total_seconds  # side by side
    assert eight.times.gpu_hours.likely == pytest.approx(8 * one.times.gpu_hours.likely)
    assert one.times.cost is not None
    assert eight.times.cost is not None
    assert eight.times.cost.likely == pytest.approx(8 * one.times.cost.likely)


def test_specs_know_what_was_written() -> None:
    device = find_device("a100-80gb")
    assert planned_job(load_spec("tiny-dit", ["hardware.count=4"]), device).count == 4  # `parallel` says nothing
    assert planned_job(load_spec("tiny-dit", ["hardware.count=4", "parallel.shard=1"]), device).count == 1
    assert planned_job(load_spec("dit", ["parallel.shard=1"]), device).spec.parallel.shard == 1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 8, 12, 16])
@pytest.mark.parametrize("sides", [(8, 1, 1), (1, 1, 8), (2, 2, 2), (1, 3, 1), (4, 1, 3)])
def test_a_layout_makes_the_ranks_or_is_refused(count: int, sides: tuple[int, int, int]) -> None:
    """Whatever is typed stays, and the product is the number of ranks."""
    names = ("shard", "sequence", "replicate")
    parallel = load_spec("dit").parallel.model_copy(update=dict(zip(names, sides, strict=True)))
    for chosen in range(8):
        typed = [name for bit, name in enumerate(names) if chosen >> bit & 1]
        try:
            found = laid_out(parallel, count, [f"parallel.{name}" for name in typed])
        except UserError:
            product = 1
            for name in typed:
                product *= getattr(parallel, name)
            assert count % product or len(typed) > 1
            continue
        assert found["shard"] * found["sequence"] * found["replicate"] == count
        assert all(found[name] == getattr(parallel, name) for name in typed)


def test_what_if_answers_as_the_command_does() -> None:
    document = load_document(find_spec_file("dit"))
    for overrides, settings, wanted in [
        (["parallel.shard=1"], {}, (1, 1)),
        (["parallel.shard=1"], {"count": 8}, (8, 1)),
        (["train.batch=4"], {"count": 1}, (1, 1)),
        (["hardware.count=4"], {}, (4, 4)),
    ]:
        job = plan_of(document, question_from(overrides, gpu="a100-80gb", **settings)).job
        assert job is not None
        assert (job.count, job.spec.parallel.shard) == wanted
    refused = plan_of(document, question_from(["hardware.count=4"], count=2))
    assert "two numbers of devices" in refused.problem


def test_what_if_knows_the_kernels_of_the_command() -> None:
    document = load_document(find_spec_file("latte"))
    asked = Question(gpu="h100", temporal_attention="math", attention="efficient")
    line = command_line("latte", asked).split()
    assert line[line.index("--temporal-attention") + 1] == "math"
    done = _run(*line[1:], "--json")
    answer = plan_of(document, asked)
    assert answer.plan is not None
    assert json.loads(done.stdout)["memory"]["device_bytes"]["likely"] == round(answer.plan.needed.likely)
    plain = plan_of(document, Question(gpu="h100", attention="efficient"))
    assert plain.plan is not None
    assert plain.plan.needed != answer.plan.needed
    assert "--rms-norm composite" in command_line("x", Question(rms_norm="composite"))


def test_two_specs_are_compared_on_the_devices_that_they_name() -> None:
    found = json.loads(_run("diff", "dit", "hardware.gpu=h100", "--json").stdout)
    assert found["gpus"] == ["a100-80gb", "h100"]
    assert found["costs"]["step_seconds"][0] > found["costs"]["step_seconds"][1]
    counted = json.loads(_run("diff", "dit", "hardware.count=1", "--json").stdout)
    assert counted["costs"]["step_seconds"][1] > 4 * counted["costs"]["step_seconds"][0]


def test_advice_can_be_followed_where_devices_were_typed(tmp_path: Path) -> None:
    """The number of devices is said where it was said before, so that the fix's line is no contradiction."""
    typed = ["plan", "dit", "hardware.count=1", "train.recompute={kind: blocks}", "--gpu", "rtx4090", "clip.height=512"]
    found = json.loads(_run(*typed, "clip.width=512", "--json").stdout)
    assert found["fixes"]
    for fix in found["fixes"]:
        again = _run(*typed, "clip.width=512", *fix["overrides"], *(word for o in fix["options"] for word in o.split()))
        assert again.returncode == 0, again.stderr or again.stdout
    spec = load_spec("dit")
    assert with_count(spec, 8) is spec


def test_every_kernel_has_a_knob_that_asks_what_the_command_asks() -> None:
    document = load_document(find_spec_file("tiny-causal3d"))  # attention across frames, and norms of queries and keys
    asked = Question(gpu="h100")
    job = plan_of(document, asked).job
    assert job is not None
    seen = set[str]()
    for key in ("attention", "temporal_attention", "rms_norm"):
        assert AXES[key].applies(job)
        for change in list(AXES[key].settings(job).values())[1:]:
            turned = change.asked(asked, job)
            answer = plan_of(document, turned)
            assert answer.plan is not None, answer.problem
            line = command_line("tiny-causal3d", turned).split()
            done = json.loads(_run(*line[1:], "--json").stdout)
            assert done["memory"]["device_bytes"]["likely"] == round(answer.plan.needed.likely)
            seen.add(line[-2])
    assert seen == {"--attention", "--temporal-attention", "--rms-norm"}
    for overrides, gone in ((["temporal.kind=joint"], "temporal_attention"), (["backbone.qk_norm=false"], "rms_norm")):
        without = plan_of(document, question_from(overrides, gpu="h100")).job
        assert without is not None
        assert not AXES[gone].applies(without)


@pytest.mark.parametrize(
    ("key", "path", "way"), [("placement", "export.offload", {"mode": "generate"}), ("tf32", "train.tf32", {})]
)
@pytest.mark.parametrize("overrides", [[], ["{path}=true"], ["{path}=false"]])
def test_a_knob_that_is_said_twice_shows_what_runs_and_turns_it(
    key: str, path: str, way: dict[str, str], overrides: list[str]
) -> None:
    document = load_document(find_spec_file("latte"))
    asked = question_from([text.format(path=path) for text in (*overrides, "train.precision=fp32")], gpu="h100", **way)
    job = plan_of(document, asked).job
    assert job is not None
    given = {"[]": key == "tf32", "['{path}=true']": True, "['{path}=false']": False}[str(overrides)]
    assert AXES[key].own(job) is given
    for change, on in zip(AXES[key].settings(job).values(), (False, True), strict=True):
        turned = plan_of(document, change.asked(asked, job))
        assert turned.job is not None, turned.problem
        assert AXES[key].own(turned.job) is on
