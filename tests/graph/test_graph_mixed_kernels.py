"""One attention kernel across space and another across frames, against the trace."""

from __future__ import annotations

from typing import Any

import pytest

from sora_spec.builders.trace.compare import compare
from sora_spec.graph import Setting, graph_from_spec
from sora_spec.language.loading import load_spec

SMALL = ["backbone.depth=4", "backbone.width=32", "backbone.heads=2", "backbone.qk_norm=true"]
NETWORKS = {
    "alternating": ["temporal={kind: alternating}"],
    "factorized": [
        "temporal={kind: factorized}",
        "backbone.conditioning={kind: cross_attention, modulation: single}",
        "condition={kind: text, encoder: google/t5-v1_1-small, tokens: 8, width: 512}",
    ],
}

RUNS = {
    "flash": "_scaled_dot_product_flash_attention",
    "efficient": "_scaled_dot_product_efficient_attention",
    "math": "_safe_softmax",
}


@pytest.mark.parametrize("component", ["denoiser", "denoiser_step"])
@pytest.mark.parametrize("kernels", [("flash", "math"), ("math", "efficient"), ("flash", "efficient")], ids="-".join)
@pytest.mark.parametrize("network", NETWORKS)
def test_kernels_may_differ_across_frames(network: str, kernels: tuple[Any, Any], component: Any) -> None:
    spec = load_spec("tiny-latte", [*SMALL, *NETWORKS[network]])
    setting = Setting(2, "bf16", kernels[0], temporal_attention=kernels[1])
    found = compare(spec, component, setting)
    assert found.divergence is None
    assert [row for row in found.rows if not row.equal] == []
    names = {op.name for op in graph_from_spec(spec, component, setting).ops}
    assert names >= {RUNS[kernel] for kernel in kernels}
