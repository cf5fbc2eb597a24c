"""Networks that attend to text, adaLN-single, and factorised blocks: the graph equals PyTorch's trace."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from sora_spec.builders.trace.compare import compare
from sora_spec.graph import Component, Setting, count, graph_from_spec
from sora_spec.language.loading import spec_from_values

TEXT = {"kind": "text", "encoder": "my-encoder", "tokens": 5, "width": 24}
CLASSES = {"kind": "class", "classes": 5}
SETTINGS = [
    Setting(batch=2, attention="flash", recompute="none"),
    Setting(batch=2, attention="flash", recompute="selective", rounding=512),
    Setting(batch=3, attention="efficient", recompute="blocks", precision="bf16"),
    Setting(batch=1, attention="math", recompute="none", precision="bf16"),
]


def values(temporal: str, conditioning: dict[str, Any], condition: dict[str, Any], **backbone: Any) -> dict[str, Any]:
    network = {"kind": "transformer", "depth": 5, "width": 32, "heads": 2, "learn_sigma": False}
    return {
        "version": 1,
        "name": "text",
        "clip": {"frames": 4, "height": 8, "width": 8},
        "vae": {"kind": "identity"},
        "patch": {"time": 1, "space": 2},
        "backbone": network | {"conditioning": conditioning} | backbone,
        "temporal": {"kind": temporal},
        "condition": condition,
        "objective": {"kind": "interpolant"},
        "sampler": {"kind": "euler"},
    }


TEMPORAL = ("none", "joint", "alternating", "factorized")
CONDITIONING: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"kind": "cross_attention"}, TEXT),
    ({"kind": "cross_attention", "modulation": "zero"}, TEXT),
    ({"kind": "adaln_single"}, CLASSES),
    ({"kind": "cross_attention", "norm": True, "qk_norm": True}, TEXT),
]


def cases() -> list[Any]:
    """Every combination; in the short suite each network under one setting, the next network under the next one."""
    found: list[Any] = []
    for place, (temporal, (conditioning, condition)) in enumerate(product(TEMPORAL, CONDITIONING)):
        for number in range(len(SETTINGS)):
            marks = () if place % len(SETTINGS) == number else pytest.mark.slow
            found.append(pytest.param(temporal, conditioning, condition, number, marks=marks))
    return found


@pytest.mark.parametrize(("temporal", "conditioning", "condition", "number"), cases())
def test_networks_with_text_equal_the_trace(
    temporal: str, conditioning: dict[str, Any], condition: dict[str, Any], number: int
) -> None:
    position = {"kind": ("rope", "sincos")[number % 2]}
    told = {"qk_norm_over": "width", "time_input": "noise_level"} if number in (1, 2) else {}
    given = values(temporal, conditioning, condition, position=position, qk_norm=number > 1, **told)
    spec = spec_from_values(given)
    components: tuple[Component, ...] = ("denoiser", "denoiser_step")
    for component in components:
        found = compare(spec, component, SETTINGS[number])
        assert found.divergence is None
        assert [row for row in found.rows if not row.equal] == []


def test_attention_to_text_has_the_flops_of_its_closed_form() -> None:
    # FlopCounterMode on a transformer like Wan2.1-1.3B at 480x832x81 counts 200.91 T in attention: 4·N²·D·L among the
    # tokens and 4·N·512·D·L to the text.
    changes = {"depth": 30, "width": 1536, "heads": 12, "mlp_ratio": 5.8334, "position": {"kind": "rope"}}
    given = values("joint", {"kind": "cross_attention"}, TEXT | {"tokens": 512, "width": 4096}, **changes)
    clip = {"frames": 81, "height": 480, "width": 832}
    given |= {"clip": clip, "vae": {"kind": "causal3d"}, "patch": {"time": 1, "space": 2}}
    found = count(graph_from_spec(spec_from_values(given), "denoiser"))
    attention, tokens = found.forward["attention"].flops, 21 * 30 * 52
    assert attention == 4 * tokens * 1536 * 30 * (tokens + 512)
    assert attention / 1e12 == pytest.approx(200.91, abs=0.005)
    assert found.forward_flops / 1e12 == pytest.approx(283.00, rel=1e-3)
    assert found.parameters == pytest.approx(1_418_996_800, rel=5e-4)
