"""A broken rule is found at the op that it breaks, with the YAML value that the op comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from sora_spec.builders.trace.compare import Comparison, compare
from sora_spec.graph import Setting
from sora_spec.graph.eager.ops import pointwise
from sora_spec.graph.eager.tensor import Tensor
from sora_spec.graph.lower import blocks
from sora_spec.language.loading import load_spec

SPEC = Path(__file__).parents[2] / "specs" / "tiny-sit-digits.yaml"


def compared() -> Comparison:
    return compare(load_spec(SPEC, ["backbone.depth=2"]), "denoiser_step", Setting())


def test_an_activation_that_keeps_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful_gelu(x: Tensor) -> Tensor:
        return pointwise.neg(x)  # keeps nothing, and has another name

    monkeypatch.setattr(blocks, "gelu", forgetful_gelu)
    found = compared().divergence
    assert found is not None
    assert found.region == "backbone.blocks[0].mlp"
    assert found.yaml == ("backbone", "mlp_ratio")
    assert found.predicted.startswith("neg -> ")
    assert found.traced.startswith("gelu -> ")


def test_a_forgotten_copy_is_found_in_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    real = blocks.Attention.__call__

    def keeps_its_input(self: blocks.Attention, x: Tensor, rotation: blocks.Rotation | None) -> Tensor:
        result = real(self, x, rotation)
        result.name = "held"
        holders.append(x)
        return result

    holders: list[Tensor] = []
    monkeypatch.setattr(blocks.Attention, "__call__", keeps_its_input)
    comparison = compared()
    assert comparison.divergence is not None
    assert not comparison.equal
    assert "bytes alive" in comparison.divergence.predicted


def test_nothing_is_found_where_nothing_is_broken() -> None:
    assert compared().equal
