"""The program and its plan follow the same rules: the program is run, and what it did is compared with the plan."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
import pytest

from sora_spec.builders.diffusion.noise import NoiseStream
from sora_spec.builders.diffusion.samplers import NUMPY, Condition, count_steps, evaluations, sample
from sora_spec.compile.bundle.contract import engine_profile
from sora_spec.compile.run import decoding, pipeline
from sora_spec.compile.run.decoding import OnePass, ignore
from sora_spec.errors import UserError
from sora_spec.language.abilities import buildable
from sora_spec.language.facts import SAMPLERS
from sora_spec.language.loading import load_spec
from sora_spec.language.packaged import packaged_names
from sora_spec.language.shapes import derive_shapes
from sora_spec.plan.devices.hardware import find_device
from sora_spec.plan.interval import total
from sora_spec.plan.job import Question, planned_job
from sora_spec.plan.memory.generate_phases import decode_calls
from sora_spec.plan.planner import make_plan
from sora_spec.plan.show.breakdown import TITLES
from sora_spec.plan.time.sampling import sampler_calls
from tests.plan.test_plan_command import _run


class Counting:
    """A network that says little and counts how often it is called, and for how many clips."""

    def __init__(self, out_channels: int) -> None:
        self.out_channels = out_channels
        self.batches: list[int] = []

    def __call__(self, latents: Any, time: Any, labels: Any) -> Any:
        self.batches.append(len(latents))
        return np.zeros((len(latents), self.out_channels, *latents.shape[2:]), np.float32)


def _calls(arguments: list[str]) -> tuple[Counting, Any]:
    """Calls that the real sampler makes."""
    spec = load_spec("tiny-sit-digits", arguments)
    shapes = derive_shapes(spec)
    network = Counting(shapes.out_channels)
    noise = NoiseStream(0, [0, 1], shapes.latent)
    labels = np.zeros(2, np.int64)
    sample(spec, network, noise.draw(), Condition(labels), noise.draw, NUMPY)
    return network, spec


INTERPOLANTS = [
    [f"objective={{kind: interpolant, path: {path}, prediction: {prediction}}}", f"sampler={{{sampler}}}"]
    for path, prediction, sampler in [
        *product(
            ("linear", "vp"),
            ("velocity", "score", "noise"),
            (
                "kind: euler, steps: 3",
                "kind: heun, steps: 3",
                *(
                    f"kind: euler_maruyama, steps: 3, last_step: {last}, last_step_size: {size}"
                    for last, size in product(("mean", "tweedie", "euler", "none"), ("0.04", "0.0"))
                ),
            ),
        ),
        ("gvp", "score", "kind: euler_maruyama, steps: 10, last_step: tweedie, last_step_size: 0"),
        ("linear", "velocity", "kind: heun, steps: 2, guidance: 3.0"),
        ("linear", "score", "kind: euler_maruyama, steps: 2, last_step: tweedie, last_step_size: 0, guidance: 0.0"),
    ]
]
DISCRETE = [
    [f"objective={{kind: ddpm, steps: 100, variance: fixed_small, prediction: {prediction}}}", f"sampler={{{sampler}}}"]
    for prediction, sampler in product(
        ("noise", "velocity"),
        (
            "kind: ddpm, steps: 1",
            "kind: ddpm, steps: 7",
            "kind: ddim, steps: 5",
            "kind: ddim, steps: 5, eta: 1.0",
            "kind: ddim, steps: 4, guidance: 2.0",
            "kind: ddim, steps: 10, spacing: stride",
            "kind: ddpm, steps: 25, spacing: stride",
        ),
    )
]


def _ends_in_an_infinite_score(objective: str, sampler: str) -> bool:
    """Whether the last step has length 0 and needs a score that follows from a velocity or a noise."""
    if "last_step_size: 0.0}" not in sampler or "last_step: none" in sampler or "prediction: score" in objective:
        return False
    return not ("prediction: velocity" in objective and "last_step: euler" in sampler)


@pytest.mark.parametrize("arguments", [*INTERPOLANTS, *DISCRETE], ids=" ".join)
def test_the_sampler_calls_the_network_as_often_as_planned(arguments: list[str]) -> None:
    if _ends_in_an_infinite_score(*arguments):  # there is neither a program nor a plan
        with pytest.raises(UserError, match="E328"):
            _calls(arguments)
        return
    network, spec = _calls(arguments)
    planned = sampler_calls(spec)
    assert planned.low == planned.likely == planned.high == len(network.batches) == count_steps(spec)
    device = find_device("h100")
    job = planned_job(spec, device, Question(mode="generate"))
    assert set(network.batches) == {4 if job.guided else 2}
    assert evaluations(spec) == len(network.batches) * (2 if job.guided else 1)


def test_a_score_that_ends_before_the_data_takes_the_last_step_that_the_plan_counts() -> None:
    wanted = {("score", 0): 11, ("score", 0.04): 11, ("velocity", 0.04): 11}
    for (prediction, size), calls in wanted.items():
        sampler = f"sampler={{kind: euler_maruyama, steps: 10, last_step: tweedie, last_step_size: {size}}}"
        network, spec = _calls([f"objective.prediction={prediction}", sampler])
        assert len(network.batches) == calls == sampler_calls(spec).likely


class Decoder:
    """A decoder that makes nothing and notes the frames that it gets."""

    def __init__(self) -> None:
        self.frames: list[int] = []

    def run(self, inputs: Any) -> Any:
        batch, _, frames, rows, columns = inputs["latents"].shape
        self.frames.append(frames)
        return {"video": np.zeros((batch, 3, frames, 8 * rows, 8 * columns), np.float32)}


def never(shape: Any) -> Any:
    raise AssertionError("a pass draws no noise")


@pytest.mark.parametrize(
    ("frames", "patch", "asked", "pieces"),
    [
        (16, 1, 16, [16]),
        (16, 1, 6, [6, 6, 4]),
        (12, 4, 6, [4, 4, 4]),
        (8, 4, 3, [4, 4]),
        (8, 4, 1, [4, 4]),
        (8, 2, 7, [6, 2]),
        (8, 2, 64, [8]),
        (1, 1, 16, [1]),
    ],
)
def test_a_clip_is_decoded_in_the_planned_pieces(frames: int, patch: int, asked: int, pieces: list[int]) -> None:
    changes = [f"clip.frames={frames}", f"patch.time={patch}", f"export.decode_frames={asked}", "export.frames=null"]
    changes += ["temporal.kind=joint"] if frames > 1 else ["temporal.kind=none"]
    spec = load_spec("opendit-video", [*changes, "clip.height=64", "clip.width=64"])
    decoder: Any = Decoder()
    shape = (1, *derive_shapes(spec).latent)
    OnePass(spec, decoder).decode(np.zeros(shape, np.float32), never, ignore)
    assert decoder.frames == pieces
    assert OnePass(spec, decoder).calls == len(pieces)
    job = planned_job(spec, find_device("h100"), Question(mode="generate", batch=1))
    assert decode_calls(job) == pytest.approx(frames / pieces[0])
    plan = make_plan(job)
    same = load_spec(
        "opendit-video", [*changes, "clip.height=64", "clip.width=64", f"export.decode_frames={pieces[0]}"]
    )
    assert plan.phases == make_plan(planned_job(same, find_device("h100"), Question(mode="generate", batch=1))).phases
    assert engine_profile(spec, "vae_decoder").opt["latents"][2] == pieces[0]


def test_planner_and_programs_import_the_same_rules() -> None:
    from sora_spec.builders.backbones import transformer
    from sora_spec.builders.diffusion import guidance, samplers
    from sora_spec.compile.bundle import contract
    from sora_spec.graph import component
    from sora_spec.graph.lower import transformer as lowered
    from sora_spec.plan import job
    from sora_spec.plan.memory import generate_phases, train_phases
    from sora_spec.plan.time import sampling as planned
    from sora_spec.train import ranks, recompute
    from sora_spec.train.stages import denoiser as denoiser_stage
    from sora_spec.train.stages import vae as vae_stage

    assert samplers.network_calls is planned.network_calls
    assert samplers.is_guided is guidance.is_guided is job.is_guided
    assert pipeline.default_batch is job.default_batch
    assert decoding.frames_per_decode is generate_phases.frames_per_decode is contract.frames_per_decode
    assert transformer.longest_clip is lowered.longest_clip is contract.longest_clip
    assert recompute.recomputed_blocks is component.recomputed_blocks
    assert ranks.uses_fsdp is job.uses_fsdp
    assert denoiser_stage.SHOWN_SAMPLES is train_phases.SHOWN_SAMPLES
    assert vae_stage.SHOWN_RECONSTRUCTIONS is train_phases.SHOWN_RECONSTRUCTIONS


def test_every_kind_that_can_be_built_has_a_builder() -> None:
    from sora_spec.builders.backbones.temporal import TEMPORAL
    from sora_spec.builders.diffusion.ode import ODE
    from sora_spec.builders.vae.from_spec import VAES

    assert list(VAES) == buildable("vae")
    assert list(TEMPORAL) == buildable("temporal")
    assert set(SAMPLERS) == set(buildable("sampler")) == {*ODE, "ddpm", "ddim", "euler_maruyama"}


BAR_OF_TREE = {"VAE": "VAE", "text": "text encoder", "messages": "messages", "machine": "other"}


@pytest.mark.parametrize("name", packaged_names())
def test_tree_and_bar_count_a_term_in_the_same_part(name: str) -> None:
    spec, device = load_spec(name, ["train.precision=bf16"]), find_device("h100")
    stages = [("train", "denoiser"), ("generate", "denoiser")]
    stages += [("train", "vae")] if spec.vae.kind != "identity" else []
    for mode, stage in stages:
        job = planned_job(spec, device, Question(mode=mode, stage=stage))  # pyright: ignore[reportArgumentType]
        for phase in make_plan(job).phases:
            for group, stretch in BAR_OF_TREE.items():
                tree = total(term.bytes for term in phase.terms if term.meaning.group == group)
                bar = total(term.bytes for term in phase.terms if term.meaning.stretch.title == stretch)
                assert tree == bar, (phase.name, TITLES[group])


def _plan(*arguments: str) -> dict[str, Any]:
    return json.loads(_run("plan", *arguments, "--json").stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        ["sora-480p", "--stage", "vae", "vae.training={}"],
        ["sora-480p", "--stage", "vae", "--count", "1"],
        ["stdit", "--stage", "vae", "vae.training={}"],
        ["latte", "--stage", "vae", "--count", "1"],
    ],
)  # fmt: skip
def test_a_vae_that_does_not_fit_has_a_way_out(arguments: list[str]) -> None:
    found = _plan(*arguments)
    assert not found["fits"]
    assert any(any("vae.training." in text for text in fix["overrides"]) for fix in found["fixes"])
    for fix in found["fixes"]:
        options = [word for text in fix["options"] for word in text.split()]
        again = _run("plan", *arguments, *fix["overrides"], *options, "--check")
        assert f" {fix['device_bytes']['likely'] / 2**30:.1f} GiB of" in again.stdout
        assert again.returncode == 0, fix


@pytest.mark.parametrize("name", packaged_names())
def test_the_vae_of_every_packaged_spec_can_be_trained_where_the_spec_says(name: str) -> None:
    if load_spec(name).vae.kind != "identity":
        assert _run("plan", name, "--stage", "vae", "--check").returncode == 0


def test_measuring_the_latents_is_planned_in_the_pieces_that_the_vae_works_in() -> None:
    def end(*arguments: str) -> int:
        phases = _plan("sora-480p", "--stage", "vae", *arguments)["phases"]
        return next(phase for phase in phases if phase["name"] == "at the end: latents")["allocated_bytes"]["likely"]

    assert end() < 8 * 2**30  # 81 frames of 480x832, one latent frame at a time
    assert end("vae.streaming=false") > 4 * end()


@pytest.mark.parametrize(
    ("arguments", "field", "words"),
    [
        (["sora-480p", "--mode", "generate", "--gpu", "rtx3090", "vae.streaming=false"], "batch", "(decode)"),
        (["sora-480p", "--mode", "generate", "--gpu", "rtx3090", "vae.streaming=false", "export.batch=[4,4]"], "batch",
         "1 clip at a time"),
        (["dit", "--gpu", "rtx4090", "--count", "1", "clip.height=2048", "clip.width=2048"], "batch", "1 clip a step"),
        (["sora-480p", "--stage", "vae", "vae.training={}"], "batch", "8 clips a step, 1 a pass"),
        (["sora-480p", "--stage", "vae", "vae.training={}"], "gpus", "8 devices"),
    ],
)  # fmt: skip
def test_where_no_value_fits_the_reason_and_the_fixes_are_told(arguments: list[str], field: str, words: str) -> None:
    done = _run("plan", *arguments, "--solve", field, "--json")
    assert done.returncode == 1
    values = json.loads(done.stdout)
    assert values["value"] is None
    assert values["reason"].startswith(f"no value of {field} makes it fit: even ")
    assert words in values["reason"]
    assert values["fixes"]


def test_a_report_without_a_solution_names_the_fixes_of_the_plan() -> None:
    arguments = ["sora-480p", "--mode", "generate", "--gpu", "rtx3090", "vae.streaming=false"]
    text = _run("plan", *arguments, "--solve", "batch").stdout
    assert text.startswith("no value of batch makes it fit: even 1 clip at a time needs ")
    planned = _run("plan", *arguments).stdout
    fixes = planned[planned.index("what would make it fit") : planned.index("\n\nassumed")]
    assert fixes in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "memory of the host"),
        (["parallel.offload=true"], "memory of the host for anything but weights, gradients, moments and average"),
        (["train.ema_device=cpu"], "memory of the host for anything but the average"),
        (["train.ema_device=cpu", "train.ema=0"], "memory of the host"),
    ],
)
def test_what_is_counted_is_not_said_to_be_left_out(arguments: list[str], words: str) -> None:
    found = _plan("dit", *arguments)
    assert words in found["not_counted"]
    assert (found["memory"]["host_bytes"]["likely"] > 0) == (words != "memory of the host")
