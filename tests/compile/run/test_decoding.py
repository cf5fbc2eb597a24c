"""A decoder that samples goes where the VAE's single pass goes: through the whole pipeline, to files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from sora_spec.builders.diffusion.noise import SAMPLING, NoiseStream
from sora_spec.compile.run.decoding import Noise, Progress, decoder_of
from sora_spec.compile.run.executors.opening import open_pipeline
from sora_spec.compile.run.generation import Job, run_job
from sora_spec.compile.run.pipeline import Pipeline, with_role
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from sora_spec.graph.lower import families
from sora_spec.language.abilities import UNBUILT
from sora_spec.plan.devices.hardware import find_device
from sora_spec.plan.job import Job as Planned
from sora_spec.plan.memory.generate_phases import decode_calls
from sora_spec.plan.remarks import assumptions

SIGMAS = (2.0, 0.5)
DECODING_LANE = 1


@dataclass(frozen=True)
class TwoSteps:
    """Multistep consistency sampling (arXiv 2303.01469, algorithm 1) over a toy consistency function: the real
    decoder's video, plus a share of the noisy input, on which it therefore depends."""

    stage: Any
    calls: int = len(SIGMAS)

    def decode(self, latents: NDArray[np.float32], noise: Noise, progress: Progress) -> NDArray[np.float32]:
        clean = np.zeros(1, np.float32)
        stream = None
        for sigma in SIGMAS:
            guide = self.stage.run({"latents": latents})["video"]
            stream = stream or noise(guide.shape[1:])
            clean = guide + 0.1 * (clean + sigma * stream.draw())
            progress(len(latents))
        return clean


def sampled(run: RunFolder) -> Pipeline:
    pipeline = open_pipeline(run, run.load_spec(), "torch")
    pipeline.decoder = TwoSteps(with_role(pipeline.stages, "decode"))
    return pipeline


def philox(seed: int, index: int, lane: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64), counter=lane << 192))


def test_a_sampled_decoder_makes_files(tiny_run: RunFolder, tmp_path: Path) -> None:
    pipeline, calls = sampled(tiny_run), list[int]()
    assert pipeline.calls == 4 + 2, "four of the sampler, two of the decoder"
    clips = list(pipeline.generate([0, 1, 2], seed=9, batch=2, progress=calls.append))
    assert sum(calls) == 3 * 6
    record = run_job(pipeline, Job(tmp_path, [0, 1, 2], None, 9, 2, tmp_path / "clips"))
    assert [(part["name"], part["role"]) for part in record["parts"]] == [
        ("denoiser", "denoise"),
        ("vae_decoder", "decode"),
    ]
    assert set(record["seconds"]) == {"denoiser", "vae_decoder", "video", "total"}
    assert json.loads((tmp_path / "clips" / "generate.json").read_text()) == record
    for clip, described in zip(clips, record["clips"], strict=True):
        with av.open(str(tmp_path / "clips" / described["file"])) as container:
            assert sum(1 for _ in container.decode(video=0)) == 5 == len(clip.frames)


def test_its_noise_is_the_samples_own(tiny_run: RunFolder) -> None:
    """By hand: numpy's Philox with the lane in the highest word of the counter, whatever the sampler has drawn."""
    pipeline = sampled(tiny_run)
    latents = np.stack([NoiseStream(9, [index], (4, 3, 8, 12)).draw()[0] for index in (0, 1)])
    guide = with_role(pipeline.stages, "decode").run({"latents": latents[1:]})["video"]
    draws = philox(9, 1, DECODING_LANE)
    first, second = (draws.standard_normal(guide.shape, np.float32) for _ in SIGMAS)
    wanted = guide + 0.1 * (guide + 0.1 * (2.0 * first) + 0.5 * second)
    np.testing.assert_allclose(pipeline.decode(latents[1:], [1], 9), wanted, rtol=0, atol=1e-6)
    together, alone = pipeline.decode(latents, [0, 1], 9), pipeline.decode(latents[1:], [1], 9)
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)
    np.testing.assert_array_equal(latents[1], philox(9, 1, SAMPLING).standard_normal((4, 3, 8, 12), np.float32))


def test_clips_of_a_sampled_decoder_do_not_depend_on_the_batch(tiny_run: RunFolder) -> None:
    pipeline = sampled(tiny_run)
    one, two = (np.stack([c.frames for c in pipeline.generate([0, 1], seed=3, batch=batch)]) for batch in (1, 2))
    assert np.abs(one.astype(int) - two).max() <= 1


def test_progress_counts_every_pass_of_tiles_and_pieces(toys: Any, tmp_path: Path) -> None:
    spec = toys.spec(
        vae={"kind": "image_kl", "compression": {"space": 2}, "width": 8, "multipliers": [1, 2], "blocks": 1,
             "groups": 4, "tiling": {"kind": "spatial", "tile": 16, "overlap": 8}},
        clip_with={"frames": 7},
        export={"decode_frames": 3, "batch": [1, 2]},
        sampler={"kind": "euler", "steps": 1},
    )  # fmt: skip
    pipeline, calls = open_pipeline(toys.run(tmp_path / "run", spec), spec, "torch"), list[int]()
    next(pipeline.generate([0], progress=calls.append))
    assert pipeline.decoder.calls == 3 * 2, "3 + 3 + 1 frames of 2 tiles"
    assert sum(calls) == 1 + 3 * 2 == pipeline.calls
    adaptive = spec.model_copy(update={"sampler": toys.spec(sampler={"kind": "dopri5"}).sampler})
    assert Pipeline(adaptive, pipeline.stages, pipeline.decoder).calls is None


def test_the_plan_counts_the_steps_of_a_decoder_that_samples(toys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the VAE's own graph in the place of one, which nothing builds yet."""
    monkeypatch.setitem(families.LOWERED, "vae.decoder", ("kl", "consistency"))
    monkeypatch.setitem(UNBUILT, "vae.decoder", ())
    spec = toys.spec()
    section = type(spec.vae).model_validate(
        spec.vae.model_dump(mode="json") | {"decoder": {"kind": "consistency", "steps": 3}}
    )
    asked = spec.model_copy(update={"vae": section})
    plain, counted = (Planned(s, find_device("a100-80gb"), 1, mode="generate") for s in (spec, asked))
    assert math.isclose(decode_calls(counted), 3 * decode_calls(plain))
    words = "the decoder samples: 3 calls for each piece of a clip"
    assert words in assumptions(counted)
    assert words not in assumptions(plain)
    with pytest.raises(UserError, match=r"vae\.decoder samples"):
        decoder_of(asked, None)  # type: ignore[arg-type]
