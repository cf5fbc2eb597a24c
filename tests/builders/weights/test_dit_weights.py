"""Official checkpoints in every layout they come in, and what is said about those that do not fit."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import tests.support.reference_dit as reference
from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.weights.dit import from_official, load_official, own_state, to_official
from sora_spec.builders.weights.files import read_state
from sora_spec.builders.weights.run import load_denoiser
from sora_spec.builders.weights.start import load_start
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from sora_spec.language.loading import dump_spec
from sora_spec.language.schema.spec import Spec
from tests.support.transformer_specs import CLASSES, official_spec, transformer_spec

TEN = {"kind": "class", "classes": 10, "dropout": 0.1}
SMALL = transformer_spec(depth=2, condition=TEN)
LATTE = transformer_spec(depth=2, frames=6, temporal="alternating")
VDIT = transformer_spec(depth=2, frames=4, temporal="joint", patch=(2, 2), qk_norm=True)


def small_state(**changes: Any) -> dict[str, Tensor]:
    """A checkpoint in the published layout that fits `SMALL`, its table over space the published one."""
    sizes = {"depth": 2, "width": 48, "tokens": 16, "label_rows": 11} | changes
    state = reference.random_state(reference.layout(**sizes))
    side = int(state["pos_embed"].shape[1] ** 0.5)
    return state | {"pos_embed": reference.sincos_2d(48, side, side)}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def diffusers_state(flat: dict[str, Tensor], depth: int = 2) -> dict[str, Tensor]:
    """What diffusers' conversion script makes of a flat checkpoint."""
    state = {}
    renames = {"x_embedder.proj": "pos_embed.proj", "final_layer.linear": "proj_out_2"}
    renames["final_layer.adaLN_modulation.1"] = "proj_out_1"
    for kind in ("weight", "bias"):
        state |= {f"{new}.{kind}": flat[f"{old}.{kind}"] for old, new in renames.items()}
        for i in range(depth):
            old, new = f"blocks.{i}", f"transformer_blocks.{i}"
            for layer in (1, 2):
                key = f"{new}.norm1.emb.timestep_embedder.linear_{layer}.{kind}"
                state[key] = flat[f"t_embedder.mlp.{2 * layer - 2}.{kind}"].clone()
            q, k, v = flat[f"{old}.attn.qkv.{kind}"].chunk(3)
            state |= {f"{new}.attn1.to_{n}.{kind}": part.clone() for n, part in zip("qkv", (q, k, v), strict=True)}
            state[f"{new}.attn1.to_out.0.{kind}"] = flat[f"{old}.attn.proj.{kind}"]
            state[f"{new}.norm1.linear.{kind}"] = flat[f"{old}.adaLN_modulation.1.{kind}"]
            state[f"{new}.ff.net.0.proj.{kind}"] = flat[f"{old}.mlp.fc1.{kind}"]
            state[f"{new}.ff.net.2.{kind}"] = flat[f"{old}.mlp.fc2.{kind}"]
    table = flat["y_embedder.embedding_table.weight"]
    labels = "norm1.emb.class_embedder.embedding_table.weight"
    return state | {f"transformer_blocks.{i}.{labels}": table.clone() for i in range(depth)}


# Layouts.


def test_random_xl2_state_of_292_tensors_loads_strictly() -> None:
    spec = official_spec("XL/2", condition=CLASSES)
    shapes = reference.layout(28, 1152, 256, label_rows=1001)
    assert len(shapes) == 292
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    state["pos_embed"] = torch.randn(1, 256, 1152)
    with torch.device("meta"):
        model = build_denoiser(spec)
    model.load_state_dict(from_official(state, spec), strict=True, assign=True)


@pytest.mark.parametrize("spec", [SMALL, LATTE, VDIT], ids=["dit", "latte", "vdit"])
def test_there_and_back(spec: Spec) -> None:
    own = build_denoiser(spec).state_dict()
    own = {name: value if name == "pos_embed" else torch.randn_like(value) for name, value in own.items()}
    assert same(from_official(to_official(own, spec), spec), own)


def test_official_values_land_in_the_right_places() -> None:
    state = small_state()
    own = from_official(state, SMALL)
    assert torch.equal(own["patch_in.proj.weight"], state["x_embedder.proj.weight"].flatten(1))
    assert torch.equal(own["condition_embed.table.weight"], state["y_embedder.embedding_table.weight"])
    assert torch.equal(own["blocks.1.attention.out.bias"], state["blocks.1.attn.proj.bias"])
    assert same(to_official(own, SMALL), {name: state[name] for name in to_official(own, SMALL)})
    assert len(own) == len(state)


