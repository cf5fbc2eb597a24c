"""Every rule of the graph is held by the trace: broken on purpose, one at a time, the comparison finds it.

The traces of PyTorch do not depend on our rules and are made once; a mutant then costs one or a few predictions.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from sora_spec.builders.trace.compare import Divergence, first_divergence
from sora_spec.builders.trace.recorder import record
from sora_spec.graph import Component, Graph, Setting, graph_from_spec
from sora_spec.graph.eager.tape import Op
from sora_spec.language.loading import load_spec, spec_from_values
from sora_spec.language.schema.spec import Spec
from tests.support.mutants import Mutant, in_place, mutants_of, rule_modules

_PATIENCE = 3.0  # seconds for one prediction, which takes some milliseconds: a broken loop may not end


def _out_of_patience(*_: object) -> None:
    raise TimeoutError


signal.signal(signal.SIGALRM, _out_of_patience)
SPECS = Path(__file__).parents[3] / "specs"


@dataclass(frozen=True)
class Case:
    """A component whose trace is compared."""

    spec: Spec
    component: Component
    setting: Setting

    def predict(self) -> Graph:
        return graph_from_spec(self.spec, self.component, replace(self.setting, observed=True, full=True))


def tiny(name: str, *changes: str) -> Spec:
    return load_spec(SPECS / f"{name}.yaml", ["backbone.depth=2", *changes])


def small(**sections: Any) -> Spec:
    values: dict[str, Any] = {
        "version": 1,
        "name": "small",
        "clip": {"frames": 4, "height": 8, "width": 12},
        "vae": {"kind": "identity"},
        "patch": {"time": 1, "space": 2},
        "backbone": {"kind": "transformer", "depth": 2, "width": 24, "heads": 2, "learn_sigma": False},
        "objective": {"kind": "interpolant"},
        "sampler": {"kind": "euler"},
    }
    return spec_from_values(values | sections)


@cache
def cases() -> list[tuple[Case, list[Op]]]:
    """Together they run every rule that a shipped or a random spec can run."""
    rope = {"kind": "transformer", "depth": 2, "width": 24, "heads": 2, "position": {"kind": "rope"}, "qk_norm": True}
    text = {"kind": "text", "encoder": "any", "tokens": 5, "width": 16}
    pooled = text | {"pooled": True}
    cross = rope | {"conditioning": {"kind": "cross_attention"}, "learn_sigma": False}
    single = rope | {"conditioning": {"kind": "adaln_single"}, "learn_sigma": False}
    score = {"kind": "interpolant", "path": "gvp", "prediction": "score", "weighting": "velocity"}
    noise = {"kind": "interpolant", "path": "vp", "prediction": "noise", "weighting": "likelihood"}
    velocity = {"kind": "ddpm", "steps": 30, "prediction": "velocity", "variance": "learned_range"}
    ddpm = {"sampler": {"kind": "ddpm", "steps": 5}}
    learned = rope | {"learn_sigma": True}
    flash, math = Setting(batch=2, attention="flash"), Setting(batch=3, attention="math", precision="bf16")
    efficient = Setting(batch=2, attention="efficient", precision="bf16", fused_rms_norm=True)
    stdit = {"backbone": cross | {"position": {"kind": "sincos"}, "qk_norm": False}}
    stdit |= {"temporal": {"kind": "factorized", "frame_positions": "first_attention"}}
    stdit |= {"condition": text | {"tokens": 13, "masked": True, "no_prompt": "table"}}
    wanted = [
        Case(tiny("tiny-dit"), "denoiser_step", flash),
        Case(tiny("tiny-sit-digits"), "denoiser_step", replace(efficient, recompute="selective")),
        Case(tiny("tiny-causal3d", "backbone.depth=3"), "denoiser_step", replace(flash, recompute="blocks")),
        Case(tiny("tiny-latte"), "denoiser_step", math),
        Case(tiny("tiny-opendit-video"), "denoiser", Setting(batch=2, attention="cpu")),
        Case(tiny("tiny-dit"), "denoiser_step", Setting(batch=2, attention="cpu", precision="bf16")),
        Case(small(backbone=cross, condition=text, temporal={"kind": "factorized"}), "denoiser_step", efficient),
        Case(small(backbone=cross, condition=text, temporal={"kind": "joint"}, objective=score), "denoiser_step", math),
        Case(small(backbone=single, temporal={"kind": "alternating"}, objective=noise), "denoiser_step", flash),
        Case(small(**stdit), "denoiser_step", replace(efficient, fused_rms_norm=False)),
        Case(small(**stdit), "denoiser_step", math),
        Case(small(**stdit | {"condition": text | {"tokens": 16, "masked": True}}), "denoiser", efficient),
        Case(small(backbone=learned, objective=velocity, **ddpm), "denoiser_step", replace(flash, owned_inputs=True)),
        Case(small(backbone=rope, condition=pooled, patch={"time": 2, "space": 4}), "denoiser_step", math),
        *[
            Case(small(objective={"kind": "interpolant", "path": path}), "denoiser_step", flash)
            for path in ("gvp", "vp")
        ],
        Case(small(objective=noise | {"path": "linear"}), "denoiser_step", flash),
        Case(small(objective=noise | {"path": "gvp", "weighting": "none"}), "denoiser_step", flash),
        Case(tiny("tiny-latte"), "vae_step", efficient),
        Case(tiny("tiny-latte", "vae.training.reconstruction=mse"), "vae_step", Setting(batch=2, attention="cpu")),
        Case(tiny("tiny-latte"), "vae_decode", math),
        Case(tiny("tiny-latte", "vae.tiling={kind: spatial, tile: 16, overlap: 8}"), "vae_encode", efficient),
        Case(tiny("tiny-latte", "vae.tiling={kind: spatial, tile: 16, overlap: 8}"), "vae_decode", efficient),
        Case(tiny("tiny-causal3d"), "vae_step", flash),
        Case(tiny("tiny-sit-digits", "vae.training.reconstruction=l1"), "vae_step", math),
        Case(tiny("tiny-causal3d", "vae.streaming=true"), "vae_encode", flash),
        Case(tiny("tiny-causal3d", "vae.streaming=true"), "vae_decode", flash),
        Case(tiny("tiny-sit-digits"), "vae_encode", math),
        Case(tiny("tiny-sit-digits"), "vae_decode", math),
    ]
    return [(case, record(case.spec, case.component, case.setting).tape.ops) for case in wanted]


def found_by(case: Case, events: list[Op]) -> Divergence | str | None:
    """Where prediction and trace part, or what the broken rule raised."""
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    try:
        return first_divergence(case.predict(), events)
    except Exception as error:  # a broken rule may break anything
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def found_first(mutant: Mutant) -> Divergence | str | None:
    """What the first case says that finds the mutant; None where none does."""
    with in_place(mutant):
        return next((found for case, events in cases() if (found := found_by(case, events)) is not None), None)


@cache
def reached() -> set[tuple[str, int]]:
    """Lines of the rules that the cases run, by module and number."""
    files = {module.__file__: module.__name__ for module in rule_modules()}
    lines = set[tuple[str, int]]()

    def look(frame: FrameType, event: str, _: object) -> Any:
        name = files.get(frame.f_code.co_filename)
        if name is not None:
            lines.add((name, frame.f_lineno))
        return look if name is not None else None

    sys.settrace(look)
    try:
        for case, _ in cases():
            case.predict()
    finally:
        sys.settrace(None)
    return lines


@cache
def mutants() -> list[Mutant]:
    """Those of every line that the cases reach; other rules have traces of their own, as text encoders."""
    found = [mutant for module in rule_modules() for mutant in mutants_of(module)]
    return [mutant for mutant in found if (mutant.module, mutant.line) in reached()]


def excused() -> dict[str, str]:
    """Mutants that no trace can tell from the rule, each by name, and why. Any other survivor is a hole."""
    reason, found = "", dict[str, str]()
    for line in Path(__file__).with_name("survivors.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            reason = line[2:]
        elif line:
            found[line] = reason
    return found


def named_mutants() -> dict[str, Mutant]:
    """All of them by name: function, operator, source, and a number where a function has several alike."""
    found, seen = dict[str, Mutant](), Counter[str]()
    for mutant in mutants():
        what = " ".join(mutant.what.split())
        name = f"{mutant.module.removeprefix('sora_spec.graph.')}.{mutant.function}: {what}"
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name} #{seen[name]}"] = mutant
    return found


def test_unbroken_rules_agree() -> None:
    assert [found_by(case, events) for case, events in cases()] == [None] * len(cases())


def test_broken_rules_are_found() -> None:
    some = {name: mutant for name, mutant in [*named_mutants().items()][::16] if name not in excused()}
    assert [name for name, mutant in some.items() if found_first(mutant) is None] == []


@pytest.mark.slow
def test_every_broken_rule_is_found() -> None:
    assert {name for name, mutant in named_mutants().items() if found_first(mutant) is None} == set(excused())


# What is broken: function, operator, and source. Where it must be found: part, its YAML value, and both kernels.
ATTENTION = ("backbone.blocks[0].attention", ("backbone", "heads"))
FLASH = "_scaled_dot_product_flash_attention"
LEVELS = ("vae", "multipliers")
POINTED: dict[tuple[str, str, str], tuple[str, tuple[str, ...], str, str]] = {
    ("attention_flops", "number off by one", "4"): (*ATTENTION, FLASH, FLASH),
    ("fused_outputs", "other type", "DType.F32"): (*ATTENTION, FLASH, FLASH),
    ("softmax", "strides turned", "contiguous"): (*ATTENTION, "_safe_softmax", "_safe_softmax"),
    ("_math", "call left out", "cast_to(weights"): (*ATTENTION, "clone", "_to_copy"),
    ("Attention.__call__", "call left out", "rotate(q"): (*ATTENTION, FLASH, "mul"),
    ("checkpoint", "condition turned", "if not tape"): (*ATTENTION, "add", "add"),
    ("_layer_norm_rule", "strides turned", "contiguous"): (
        *("backbone.patch_out", ("patch",)),
        *("native_layer_norm_backward", "native_layer_norm_backward"),
    ),
    ("PatchOut.__call__", "call left out", "modulate("): ("backbone.patch_out", ("patch",), "addmm", "add"),
    ("cast_to", "kernel left out", "copy("): ("backbone.patch_in", ("patch",), "clone", "_to_copy"),
    ("cat", "strides turned", "contiguous"): ("backbone.time_embed", ("backbone", "width"), "cat", "cat"),
    ("gated", "call left out", "add_in_place("): ("backbone.blocks[1].mlp", ("backbone", "mlp_ratio"), "mm", "mm"),
    ("_narrow_rule", "other kernel", "run_one("): ("objective", ("objective",), "slice_backward_", "slice_backward"),
    ("split", "other type", "DType.F32"): ("objective", ("objective",), "_to_copy", "sub"),
    ("_Pass._deliver", "call left out", "accumulate("): ("objective", ("objective",), "neg", "add"),
    ("ResidualBlock.__call__", "call left out", "silu(self.norm1"): ("vae.encoder.levels[0]", LEVELS, "cat", "silu"),
    ("upsample", "call left out", "layer("): ("vae.decoder.up[1]", LEVELS, "native_group_norm", "convolution"),
}


@pytest.mark.parametrize("broken", POINTED, ids=lambda broken: f"{broken[0]}-{broken[1]}".replace(" ", "-"))
def test_the_comparison_points_at_what_is_broken(broken: tuple[str, str, str]) -> None:
    function, operator, source = broken
    mutant = next(m for m in mutants() if m.function == function and m.what.startswith(f"{operator}: {source}"))
    found = found_first(mutant)
    assert isinstance(found, Divergence), found
    region, yaml, predicted, traced = POINTED[broken]
    assert (found.region, found.yaml) == (region, yaml)
    assert found.predicted.startswith(f"{predicted} -> ")
    assert found.traced.startswith(f"{traced} -> ")
