"""What a checkpoint says of itself, as earlier versions wrote it too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sora_spec.disk.checkpoints import read_state

OLD = {"step": 3, "stage": "denoiser", "data": "d", "window": {"loss": 1.5}, "window_steps": 1, "format": 2}
"""A `state.json` of version 0.1's first checkpoints, which called the VAE a codec."""


@pytest.mark.parametrize("name", ["codec", "vae"])
def test_the_digest_of_the_vae_under_its_old_and_its_new_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "state.json").write_text(json.dumps(OLD | {name: "0f"}))
    state = read_state(tmp_path)
    assert (state.step, state.vae) == (3, "0f")


def test_a_digest_that_is_no_text_is_damage(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps(OLD | {"codec": 5}))
    with pytest.raises(ValueError, match="damaged"):
        read_state(tmp_path)
