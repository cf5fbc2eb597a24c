"""A run's weights in the layouts of others: the right names and values, and back without a bit changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sora_spec.builders.weights import sd_vae
from sora_spec.builders.weights.dit import load_official
from sora_spec.cli.export_weights import export_weights
from sora_spec.disk.checksums import write_checksums
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from sora_spec.language.loading import dump_spec
from sora_spec.language.schema.spec import Spec

DIT: dict[str, Any] = {
    "clip": {"frames": 1, "height": 32, "width": 32, "fps": 1},
    "vae": {
        "kind": "image_kl",
        "compression": {"time": 1, "space": 4},
        "channels": 4,
        "width": 8,
        "multipliers": [1, 2, 2],
        "blocks": 1,
        "groups": 4,
    },
    "patch": {"time": 1, "space": 2},
    "backbone": {"kind": "transformer", "depth": 2, "width": 32, "heads": 2},
    "temporal": {"kind": "none"},
    "objective": {"kind": "ddpm"},
    "sampler": {"kind": "ddpm", "steps": 2},
}
LATTE = DIT | {"clip": DIT["clip"] | {"frames": 3}, "temporal": {"kind": "alternating"}}


@pytest.fixture(scope="module")
def dit_run(toys: Any, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A trained run that keeps an average: the weights plus one."""
    run = toys.run(tmp_path_factory.mktemp("dit") / "run", toys.spec(**DIT))
    for stage in ("denoiser", "vae"):
        checkpoint = run.stage(stage).checkpoint_path(10)
        state = load_file(checkpoint / "model.safetensors")
        shifted = {name: x if name == "pos_embed" else x + 1 for name, x in state.items()}
        save_file(shifted, checkpoint / "ema.safetensors")
        kept = json.loads((checkpoint / "state.json").read_text()) | {"average": True}
        (checkpoint / "state.json").write_text(json.dumps(kept))
        write_checksums(checkpoint)
    return run


def stored(run: RunFolder, file: str, stage: Any = "denoiser") -> dict[str, Tensor]:
    return load_file(run.stage(stage).checkpoint_path(10) / file)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def published_names(depth: int) -> set[str]:
    """DiT's state dict (facebookresearch/DiT `models.py`), written out."""
    linear = ["x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2", "final_layer.linear"]
    linear += ["final_layer.adaLN_modulation.1"]
    inside = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
    linear += [f"blocks.{i}.{name}" for i in range(depth) for name in inside]
    names = {f"{name}.{kind}" for name in linear for kind in ("weight", "bias")}
    return names | {"pos_embed", "y_embedder.embedding_table.weight"}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(("no_ema", "file"), [(False, "ema.safetensors"), (True, "model.safetensors")])
def test_the_official_layout(dit_run: RunFolder, tmp_path: Path, suffix: str, no_ema: bool, file: str) -> None:
    target = tmp_path / f"w{suffix}"
    export_weights(dit_run.path, "official", out=target, no_ema=no_ema)
    if suffix == ".pt":
        content = torch.load(target, weights_only=True)
        state, source = content["ema"], content["source"]
        assert (source["run"], source["step"], source["average"]) == ("run", 10, not no_ema)
    else:
        state = load_file(target)
        with safe_open(target, "pt") as opened:
            assert opened.metadata()["step"] == "10"
            assert opened.metadata()["average"] == str(not no_ema).lower()
    assert set(state) == published_names(2)
    assert state["x_embedder.proj.weight"].shape == (32, 4, 2, 2)
    own = stored(dit_run, file)
    assert torch.equal(state["blocks.1.attn.qkv.weight"], own["blocks.1.attention.qkv.weight"])
    assert same(load_official(target, dit_run.load_spec()), own)


def test_the_layout_of_diffusers(dit_run: RunFolder) -> None:
    export_weights(dit_run.path, "diffusers")
    folder, own = dit_run.path / "weights" / "denoiser-diffusers", stored(dit_run, "ema.safetensors")
    state = load_file(folder / "diffusion_pytorch_model.safetensors")
    assert torch.equal(
        state["transformer_blocks.1.attn1.to_k.weight"], own["blocks.1.attention.qkv.weight"].chunk(3)[1]
    )
    for i in range(2):
        table = state[f"transformer_blocks.{i}.norm1.emb.class_embedder.embedding_table.weight"]
        assert torch.equal(table, own["condition_embed.table.weight"])
    assert same(load_official(folder, dit_run.load_spec()), own)
    config = json.loads((folder / "config.json").read_text())
    assert (config["num_layers"], config["attention_head_dim"], config["sample_size"]) == (2, 16, 8)
    with pytest.raises(UserError, match="exists already"):
        export_weights(dit_run.path, "diffusers")
    export_weights(dit_run.path, "diffusers", force=True)


