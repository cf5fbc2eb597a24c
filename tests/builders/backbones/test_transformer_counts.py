"""Parameters, multiply-accumulates and initialisation against the published tables, without memory where possible."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tests.support.reference_dit as reference
from sora_spec.builders.denoiser import Denoiser, build_denoiser
from sora_spec.builders.weights.dit import own_state, to_official
from sora_spec.language.schema.spec import Spec
from tests.support.transformer_specs import CLASSES, OFFICIAL_SIZES, official_spec, transformer_spec

INTERPOLANT = {"kind": "interpolant"}
UCF = {"kind": "class", "classes": 101, "dropout": 0.1}
VIDEO = {"frames": 16, "temporal": "alternating"}


def on_meta(spec: Spec) -> Denoiser:
    with torch.device("meta"):
        return build_denoiser(spec)


@pytest.mark.parametrize(
    ("size", "changes", "trained", "stored", "keys"),
    [
        ("B/2", {"condition": CLASSES}, 130_315_808, 130_512_416, 132),
        ("XL/2", {"condition": CLASSES}, 674_834_720, 675_129_632, 292),
        ("XL/2", {"condition": CLASSES, "objective": INTERPOLANT}, 674_834_720, 675_129_632, 292),
        ("B/2", VIDEO, 129_547_040, 129_547_040 + (256 + 16) * 768, 132),
        ("XL/2", VIDEO, 673_681_568, 673_681_568 + (256 + 16) * 1152, 292),
        ("B/2", VIDEO | {"condition": UCF}, 129_625_376, 129_625_376 + (256 + 16) * 768, 133),
        ("XL/2", VIDEO | {"condition": UCF}, 673_799_072, 673_799_072 + (256 + 16) * 1152, 293),
    ],
    ids=["DiT-B/2", "DiT-XL/2", "SiT-XL/2", "Latte-B/2", "Latte-XL/2", "Latte-B/2-UCF", "Latte-XL/2-UCF"],
)
def test_published_parameter_counts(size: str, changes: dict[str, Any], trained: int, stored: int, keys: int) -> None:
    spec = official_spec(size, **changes)
    model = on_meta(spec)
    official = to_official(model.state_dict(), spec)
    assert sum(parameter.numel() for parameter in model.parameters()) == trained
    assert sum(tensor.numel() for tensor in official.values()) == stored
    assert len(official) == keys


@pytest.mark.parametrize(("side", "tokens"), [(256, 256), (512, 1024)])
def test_official_keys_and_shapes_of_xl2(side: int, tokens: int) -> None:
    spec = official_spec("XL/2", condition=CLASSES, height=side, columns=side)
    official = {name: tuple(tensor.shape) for name, tensor in to_official(own_state(spec), spec).items()}
    expected = reference.layout(28, 1152, tokens, label_rows=1001)
    assert official == expected
    assert official["pos_embed"] == (1, tokens, 1152)
    assert official["blocks.27.attn.qkv.weight"] == (3456, 1152)
    assert official["final_layer.linear.weight"] == (32, 1152)


def forward_macs(spec: Spec, latent_frames: int, side: int) -> int:
    model = on_meta(spec)
    label = torch.zeros(1, dtype=torch.int64, device="meta") if model.null_label is not None else None
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 4, latent_frames, side, side, device="meta"), torch.zeros(1, device="meta"), label)
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(("size", "published", "exact"), [("B/2", 23.01, 23_005_102_080), ("XL/2", 118.64, None)])
def test_multiply_accumulates_of_dit(size: str, published: float, exact: int | None) -> None:
    spec = official_spec(size, condition=CLASSES)
    depth, d, _ = OFFICIAL_SIZES[size]
    n, t, p, c = depth, 256, 2, 4
    formula = n * (12 * t * d * d + 2 * t * t * d) + 6 * n * d * d
    formula += t * p * p * c * d + t * d * p * p * 2 * c + 256 * d + d * d + 2 * d * d
    macs = forward_macs(spec, 1, 32)
    assert macs == formula
    assert exact is None or macs == exact
    assert macs / 1e9 == pytest.approx(published, abs=0.03)


@pytest.mark.parametrize(("size", "giga"), [("B/2", 358.3), ("XL/2", 1862.6)])
def test_multiply_accumulates_of_latte(size: str, giga: float) -> None:
    n, d, _ = OFFICIAL_SIZES[size]
    f, s, p = 16, 256, 2
    tokens = n * 12 * f * s * d * d + n // 2 * f * 2 * s * s * d + n // 2 * s * 2 * f * f * d
    tokens += f * s * (4 * p * p * d + 8 * p * p * d)
    assert tokens / 1e9 == pytest.approx(giga, abs=0.05)
    once = 256 * d + d * d + 6 * n * d * d + 2 * d * d  # time embedding and modulation: once a clip, not once a frame
    assert forward_macs(official_spec(size, **VIDEO), 16, 32) == tokens + once


def test_initialisation_is_dits() -> None:
    torch.manual_seed(0)
    model = build_denoiser(transformer_spec(depth=2, width=192, condition=CLASSES, qk_norm=True))
    parameters = dict(model.named_parameters())
    zero = {name for name, value in parameters.items() if not value.any()}
    assert {name for name in zero if name.endswith("weight")} == {
        "blocks.0.modulation.weight",
        "blocks.1.modulation.weight",
        "patch_out.modulation.weight",
        "patch_out.proj.weight",
    }
    assert {name for name in parameters if name.endswith("bias")} <= zero
    for name in ("time_embed.fc1.weight", "time_embed.fc2.weight", "condition_embed.table.weight"):
        assert parameters[name].std().item() == pytest.approx(0.02, rel=0.02), name
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and f"{name}.weight" not in zero and not name.startswith("time_embed"):
            bound = (6 / (module.in_features + module.out_features)) ** 0.5
            assert module.weight.abs().max().item() == pytest.approx(bound, rel=0.01), name
            assert module.weight.abs().max().item() <= bound
    output = model(torch.randn(2, 4, 1, 8, 8), torch.tensor([0.0, 999.0]), torch.tensor([3, 1000]))
    assert output.shape == (2, 8, 1, 8, 8)
    assert not output.any()


@pytest.mark.parametrize(("dropout", "rows", "null"), [(0.1, 11, 10), (0.0, 10, None)])
def test_null_label_exists_where_labels_are_dropped(dropout: float, rows: int, null: int | None) -> None:
    condition = {"kind": "class", "classes": 10, "dropout": dropout}
    model = on_meta(transformer_spec(condition=condition))
    assert model.get_parameter("condition_embed.table.weight").shape[0] == rows
    assert model.null_label == null
    assert on_meta(transformer_spec()).null_label is None