def test_latte_table_over_frames_is_emitted_and_absorbed() -> None:
    own = build_denoiser(LATTE).state_dict()
    official = to_official(own, LATTE)
    torch.testing.assert_close(official["temp_embed"], reference.temporal_sincos(48, 6), rtol=0, atol=1e-6)
    longer = official | {"temp_embed": reference.temporal_sincos(48, 16)}
    assert same(from_official(longer, LATTE), own)
    with pytest.raises(UserError, match=r"temp_embed .* is not the sine-cosine table over frames"):
        from_official(official | {"temp_embed": torch.randn(1, 6, 48)}, LATTE)


@pytest.mark.parametrize(
    ("nests", "expected"), [(("model", "ema", "opt", "args"), "ema"), (("model", "args"), "model")]
)
def test_training_checkpoints_give_their_average(tmp_path: Path, nests: tuple[str, ...], expected: str) -> None:
    states = {"model": small_state(), "ema": {name: value + 1 for name, value in small_state().items()}}
    extra = {"opt": {"state": {}, "param_groups": []}, "args": argparse.Namespace(model="DiT-XL/2", lr=1e-4)}
    checkpoint: dict[str, Any] = {name: (states | extra)[name] for name in nests}
    torch.save(checkpoint, tmp_path / "0400000.pt")
    assert same(read_state(tmp_path / "0400000.pt"), states[expected])
    assert same(from_official(checkpoint, SMALL), from_official(states[expected], SMALL))


def test_diffusers_layout_is_fused_and_deduplicated() -> None:
    flat = small_state()
    split = diffusers_state(flat)
    assert "transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.weight" in split
    own, expected = from_official(split, SMALL), from_official(flat, SMALL)
    torch.testing.assert_close(own.pop("pos_embed"), expected.pop("pos_embed"), rtol=0, atol=1e-6)
    assert same(own, expected)


def test_diffusers_copies_that_differ_are_refused() -> None:
    split = diffusers_state(small_state())
    name = "transformer_blocks.1.norm1.emb.timestep_embedder.linear_2.bias"
    split[name] = split[name] + 1
    with pytest.raises(UserError, match=f"1 copies of an embedder differ.*{name}"):
        from_official(split, SMALL)


def test_diffusers_query_without_its_key_is_reported() -> None:
    split = diffusers_state(small_state())
    del split["transformer_blocks.0.attn1.to_k.weight"]
    with pytest.raises(UserError) as caught:
        from_official(split, SMALL)
    assert "blocks.0.attn.qkv.weight (144, 48)" in caught.value.message
    assert "transformer_blocks.0.attn1.to_q.weight (48, 48)" in caught.value.message


# Tables of another resolution.


def test_table_of_another_resolution_is_rebuilt() -> None:
    state = small_state(tokens=64)
    assert state["pos_embed"].shape == (1, 64, 48)
    wide = transformer_spec(depth=2, condition=TEN, height=64, columns=128)
    torch.testing.assert_close(
        from_official(state, wide)["pos_embed"], reference.sincos_2d(48, 4, 8), rtol=0, atol=1e-6
    )
    assert from_official(small_state(), SMALL)["pos_embed"].shape == (1, 16, 48)


def test_table_of_another_grid_with_as_many_tokens_is_rebuilt() -> None:
    flat = transformer_spec(depth=2, condition=TEN, height=32, columns=128)
    torch.testing.assert_close(from_official(small_state(), flat)["pos_embed"], reference.sincos_2d(48, 2, 8))


def test_table_in_half_precision_is_recognised() -> None:
    state = {name: value.half() for name, value in small_state(tokens=64).items()}
    assert from_official(state, SMALL)["pos_embed"].shape == (1, 16, 48)


def test_learned_table_of_another_resolution_is_refused_and_of_the_same_kept() -> None:
    learned = small_state() | {"pos_embed": torch.randn(1, 16, 48)}
    assert torch.equal(from_official(learned, SMALL)["pos_embed"], learned["pos_embed"])
    with pytest.raises(UserError, match=r"pos_embed is \(1, 64, 48\), expected \(1, 16, 48\)") as caught:
        from_official(small_state() | {"pos_embed": torch.randn(1, 64, 48)}, SMALL)
    assert "pos_embed is not the sine-cosine table of any grid" in (caught.value.hint or "")


# What does not fit.


