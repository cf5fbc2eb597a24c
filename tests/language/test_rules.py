"""Rules that cross sections at their edges: what is just allowed, what is just refused, and what is skipped."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from sora_spec.language.diagnostics import Diagnostic
from sora_spec.language.loading import check
from sora_spec.language.source import parse_document
from sora_spec.language.span import Text

SPEC: dict[str, Any] = {
    "version": 1,
    "name": "rules",
    "clip": {"frames": 16, "height": 64, "width": 64},
    "vae": {"kind": "image_kl"},
    "patch": {"time": 1, "space": 2},
    "backbone": {"kind": "transformer", "depth": 2, "width": 64, "heads": 4},
    "temporal": {"kind": "joint"},
    "condition": {"kind": "class", "classes": 10},
    "objective": {"kind": "interpolant"},
    "sampler": {"kind": "heun"},
}
CAUSAL = {"vae": {"kind": "causal3d"}, "clip.frames": 17}
DDPM = {"objective": {"kind": "ddpm"}, "sampler": {"kind": "ddpm"}}
IDENTITY = {"vae": {"kind": "identity"}}


def problems_with(changes: dict[str, Any]) -> list[Diagnostic]:
    values = copy.deepcopy(SPEC)
    for path, value in changes.items():
        section = values
        *above, last = path.split(".")
        for key in above:
            section = section.setdefault(key, {})
        section[last] = copy.deepcopy(value)
    return check(parse_document(Text("rules", json.dumps(values)))).diagnostics


def codes_with(changes: dict[str, Any]) -> list[str]:
    """Codes but W401, which `test_abilities` is about."""
    return [problem.code for problem in problems_with(changes) if problem.code != "W401"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        CAUSAL,
        CAUSAL | {"clip.frames": 1, "temporal.kind": "none"},
        CAUSAL | {"clip.frames": 5, "export": {"frames": [1, 97]}},
        CAUSAL | {"vae.compression": {"time": 8, "space": 8}},
        CAUSAL | {"vae.compression": {"time": 1, "space": 1}, "vae.multipliers": [1]},
        CAUSAL | {"vae.training": {"frames": 9, "crop": 64, "warmup": 10_000, "steps": 10_000}},
        IDENTITY,
        IDENTITY | {"vae.compression": {"time": 1, "space": 1}},
        {"patch": {"time": 16, "space": 8}},
        {"backbone.position": {"kind": "rope"}, "backbone.heads": 4},
        {"backbone.position": {"kind": "rope", "axes": [4, 6, 6]}},
        {"backbone.position": {"kind": "none"}, "backbone.width": 62, "backbone.heads": 2},
        {"parallel": {"sequence": 4}},
        {"train": {"batch": 12, "micro_batch": 3, "accumulation": 2}, "parallel": {"shard": 2}},
        {"train": {"warmup": 100, "steps": 100}},
        {"condition": {"kind": "text", "encoder": "/models/my-t5", "pooled": True, "width": 33}},
        {"condition": {"kind": "text", "encoder": "st/all-MiniLM-L6-v2/", "pooled": True, "width": 384}},
        {"condition.dropout": 0.0},
        {"sampler": {"kind": "heun", "guidance": 0.0}},
        {"sampler": {"kind": "heun", "guidance": 3.0, "guidance_channels": 4}},
        DDPM,
        DDPM | {"sampler": {"kind": "ddim", "steps": 1000}},
        DDPM | {"sampler": {"kind": "ddim", "steps": 63, "spacing": "stride"}},
        DDPM | {"objective": {"kind": "ddpm", "steps": 21}, "sampler": {"kind": "ddpm", "steps": 5}},
        DDPM | {"objective": {"kind": "ddpm", "steps": 9, "beta_end": 0.5}, "sampler": {"kind": "ddpm", "steps": 5}},
        DDPM | {"objective": {"kind": "ddpm", "prediction": "velocity", "zero_terminal_snr": True}},
        DDPM | {"objective": {"kind": "ddpm", "schedule": "cosine", "beta_start": 0.5}},
        DDPM | {"objective": {"kind": "ddpm", "variance": "fixed_large"}, "backbone.learn_sigma": False},
        {"sampler": {"kind": "euler_maruyama"}},
        {"sampler": {"kind": "euler_maruyama", "diffusion": "sbdm"}, "objective.prediction": "score"},
        {"sampler": {"kind": "euler_maruyama", "diffusion": "sbdm"}, "objective.path": "vp"},
        {"sampler": {"kind": "euler_maruyama", "last_step": "none", "last_step_size": 0.0}},
        {"sampler": {"kind": "euler_maruyama", "last_step": "euler", "last_step_size": 0}},
        {"objective": {"kind": "interpolant", "prediction": "noise", "weighting": "likelihood"}},
    ],
)  # fmt: skip
def test_what_is_allowed(changes: dict[str, Any]) -> None:
    assert codes_with(changes) == []


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        (CAUSAL | {"clip.frames": 16}, ["E301"]),
        (CAUSAL | {"vae.compression": {"time": 8, "space": 4}, "vae.multipliers": [1, 1, 1]}, ["E309"]),
        (CAUSAL | {"vae.training": {"frames": 8}}, ["E311"]),
        (CAUSAL | {"export": {"frames": [2, 33]}}, ["E324"]),
        ({"patch": {"time": 2, "space": 2}, "export": {"frames": [15, 16]}}, ["E324"]),
        ({"clip.height": 72, "clip.width": 24}, ["E302", "E302"]),
        (IDENTITY | {"vae.compression": {"time": 2, "space": 1}}, ["E309"]),
        ({"backbone.position": {"kind": "rope"}, "backbone.heads": 16}, ["E305"]),
        ({"backbone.position": {"kind": "rope", "axes": [6, 6, 6]}}, ["E305"]),
        ({"backbone.mlp_ratio": 0.001}, ["E327"]),
        ({"vae.width": 65536, "vae.multipliers": [4096] * 4}, ["E327"]),
        ({"export": {"frames": [1, 99_999]}, "clip": {"frames": 1, "height": 9600, "width": 9600}}, ["W301", "E327"]),
        ({"parallel": {"sequence": 3}, "train": {"batch": 9}}, ["E308", "E308"]),
        ({"backbone.conditioning": {"kind": "cross_attention"},
          "condition": {"kind": "text", "encoder": "a", "pooled": True}}, ["E312"]),
        ({"backbone.conditioning": {"kind": "cross_attention"},
          "condition": {"kind": "text", "encoder": "a"}}, []),
        (DDPM | {"sampler": {"kind": "dopri5"}}, ["E313"]),
        ({"sampler": {"kind": "ddpm"}}, ["E313"]),
        (DDPM | {"sampler": {"kind": "ddim", "steps": 61, "spacing": "stride"}}, ["E318"]),
        (DDPM | {"sampler": {"kind": "ddpm", "steps": 1, "spacing": "stride"}}, ["E318"]),
        (DDPM | {"objective": {"kind": "ddpm", "steps": 20}, "sampler": {"kind": "ddpm", "steps": 5}}, ["E319"]),
        (DDPM | {"objective": {"kind": "ddpm", "beta_start": 0.03}}, ["E319"]),
        ({"train": {"clip_grad_from": 5}}, ["W302"]),
        ({"clip.frames": 1, "temporal.kind": "none", "train": {"short": "loop", "stills": "repeat", "crop": "center"}},
         ["W302", "W302"]),
        ({"train": {"short": "loop", "stills": "repeat"}}, []),
        ({"condition": {"kind": "text", "encoder": "a", "pooled": True, "masked": True, "no_prompt": "table"}},
         ["W302", "W302"]),
        ({"clip.frames": 4, "temporal": {"kind": "factorized", "frame_positions": "first_attention"},
          "backbone.position": {"kind": "rope"}, "backbone.heads": 4}, ["W302"]),
        ({"sampler": {"kind": "heun", "guidance": 0.5}, "condition.dropout": 0}, ["E320"]),
        ({"sampler": {"kind": "euler_maruyama", "diffusion": "sbdm"}, "objective.path": "gvp"}, ["E316"]),
        ({"objective": {"kind": "interpolant", "prediction": "noise"},
          "sampler": {"kind": "euler_maruyama", "last_step": "euler", "last_step_size": 0.0}}, ["E328"]),
        ({"vae.training": {"warmup": 11, "steps": 10}, "train": {"warmup": 11, "steps": 10}}, ["E323", "E323"]),
        ({"temporal.kind": "inserted"}, ["E404"]),
    ],
)  # fmt: skip
def test_what_is_refused(changes: dict[str, Any], codes: list[str]) -> None:
    assert sorted(codes_with(changes)) == sorted(codes)


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"clip.frames": "many", "clip.height": 65}, ["E203", "E302"]),
        ({"patch": 3, "backbone.heads": 5}, ["E203", "E304"]),
        ({"vae": {"kind": "nope"}, "backbone.width": 66, "backbone.heads": 6}, ["E205", "E306"]),
        ({"backbone.width": -4, "sampler": {"kind": "ddim"}}, ["E204", "E313"]),
        ({"condition": None, "sampler": {"kind": "heun", "guidance": 3.0}}, ["E203"]),
        ({"train": {"batch": 0}, "parallel": {"shard": 3}}, ["E204"]),
    ],
)
def test_broken_values_silence_only_the_rules_that_read_them(changes: dict[str, Any], codes: list[str]) -> None:
    assert sorted(codes_with(changes)) == codes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (CAUSAL | {"clip.frames": 80}, "Use 77 or 81 frames."),
        (CAUSAL | {"clip.frames": 3}, "Use 1 or 5 frames."),
        (CAUSAL | {"clip.frames": 80, "patch.time": 2}, "Use 77 or 85 frames."),
        ({"clip.height": 480, "clip.width": 854}, "Use a width of 848 or 864."),
        ({"clip.height": 7}, "Use a height of 16."),
        ({"backbone.heads": 5}, "Use 4 or 8 heads, or a width of 60 or 65."),
        (DDPM | {"sampler": {"kind": "heun"}}, "Samplers of `ddpm`: `ddpm`, `ddim`."),
        ({"vae.groups": 100}, "Use `groups: 64`, or a width that is a multiple of 100."),
        ({"train": {"batch": 10}, "parallel": {"shard": 4}}, "Use a batch of 8 or 12."),
    ],
)
def test_help_mends_it(changes: dict[str, Any], words: str) -> None:
    [problem] = problems_with(changes)
    assert problem.help == words


def test_a_default_is_reported_at_the_section_that_leaves_it_out() -> None:
    [problem] = problems_with(DDPM | {"objective": {"kind": "ddpm", "steps": 100}})
    assert problem.code == "E318"
    assert problem.label == "250 steps (by default)"
    assert problem.span is not None
    assert problem.span.source() == '"sampler"'
    assert [note.label for note in problem.notes] == ["100 steps"]
