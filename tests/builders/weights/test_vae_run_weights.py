"""Where a VAE's weights come from: a run's checkpoint, the file a spec names, or nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sora_spec.builders.vae.from_spec import build_vae
from sora_spec.builders.vae.interface import IdentityModule
from sora_spec.builders.weights.vae_run import load_named_vae, load_vae, start_vae
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from sora_spec.language.loading import dump_spec, spec_from_values
from sora_spec.language.schema.spec import Spec

CAUSAL = {
    "kind": "causal3d",
    "compression": {"time": 2, "space": 2},
    "channels": 4,
    "width": 4,
    "multipliers": [1, 2],
    "blocks": 1,
}
IMAGE = {
    "kind": "image_kl",
    "compression": {"space": 2},
    "channels": 4,
    "width": 8,
    "multipliers": [1, 1],
    "blocks": 1,
    "groups": 4,
}


def spec_with(vae: dict[str, Any]) -> Spec:
    return spec_from_values(
        {
            "version": 1,
            "name": "tiny",
            "clip": {"frames": 5, "height": 8, "width": 8, "fps": 8},
            "vae": vae,
            "patch": {"time": 1, "space": 2},
            "backbone": {"kind": "transformer", "depth": 2, "width": 16, "heads": 2},
            "temporal": {"kind": "joint"},
            "objective": {"kind": "interpolant"},
            "sampler": {"kind": "heun"},
        }
    )


def new_run(path: Path, spec: Spec) -> RunFolder:
    return RunFolder.create(path / "run", dump_spec(spec))


def test_the_newest_checkpoint_counts_with_its_averages(tmp_path: Path) -> None:
    spec = spec_with(CAUSAL)
    run, vae = new_run(tmp_path, spec), build_vae(spec)
    state = {name: torch.randn_like(value) for name, value in vae.state_dict().items()}
    averages = {name: torch.randn_like(value) for name, value in vae.named_parameters()}
    for step in (1, 2):
        with run.stage("vae").writing_checkpoint(step) as folder:
            save_file({name: value + step for name, value in state.items()}, folder / "model.safetensors")
            save_file({name: value + step for name, value in averages.items()}, folder / "ema.safetensors")
            (folder / "state.json").write_text(json.dumps({"step": step, "stage": "vae", "data": ""}))
    averaged, raw = load_vae(run).state_dict(), load_vae(run, ema=False).state_dict()
    assert all(torch.equal(raw[name], state[name] + 2) for name in state)
    assert all(torch.equal(averaged[name], averages.get(name, state[name]) + 2) for name in state)
    assert not any(parameter.requires_grad for parameter in load_vae(run).parameters())


def test_a_run_without_a_trained_vae_says_how_to_train_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint of the VAE") as caught:
        load_vae(new_run(tmp_path, spec_with(CAUSAL)))
    assert "--stage vae" in str(caught.value.hint)


def test_pixels_need_no_weights(tmp_path: Path) -> None:
    spec = spec_with({"kind": "identity", "compression": {"time": 1, "space": 1}})
    assert isinstance(load_vae(new_run(tmp_path, spec)), IdentityModule)


@pytest.mark.parametrize("vae", [CAUSAL, IMAGE], ids=["causal3d", "image_kl"])
def test_the_file_that_a_spec_names_is_loaded(tmp_path: Path, vae: dict[str, Any]) -> None:
    torch.manual_seed(0)
    trained = build_vae(spec_with(vae))
    path = tmp_path / "VAE.safetensors"
    save_file(trained.state_dict(), path)
    spec = spec_with({**vae, "weights": str(path)})
    loaded, started = load_named_vae(spec), build_vae(spec)
    assert start_vae(started, spec)
    for other in (loaded, started):
        assert all(torch.equal(other.state_dict()[name], value) for name, value in trained.state_dict().items())
    assert not start_vae(started, spec_with(vae))


def test_a_file_of_another_vae_is_refused(tmp_path: Path) -> None:
    save_file({"encoder.conv_in.weight": torch.zeros(4, 3, 1, 1, 1)}, tmp_path / "VAE.safetensors")
    with pytest.raises(UserError) as caught:
        load_named_vae(spec_with({**CAUSAL, "weights": str(tmp_path / "VAE.safetensors")}))
    assert "(4, 3, 1, 1, 1), expected (4, 3, 3, 3, 3)" in caught.value.message
    assert "encoder.conv_in.bias (4)" in caught.value.message