def test_everything_that_is_off_stands_in_one_report() -> None:
    state = small_state()
    del state["blocks.1.mlp.fc1.bias"]
    state["blocks.0.attn.qkv.weight"] = torch.zeros(100, 48)
    state["head.extra"] = torch.zeros(3)
    with pytest.raises(UserError) as caught:
        from_official(state, SMALL)
    for line in (
        "32 tensors given, 32 expected",
        "missing (1):\n    blocks.1.mlp.fc1.bias (192)",
        "unexpected (1):\n    head.extra (3)",
        "wrong shape (1):\n    blocks.0.attn.qkv.weight is (100, 48), expected (144, 48)",
    ):
        assert line in caught.value.message


@pytest.mark.parametrize(
    ("spec", "changes", "reason"),
    [
        (transformer_spec(depth=2), {}, "set condition: {kind: class, classes: 10, dropout: 0.1}"),
        (SMALL, {"label_rows": None}, "set condition.kind to none"),
        (SMALL, {"label_rows": 10}, "a table of 10 labels, the spec 10 classes and one null label"),
        (
            transformer_spec(depth=2, condition=TEN | {"dropout": 0.0}),
            {},
            "a table of 11 labels, the spec 10 classes and no null label, as condition.dropout is 0",
        ),
        (SMALL, {"depth": 3}, "the file has 3 blocks, backbone.depth is 2"),
        (SMALL, {"out_channels": 4}, "returns 16 values a token, the spec's 32: set backbone.learn_sigma to false"),
        (transformer_spec(depth=2, width=96, condition=TEN), {}, "tokens have 48 channels, backbone.width is 96"),
        (LATTE, {"label_rows": None}, "set temporal.kind to none"),
        (transformer_spec(depth=2, condition=TEN, mlp_ratio=2.0), {}, "set backbone.mlp_ratio to 4"),
        (transformer_spec(depth=2, condition=TEN, qk_norm=True), {}, "set backbone.qk_norm to false"),
        (transformer_spec(depth=2, condition=TEN, patch=(1, 4)), {}, "patches are 2x2: set patch.space to 2"),
        (transformer_spec(depth=2, condition=TEN, frames=2, patch=(2, 2)), {}, "set patch.time to 1"),
        (transformer_spec(depth=2, condition=TEN, channels=16), {}, "latents have 4 channels, the spec's 16"),
    ],
)
def test_the_line_of_the_spec_that_explains_a_misfit_is_named(spec: Spec, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError) as caught:
        from_official(small_state(**changes), spec)
    assert reason in (caught.value.hint or "")


