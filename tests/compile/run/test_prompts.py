"""Clips of a model that is steered by text: what prompts are for the network, what is asked, refused and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, T5EncoderModel

from sora_spec.builders.diffusion.noise import NoiseStream
from sora_spec.builders.text.encoder import load_encoder, text_digest
from sora_spec.builders.text.tokenizer import PromptTokenizer
from sora_spec.builders.weights.run import load_denoiser
from sora_spec.cli.generate import generate, split_words
from sora_spec.compile.run.asking import Asking, plan_clips
from sora_spec.compile.run.executors.opening import open_pipeline
from sora_spec.disk.checksums import write_checksums
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from sora_spec.language.schema.condition import TextCondition
from tests.support.text_encoders import make_encoder

SCALE = 40.0
"""Of guidance, so that the small differences of random weights are seen in 8-bit pixels."""
LEFT, RIGHT = "a seven drifts to the left", "the nine slides slowly to the right"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoders") / "t5", "t5")


def text(encoder: Path, **fields: Any) -> dict[str, Any]:
    values = {"kind": "text", "encoder": str(encoder), "tokens": 24, "width": 32, "precision": "fp32", "masked": True}
    values["feature_norm"] = "layer_norm"
    return values | fields


def make_run(toys: Any, folder: Path, condition: dict[str, Any], **sections: Any) -> RunFolder:
    pooled = condition.get("pooled")
    conditioning = {"kind": "adaln_zero"} if pooled else {"kind": "cross_attention", "modulation": "zero"}
    network = {"backbone_with": {"conditioning": conditioning}}
    spec = toys.spec(condition=condition, **network, **({"sampler_with": {"steps": 2, "guidance": SCALE}} | sections))
    return toys.run(folder, spec)


@pytest.fixture(scope="module")
def run(toys: Any, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(toys, tmp_path_factory.mktemp("runs") / "text", text(encoder))


def steered(run: RunFolder, *prompts: str | None, **settings: Any) -> list[Any]:
    pipeline = open_pipeline(run, run.load_spec(), "torch")
    return [clip.frames for clip in pipeline.generate(prompts, seed=4, **settings)]


def features_of(folder: Path, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
    """By transformers alone."""
    tokens = AutoTokenizer.from_pretrained(folder)(prompt, padding="max_length", max_length=24, return_tensors="pt")
    model = T5EncoderModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state, tokens["attention_mask"]


@pytest.mark.parametrize("negative", [None, "up"])
def test_a_guided_step_is_the_formula_over_the_features_of_transformers(
    run: RunFolder, encoder: Path, negative: str | None
) -> None:
    """One Euler step of a velocity from noise: x + u + s·(c − u)."""
    spec = run.load_spec()
    spec = spec.model_copy(update={"sampler": spec.sampler.model_copy(update={"steps": 1})})
    pipeline = open_pipeline(run, spec, "torch")
    assert pipeline.prompts is not None
    found = pipeline.sample([0], pipeline.prompts.steer([LEFT], negative), 4)

    network = load_denoiser(run)
    with torch.no_grad():
        x = torch.as_tensor(NoiseStream(4, [0], found.shape[1:]).draw())
        time = torch.zeros(1)
        c, u = (network(x, time, *features_of(encoder, prompt)) for prompt in (LEFT, negative or ""))
    wanted = x + u + SCALE * (c - u)
    assert (SCALE * (c - u)).abs().max() > 0.1
    np.testing.assert_allclose(found, wanted.numpy(), atol=2e-4, rtol=1e-4)


def test_a_clip_is_the_same_in_every_batch_and_another_prompt_is_another_clip(run: RunFolder) -> None:
    prompts = (LEFT, RIGHT, None, LEFT)
    together, alone = steered(run, *prompts, batch=4), steered(run, *prompts, batch=1)
    assert all(np.abs(one.astype(int) - other).max() <= 1 for one, other in zip(together, alone, strict=True))
    other = steered(run, RIGHT, batch=1)[0]
    assert np.abs(other.astype(int) - alone[0]).max() > 5
    assert np.array_equal(steered(run, LEFT)[0], steered(run, LEFT)[0])


def test_a_negative_prompt_takes_the_place_of_none(run: RunFolder) -> None:
    plain, empty, negative = (steered(run, LEFT, negative=text)[0] for text in (None, "", RIGHT))
    assert np.array_equal(plain, empty), "no_prompt: empty"
    assert np.abs(negative.astype(int) - plain).max() > 5


def test_a_table_stands_for_no_prompt(toys: Any, encoder: Path, tmp_path: Path) -> None:
    run = make_run(toys, tmp_path / "run", text(encoder, no_prompt="table"))
    pipeline, network = open_pipeline(run, run.load_spec(), "torch"), load_denoiser(run)
    assert pipeline.prompts is not None
    assert network.null_context is not None
    condition = pipeline.prompts.steer([LEFT, RIGHT])
    assert condition.null is not None
    assert condition.null.mask is None, "that of the prompt it stands for"
    for row in condition.null.tokens:  # type: ignore[union-attr]
        assert np.array_equal(row, network.null_context.numpy())
    assert np.abs(steered(run, LEFT, negative="")[0].astype(int) - steered(run, LEFT)[0]).max() > 5
    assert steered(run, None)[0].std() > 1


def test_pooled_text(toys: Any, encoder: Path, tmp_path: Path) -> None:
    run = make_run(toys, tmp_path / "run", text(encoder, pooled=True, masked=False))
    one, other = steered(run, LEFT, RIGHT, batch=1)
    assert np.abs(one.astype(int) - other).max() > 5


def test_files_tell_their_prompts(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.txt").write_text("\ufeffa = b\r\n\n猫 dort\n", encoding="utf-8")
    generate(
        run.path,
        [LEFT, "sampler.steps=1"],
        prompt=["x.y=z"],
        prompts=tmp_path / "prompts.txt",
        negative="blurry",
        count=8,
        seed=3,
        out=tmp_path / "clips",
    )
    prompts = [text for text in (LEFT, "x.y=z", "a = b", "猫 dort") for _ in range(2)]
    record = json.loads((tmp_path / "clips/generate.json").read_text())
    assert [clip["prompt"] for clip in record["clips"]] == prompts
    assert record["negative"] == "blurry"
    assert record["sampler"]["steps"] == 1
    names = [clip["file"] for clip in record["clips"]]
    assert names[::2] == [
        "000-a-seven-drifts-to-the-left-seed3.mp4",
        "002-x-y-z-seed3.mp4",
        "004-a-b-seed3.mp4",
        "006-dort-seed3.mp4",
    ]
    for name, prompt in zip(names, prompts, strict=True):
        with av.open(str(tmp_path / "clips" / name)) as video:
            assert video.metadata["comment"] == prompt
    with Image.open(tmp_path / "clips/contact-sheet.png") as sheet:
        assert sheet.height == 8 * 3 * (16 + 6 + 2) - 3 * 2, "rows of 16 pixels threefold, each with a line of text"
    assert "only the first" not in capsys.readouterr().err


def test_a_prompt_that_is_too_long_is_told_of(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(run.path, ["seven " * 40], steps=1, out=tmp_path / "clips")
    assert "only the first 24 tokens count" in capsys.readouterr().err


def test_words_are_prompts_or_settings() -> None:
    words = ["a cat", "sampler.steps=4", "E=mc²", "x=1", "a = b", "name=x", "vae.tiling={kind: none}"]
    assert split_words(words) == (
        ["a cat", "E=mc²", "a = b"],
        ["sampler.steps=4", "x=1", "name=x", "vae.tiling={kind: none}"],
    )


@pytest.mark.parametrize(
    ("asking", "said"),
    [
        (Asking(), "no prompt is given"),
        (Asking(labels=["3"]), "takes no labels: its condition is text"),
        (Asking(prompts=["a", "b"], count=3), "not a multiple of the 2 prompts"),
        (Asking(prompts=["a"], count=0), "--count 0 is outside"),
        (Asking(prompts=["a"], unconditional=True), "ask for two things"),
        (Asking(prompts=["\udcff"]), "not text in UTF-8"),
    ],
)
def test_what_a_model_with_text_refuses(toys: Any, encoder: Path, asking: Asking, said: str) -> None:
    conditioning = {"conditioning": {"kind": "cross_attention"}}
    spec = toys.spec(condition=text(encoder), backbone_with=conditioning)
    with pytest.raises(UserError, match=said):
        plan_clips(spec, asking)
    assert plan_clips(spec, Asking(prompts=["a", "b"], count=4)) == ["a", "a", "b", "b"]
    assert plan_clips(spec, Asking(unconditional=True, count=2)) == [None, None]


def test_what_other_models_refuse(toys: Any, encoder: Path) -> None:
    for asking in (Asking(prompts=["a cat"]), Asking(negative="a cat")):
        with pytest.raises(UserError, match=r"not steered by text: its condition is class, and 'a cat' is a prompt"):
            plan_clips(toys.spec(), asking)
    spec = toys.spec(
        condition=text(encoder, dropout=0.0),
        backbone_with={"conditioning": {"kind": "cross_attention"}},
        sampler_with={"guidance": 1.0},
    )
    with pytest.raises(UserError, match="trained without clips that have no prompt"):
        plan_clips(spec, Asking(unconditional=True))
    with pytest.raises(UserError, match="counts for nothing without guidance"):
        plan_clips(spec, Asking(prompts=["a"], negative="b"))


def test_prompt_files_that_cannot_be_read(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("é\n".encode("latin-1"))
    (tmp_path / "empty.txt").write_text("\n \n")
    for name, said in (("latin.txt", "is not UTF-8"), ("empty.txt", "holds no prompt"), ("no.txt", "cannot be read")):
        with pytest.raises(UserError, match=said):
            generate(run.path, prompts=tmp_path / name, out=tmp_path / "clips")


def test_another_encoder_than_the_run_learnt_with_is_told_of(
    run: RunFolder, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], toys: Any
) -> None:
    condition = TextCondition(**text(encoder))
    mine = text_digest(load_encoder(condition), PromptTokenizer.open(encoder / "tokenizer.json", 24))
    again = make_run(toys, tmp_path / "run", text(encoder))
    checkpoint = again.stage("denoiser").checkpoint_path(10)
    state = json.loads((checkpoint / "state.json").read_text())
    for digest, told in ((mine, False), ("0" * 64, True)):
        (checkpoint / "state.json").write_text(json.dumps(state | {"text": digest}))
        write_checksums(checkpoint)
        open_pipeline(again, again.load_spec(), "torch")
        assert ("learnt with another text encoder" in capsys.readouterr().err) == told