def test_the_vae(dit_run: RunFolder, tmp_path: Path) -> None:
    vae: Any = dit_run.load_spec().vae
    own = stored(dit_run, "ema.safetensors", "vae")
    export_weights(dit_run.path, "official", stage="vae", out=tmp_path / "ldm.pt")
    export_weights(dit_run.path, "diffusers", stage="vae", out=tmp_path / "vae")
    assert same(torch.load(tmp_path / "ldm.pt", weights_only=True)["state_dict"], own)
    for path in (tmp_path / "ldm.pt", tmp_path / "vae"):
        assert same(sd_vae.load_sd_vae(path, vae), own)


@pytest.mark.parametrize(
    ("changes", "layout", "message"),
    [
        (LATTE, "diffusers", "temporal.kind is alternating, and its DiT is an image model"),
        (DIT | {"condition": {"kind": "none"}}, "diffusers", "its DiT has labels"),
        (DIT | {"clip": DIT["clip"] | {"width": 64}}, "diffusers", "clips are 64x32, its are square"),
        (DIT | {"backbone": DIT["backbone"] | {"mlp_ratio": 2}}, "diffusers", "mlp_ratio is 2"),
        (DIT | {"backbone": DIT["backbone"] | {"qk_norm": True}}, "official", "qk_norm is true"),
        (DIT | {"backbone": DIT["backbone"] | {"position": {"kind": "rope"}}}, "official", "position.kind is rope"),
    ],
)
def test_networks_without_a_counterpart(
    toys: Any, tmp_path: Path, changes: dict[str, Any], layout: Any, message: str
) -> None:
    run = toys.run(tmp_path / "run", toys.spec(**changes))
    with pytest.raises(UserError, match=message):
        export_weights(run.path, layout)
    assert not (run.path / "weights").exists()


def test_a_vae_without_a_counterpart_and_one_without_a_checkpoint(toys: Any, tmp_path: Path) -> None:
    run = toys.run(tmp_path / "run", toys.spec())
    with pytest.raises(UserError, match=r"vae\.kind is causal3d"):
        export_weights(run.path, "official", stage="vae")
    bare = RunFolder.create(tmp_path / "bare", dump_spec(toys.spec(**DIT)))
    stages: list[tuple[Any, str]] = [("vae", "checkpoint of the VAE"), ("denoiser", "checkpoint of the denoiser")]
    for stage, words in stages:
        with pytest.raises(UserError, match=words):
            export_weights(bare.path, "official", stage=stage)


def test_latte_has_its_table_over_frames(toys: Any, tmp_path: Path) -> None:
    spec: Spec = toys.spec(**LATTE)
    run = toys.run(tmp_path / "run", spec)
    export_weights(run.path, "official")
    target = run.path / "weights" / "denoiser-official.pt"
    state = torch.load(target, weights_only=True)["ema"]
    assert set(state) == published_names(2) | {"temp_embed"}
    assert same(load_official(target, spec), stored(run, "model.safetensors"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "official", "out": "folder"}, "no name for a file of weights"),
        ({"layout": "diffusers", "out": "w.pt"}, "diffusers reads safetensors"),
        ({"layout": "official", "out": "taken.pt"}, "exists already"),
        ({"layout": "diffusers", "out": "mine", "force": True}, "holds other files"),
        ({"layout": "diffusers", "out": "file", "force": True}, "is not a folder"),
    ],
)
def test_what_is_not_written(
    dit_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken.pt").write_text("precious")
    Path("file").write_text("precious")
    Path("mine").mkdir()
    Path("mine/photo.jpg").write_text("precious")
    with pytest.raises(UserError, match=message):
        export_weights(dit_run.path, **settings | {"out": Path(settings["out"])})
    assert all(path.read_text() == "precious" for path in tmp_path.rglob("*") if path.is_file())
    assert len(list(tmp_path.rglob("*"))) == 4


@pytest.mark.slow
def test_diffusers_itself_reads_them(dit_run: RunFolder, tmp_path: Path) -> None:
    """At t = 0, where its sinusoid, divided by 127 rather than 128, is the published one."""
    diffusers = pytest.importorskip("diffusers")
    from sora_spec.builders.weights.run import load_denoiser
    from sora_spec.builders.weights.vae_run import load_vae

    export_weights(dit_run.path, "diffusers", out=tmp_path / "dit", no_ema=True)
    export_weights(dit_run.path, "diffusers", stage="vae", out=tmp_path / "vae", no_ema=True)
    theirs, problems = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "dit", output_loading_info=True)
    assert not any(problems.values()), problems
    torch.manual_seed(0)
    x, t, label = torch.randn(2, 4, 8, 8), torch.zeros(2, dtype=torch.int64), torch.tensor([1, 4])
    with torch.no_grad():
        wanted = theirs.eval()(x, timestep=t, class_labels=label).sample
        found = load_denoiser(dit_run, ema=False)(x[:, :, None], t.float(), label)[:, :, 0]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        vae, problems = diffusers.AutoencoderKL.from_pretrained(tmp_path / "vae", output_loading_info=True)
        assert not any(problems.values()), problems
        decoded = load_vae(dit_run, ema=False).decode(x[:, :, None])[:, :, 0]
        torch.testing.assert_close(decoded, vae.eval().decode(x / 0.18215).sample, rtol=1e-3, atol=1e-4)