@pytest.mark.parametrize("changes", [{"patch": (1, 4)}, {"frames": 2, "patch": (2, 2)}, {"width": 96}])
def test_one_cause_is_not_explained_by_another(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        from_official(small_state(), transformer_spec(depth=2, condition=TEN, **changes))
    hint = caught.value.hint or ""
    assert "learn_sigma" not in hint
    assert "sine-cosine" not in hint
    assert "qk_norm" not in hint
    assert "mlp_ratio" not in hint


def test_a_video_checkpoint_under_an_image_spec_is_named() -> None:
    official = to_official(build_denoiser(LATTE).state_dict(), LATTE)
    with pytest.raises(UserError) as caught:
        from_official(official, transformer_spec(depth=2))
    assert "temporal.kind is none: set it to alternating" in (caught.value.hint or "")


# Files.


def write_shards(folder: Path, state: dict[str, Tensor]) -> Path:
    folder.mkdir()
    names = sorted(state)
    where = {name: f"diffusion_pytorch_model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for shard in set(where.values()):
        save_file({name: state[name].contiguous() for name in names if where[name] == shard}, folder / shard)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def test_every_kind_of_file_gives_the_same_state(tmp_path: Path) -> None:
    flat, split = small_state(), {k: v.contiguous() for k, v in diffusers_state(small_state()).items()}
    save_file(flat, tmp_path / "dit.safetensors")
    torch.save(flat, tmp_path / "dit.pt")
    torch.save(flat, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("plain", "pipeline/transformer", "pickled"):
        (tmp_path / name).mkdir(parents=True)
    save_file(split, tmp_path / "plain/diffusion_pytorch_model.safetensors")
    save_file(split, tmp_path / "pipeline/transformer/diffusion_pytorch_model.safetensors")
    torch.save(split, tmp_path / "pickled/diffusion_pytorch_model.bin")
    write_shards(tmp_path / "sharded", split)
    expected = from_official(flat, SMALL)
    save_file(expected, tmp_path / "own.safetensors")
    for name in ("dit.safetensors", "dit.pt", "old.pth", "plain", "pipeline", "pickled", "sharded", "own.safetensors"):
        state = load_official(tmp_path / name, SMALL)
        torch.testing.assert_close(state.pop("pos_embed"), expected["pos_embed"], rtol=0, atol=1e-6)
        assert same(state, {key: value for key, value in expected.items() if key != "pos_embed"}), name


class Payload:
    """What a hostile pickle would smuggle in."""


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 40)
    (tmp_path / "broken.pt").write_bytes(b"not a pickle")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("weights")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/config.json").write_text("{}")
    torch.save({"weight": Payload()}, tmp_path / "unsafe.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    sharded = write_shards(tmp_path / "sharded", {"a": torch.zeros(1), "b": torch.zeros(1)})
    (sharded / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    escaping = write_shards(tmp_path / "escaping", {"a": torch.zeros(1), "b": torch.zeros(1)})
    index = escaping / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../dit.safetensors"}}))
    for name, words in {
        "absent.pt": "does not exist",
        "broken.safetensors": "cannot be read as safetensors",
        "broken.pt": "cannot be read as a PyTorch checkpoint",
        "empty.pt": "cannot be read as a PyTorch checkpoint",
        "notes.txt": "not a known kind of checkpoint: .txt",
        "folder": "holds no weights; it holds: config.json",
        "unsafe.pt": r"holds more than weights: it wants to run [\w.]*Payload",
        "list.pt": "holds no tensors by name",
        "sharded": "lacks 1 of 2 shards: diffusion_pytorch_model-00002-of-00002.safetensors",
        "escaping": "is not an index of shards",
    }.items():
        with pytest.raises(UserError, match=words) as caught:
            read_state(tmp_path / name)
        assert str(tmp_path / name) in caught.value.message
        assert caught.value.hint


def test_training_starts_from_the_named_file(tmp_path: Path) -> None:
    torch.save(small_state(), tmp_path / "start.pt")
    spec = transformer_spec(depth=2, condition=TEN, weights=str(tmp_path / "start.pt"))
    model = build_denoiser(spec)
    assert load_start(model, spec)
    assert same(dict(model.state_dict()), from_official(small_state(), spec))
    assert not load_start(model, SMALL)


def test_own_weights_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    save_file(from_official(small_state(), SMALL), tmp_path / "own.safetensors")
    with pytest.raises(UserError, match="the checkpoint does not fit the spec") as caught:
        load_official(tmp_path / "own.safetensors", transformer_spec(depth=3, condition=TEN))
    assert "the file has 2 blocks, backbone.depth is 3" in (caught.value.hint or "")


# Run folders.


def test_a_run_gives_its_average_or_its_weights(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", dump_spec(LATTE))
    with pytest.raises(UserError, match="no checkpoint of the denoiser"):
        load_denoiser(run)
    trained = build_denoiser(LATTE).state_dict()
    averaged = {name: value + 1 for name, value in trained.items()}
    with run.stage("denoiser").writing_checkpoint(3) as folder:
        save_file(trained, folder / "model.safetensors")
        (folder / "state.json").write_text(json.dumps({"step": 3, "stage": "denoiser", "data": ""}))
    with pytest.raises(UserError, match=r"step-00000003/ema\.safetensors is missing") as caught:
        load_denoiser(run)
    assert "--no-ema" in str(caught.value.hint)
    assert same(dict(load_denoiser(run, ema=False).state_dict()), dict(trained))
    save_file(averaged, run.stage("denoiser").checkpoint_path(3) / "ema.safetensors")
    loaded = load_denoiser(run)
    assert same(dict(loaded.state_dict()), averaged)
    assert same(dict(load_denoiser(run, ema=False).state_dict()), dict(trained))
    assert not loaded.training
    assert loaded(torch.randn(1, 4, 6, 8, 8), torch.tensor([5.0])).isfinite().all()
    assert own_state(LATTE).keys() == trained.keys()


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ({"guidance": 4.0}, True),
        ({"guidance": 4.0, "guidance_channels": 3}, False),
        ({"guidance": 4.0, "guidance_channels": 4}, False),
        ({"guidance": 1.0}, False),
    ],
)
def test_other_guided_channels_than_the_programs_are_said(
    sampler: dict[str, Any], said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = SMALL
    values = spec.model_dump(mode="json")
    values["sampler"] = {"kind": "ddpm"} | sampler
    from_official(small_state(), Spec.model_validate(values))
    assert ("sampler.guidance_channels=3" in capsys.readouterr().err) is said


def test_where_diffusers_own_network_differs_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    from_official(diffusers_state(small_state()), SMALL)
    assert "by 127, DiT and this network by 128" in capsys.readouterr().err
    from_official(small_state(), SMALL)
    assert "127" not in capsys.readouterr().err
