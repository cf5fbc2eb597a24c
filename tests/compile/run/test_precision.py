"""`generate --precision`: the networks compute in what was asked for, and the sampler between them in fp32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sora_spec.builders.diffusion.noise import NoiseStream
from sora_spec.builders.weights.run import load_denoiser
from sora_spec.builders.weights.vae_run import load_vae
from sora_spec.cli.generate import generate
from sora_spec.compile.bundle.bundle import Bundle
from sora_spec.compile.run.executors.opening import choose_precision, open_pipeline
from sora_spec.compile.run.pipeline import with_role
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from sora_spec.video import to_uint8

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@torch.inference_mode()
def by_hand(run: RunFolder, label: int, seed: int, dtype: torch.dtype) -> Any:
    """The tiny spec's four Euler steps under guidance 2, written out: latents in fp32, networks in `dtype`."""
    denoiser, vae = load_denoiser(run).to(dtype).eval(), load_vae(run).to(dtype).eval()
    x = torch.from_numpy(NoiseStream(seed, [0], (4, 3, 8, 12)).draw())
    for step in range(4):
        time = torch.full((2,), step / 4)
        both = denoiser(torch.cat([x, x]).to(dtype), time, torch.tensor([label, 4])).float()
        x = x + 0.25 * (both[1:] + 2.0 * (both[:1] - both[1:]))
    return to_uint8(vae.decode(x.to(dtype)).float()[0].numpy())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_clips_are_those_of_networks_in_that_precision(tiny_run: RunFolder, precision: Any) -> None:
    pipeline = open_pipeline(tiny_run, tiny_run.load_spec(), "torch", precision=precision)
    found = next(pipeline.generate([2], seed=7)).frames
    np.testing.assert_array_equal(found, by_hand(tiny_run, 2, 7, DTYPES[precision]))


def test_the_record_says_what_was_computed_in(
    tiny_run: RunFolder, tiny_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for number, (source, asked) in enumerate([(tiny_run, None), (tiny_run, "bf16"), (tiny_bundle, "fp32")]):
        generate(source.path, count=1, precision=asked, out=tmp_path / str(number), as_json=True)  # type: ignore[arg-type]
        found.append(json.loads(capsys.readouterr().out)["precision"])
    assert found == ["fp32", "bf16", "fp32"]


def test_a_bundle_is_of_one_precision(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="was exported in fp32") as failure:
        generate(tiny_bundle.path, count=1, precision="bf16", out=tmp_path / "clips")
    assert "export RUN --precision bf16" in str(failure.value.hint)
    assert not (tmp_path / "clips").exists()


def test_bf16_needs_a_gpu_that_has_it(tiny_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision(tiny_run, "bf16") == "bf16"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    with pytest.raises(UserError, match="Tesla V100 has no bf16 arithmetic"):
        choose_precision(tiny_run, "bf16")


def test_clips_beyond_the_range_of_fp16_are_refused(tiny_run: RunFolder) -> None:
    """A decoder whose last layer adds 100,000 in every channel: finite in fp32, infinite in fp16."""

    def pushed(precision: Any) -> Any:
        pipeline = open_pipeline(tiny_run, tiny_run.load_spec(), "torch", precision=precision)
        module: Any = with_role(pipeline.stages, "decode")
        module.module.register_forward_hook(lambda _module, _inputs, out: (out.to(DTYPES[precision]) + 1e5).float())
        return next(pipeline.generate([1], seed=0)).frames

    assert np.isfinite(pushed("fp32")).all()
    with pytest.raises(UserError, match="beyond the range of fp16"):
        pushed("fp16")
