"""What generation plans of the text encoder and of the sampler is what their graphs need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sora_spec.errors import UserError
from sora_spec.graph import count, graph_from_spec, memory
from sora_spec.language.loading import load_spec
from sora_spec.plan import find_device, make_plan
from sora_spec.plan.job import Job, Question, planned_job
from sora_spec.plan.planner import bare_phases
from sora_spec.plan.show.values import plan_values


def job_of(name: str, *overrides: str, batch: int | None = 2) -> Job:
    return planned_job(load_spec(name, overrides), find_device("rtx4090"), Question(mode="generate", batch=batch))


def phase_bytes(job: Job, phase: str, tag: str = "exact") -> float:
    found = next(p for p in bare_phases(job) if p.name == phase)
    return sum(term.bytes.likely for term in found.terms if term.tag == tag)


@pytest.mark.parametrize(
    "sampler",
    [
        "{kind: euler, steps: 9}",
        "{kind: heun, steps: 9, guidance: 2}",
        "{kind: dopri5, guidance: 2}",
        "{kind: euler_maruyama, steps: 9, guidance: 2}",
    ],
)
def test_the_denoising_phase_holds_what_a_step_of_the_sampler_holds(sampler: str) -> None:
    job = job_of("tiny-sit-digits", f"sampler={sampler}", "vae={kind: identity}", "clip.height=32", "clip.width=32")
    graph = graph_from_spec(job.spec, "sampler_step", job.setting("sampler_step", 2))
    held = memory(graph)
    assert phase_bytes(job, "denoise") == held.peak_bytes
    network = memory(graph_from_spec(job.spec, "denoiser", job.setting("denoiser", 4 if job.guided else 2)))
    assert held.peak_bytes > network.peak_bytes


def test_the_text_phase_holds_what_the_encoder_needs() -> None:
    job = job_of("opendit-video")
    graph = graph_from_spec(job.spec, "text_encode", job.setting("text_encode", 1, "bf16"))
    network = graph_from_spec(job.spec, "denoiser", job.setting("denoiser", 2))
    decoder = graph_from_spec(job.spec, "vae_decode", job.setting("vae_decode", 1))
    others = [memory(part) for part in (network, decoder)]
    stays = sum(part.parameter_bytes + part.buffer_bytes for part in others)
    assert phase_bytes(job, "text encode") == memory(graph).peak_bytes + stays
    values = plan_values(make_plan(job))["components"]["text_encoder"]
    assert values["parameters"] == 63_165_952
    once = graph_from_spec(job.spec, "text_encode", job.setting("text_encode", 1, "bf16"))
    assert values["forward_flops"] == count(once).forward_flops


def test_an_unknown_encoder_stays_unknown_with_its_reason() -> None:
    plan = make_plan(job_of("opendit-video", "condition.encoder=acme/words"))
    part = plan_values(plan)["components"]["text_encoder"]
    unknown = {"parameters": None, "forward_flops": None, "forward_macs": None}
    assert part == unknown | {"role": "encode text"}
    assert any("acme/words" in entry for entry in plan.not_counted)
    assert all(phase.name != "text encode" for phase in plan.phases)


def test_a_local_folder_is_read_and_read_again_when_it_changes(tmp_path: Path) -> None:
    config = {"model_type": "bert", "hidden_size": 512, "num_attention_heads": 8, "num_hidden_layers": 2}

    def parameters(layers: int) -> int:
        (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers, "note": "x" * layers}))
        job = job_of("opendit-video", f"condition.encoder={tmp_path}")
        return plan_values(make_plan(job))["components"]["text_encoder"]["parameters"]

    width, inner = 512, 3072
    block = 4 * (width * width + width) + 2 * width * inner + width + inner + 4 * width
    assert parameters(5) - parameters(2) == 3 * block


def test_a_prompt_longer_than_the_encoder_takes_is_refused() -> None:
    with pytest.raises(UserError, match="prompts of 77 tokens, and 120"):
        make_plan(job_of("opendit-video", "condition.tokens=120"))
