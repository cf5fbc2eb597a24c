"""A recording of the real module equals the lowered graph: every op, every storage's life, at any batch.

FRAME_POSITIONS: Latte's table over frames is added before the first temporal block; the lowering counts that with the
block, the module does it outside. No other op lies in another block.

ORDER: the moving average copies a module's buffers in the module's order, the lowering in that of their use.

SELECTIVE: selective recomputation runs blocks under a dispatch mode of its own, so that a bias is not added in place;
the lowering adds it in place unless a trace watches. Both are compared as watched.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, seed, settings

from sora_spec.graph import Component, Setting
from sora_spec.language.loading import load_spec
from sora_spec.language.schema.spec import Spec
from sora_spec.plan.memory.schedule import ANY
from tests.graph.test_graph_random import denoiser_specs, relaxed, settings_for_graphs, vae_specs
from tests.support.traced_graphs import both_ways, differences

SPECS = sorted(path.stem for path in (Path(__file__).parents[2] / "specs").glob("*.yaml"))
SHORT = ("latte", "tiny-sit-digits")


def agree(spec: Spec, component: Component, setting: Setting) -> None:
    watched = setting.recompute == "selective" and component == "denoiser_step"
    assert differences(*both_ways(spec, component, replace(setting, observed=watched))) == []


def each_spec() -> list[object]:
    return [pytest.param(name, marks=() if name in SHORT else pytest.mark.slow) for name in SPECS]


@pytest.mark.parametrize("name", each_spec())
def test_networks_of_reference_specs(name: str) -> None:
    """As a plan asks for them: blocks repeated, at any batch, nothing watching, gradients of earlier passes or not."""
    spec = load_spec(name)
    step = Setting(batch=ANY, precision="bf16", fused_rms_norm=True, owned_inputs=True, accumulates=True)
    agree(spec, "denoiser_step", step)
    agree(spec, "sampler_step", Setting(batch=2, attention="efficient", rounding=512))


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_everything_of_reference_specs(name: str) -> None:
    spec = load_spec(name)
    networks: tuple[Component, ...] = ("denoiser", "denoiser_step", "sampler_step", "optimizer_step", "ema_step")
    vaes: tuple[Component, ...] = ("vae_encode", "vae_decode", "vae_step")
    for component in networks:
        for batch in (1, 4):
            agree(spec, component, Setting(batch, "bf16", "efficient", "selective", rounding=512, fused_rms_norm=True))
            agree(spec, component, Setting(batch, attention="cpu", threads=2))
    for component in vaes if spec.vae.kind != "identity" else vaes[:2]:
        agree(spec, component, Setting(attention="efficient", winograd=True, full=True, rounding=512))


def test_a_vae_and_its_training_step() -> None:
    setting = Setting(batch=3, attention="efficient", winograd=True, full=True, owned_inputs=True)
    spec = load_spec("tiny-sit-digits", ["vae.training.reconstruction=mse"])
    agree(spec, "vae_decode", setting)
    agree(spec, "vae_step", setting)


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 25))])
def test_random_networks(part: int) -> None:
    """5 specs a part: of training steps, and of passes without gradients."""

    @seed(part)
    @settings(relaxed, derandomize=False, max_examples=5)
    @given(denoiser_specs(), settings_for_graphs())
    def holds(spec: Spec, setting: Setting) -> None:
        agree(spec, "denoiser_step", setting)
        agree(spec, "denoiser", setting)

    holds()


@pytest.mark.slow
@settings(relaxed, max_examples=40)
@given(vae_specs(), settings_for_graphs())
def test_random_vaes(spec: Spec, setting: Setting) -> None:
    full = Setting(setting.batch, setting.precision, setting.attention, rounding=setting.rounding, full=True)
    agree(spec, "vae_encode", full)
    agree(spec, "vae_decode", full)
    agree(spec, "vae_step", full)
