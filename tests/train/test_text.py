"""Training on captions: what steers the network, what is dropped, and what a run that goes on repeats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertModel

from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from sora_spec.train.captions import CaptionSource
from sora_spec.train.data.loader import collate
from sora_spec.train.ranks import Ranks
from sora_spec.train.stages.denoiser import DenoiserTask
from sora_spec.train.start import train_stage, try_stage
from tests.support.text_encoders import make_encoder

TOKENS = {"backbone__conditioning": {"kind": "cross_attention", "modulation": "zero"}}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoders") / "bert", "bert")


@pytest.fixture
def text_spec(tiny_spec: Any, digits: Path, bert: Path) -> Any:
    def make(pooled: bool = False, condition: dict[str, Any] | None = None, **fields: Any) -> Spec:
        text = {"kind": "text", "encoder": str(bert), "tokens": 32, "width": 32, "precision": "fp32"}
        text |= {"dropout": 0.5, "pooled": pooled, "masked": not pooled} | (condition or {})
        data = {"condition": text, "train__data": str(digits / "clips.jsonl")}
        return tiny_spec(**(data | ({} if pooled else TOKENS) | fields))

    return make


def task_of(spec: Spec) -> DenoiserTask:
    return DenoiserTask(spec, None, Ranks(0, 1, torch.device("cpu")))


def seen(task: DenoiserTask, monkeypatch: pytest.MonkeyPatch, step: int = 3) -> tuple[tuple[Any, ...], list[str]]:
    """What the network is given beside latents and time in one step, and the captions of its clips."""
    calls = list[tuple[Any, ...]]()
    forward = task.module.forward

    def record(x: torch.Tensor, time: torch.Tensor, *condition: Any) -> torch.Tensor:
        calls.append(condition)
        return forward(x, time, *condition)

    monkeypatch.setattr(task.module, "forward", record)
    batch = collate([task.dataset[number] for number in range(8)])
    task.terms(batch, step, range(8))
    return calls[0], list(batch.captions)


def features_of(folder: Path, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """By transformers alone."""
    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, padding="max_length", truncation=True, max_length=32, return_tensors="pt"
    )
    model = BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state, tokens["attention_mask"]


def dropped_of(task: DenoiserTask, step: int = 3) -> torch.Tensor:
    dropped = task._dropped(step, torch.arange(8))
    assert 0 < dropped.sum() < 8
    return dropped


def test_a_network_is_given_the_features_of_captions_and_of_the_empty_prompt(
    text_spec: Any, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(text_spec())
    (tokens, mask), captions = seen(task, monkeypatch)
    assert all("handwritten" in caption for caption in captions)
    kept = ["" if gone else caption for gone, caption in zip(dropped_of(task), captions, strict=True)]
    wanted, wanted_mask = features_of(bert, kept)
    torch.testing.assert_close(tokens, wanted, atol=2e-5, rtol=1e-4)
    assert torch.equal(mask, wanted_mask)


def test_a_pooled_vector_is_the_mean_over_real_tokens(
    text_spec: Any, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(text_spec(pooled=True, condition={"dropout": 0.0}, sampler__guidance=1.0))
    (pooled,), captions = seen(task, monkeypatch)
    wanted, mask = features_of(bert, captions)
    means = torch.stack([row[real.bool()].mean(0) for row, real in zip(wanted, mask, strict=True)])
    torch.testing.assert_close(pooled, means, atol=2e-5, rtol=1e-4)


def test_a_table_takes_the_place_of_a_dropped_caption_and_its_mask_stays(
    text_spec: Any, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(text_spec(condition={"no_prompt": "table"}))
    (tokens, mask), captions = seen(task, monkeypatch)
    wanted, wanted_mask = features_of(bert, captions)
    dropped, table = dropped_of(task), task.module.null_context
    assert table is not None
    assert torch.equal(mask, wanted_mask)
    for index, gone in enumerate(dropped):
        torch.testing.assert_close(tokens[index], table if gone else wanted[index], atol=2e-5, rtol=1e-4)


def test_a_caption_is_encoded_once_and_the_cache_is_bounded(text_spec: Any) -> None:
    condition = text_spec().condition
    source = CaptionSource.open(condition, torch.device("cpu"))
    encoded = list[torch.Tensor]()
    source.encoder.register_forward_hook(lambda *call: encoded.append(call[-1]))
    first = source.features(["seven", "three", "seven"])
    again = source.features(["three", "seven", "seven"])
    assert len(encoded) == 2
    assert first.tokens is not None
    assert again.tokens is not None
    assert torch.equal(first.tokens[[1, 0, 0]], again.tokens)
    assert not first.tokens.is_inference()
    source.limit_bytes = 2 * (encoded[0][0].nbytes + 32 * 8)
    source.features(["nine", "three", "zero"])
    assert list(source._known) == ["three", "zero"]


FIELDS = {"train__steps": 6, "train__checkpoint_every": 3, "train__sample_every": 6}


def test_captions_that_are_read_in_part_are_said(text_spec: Any, capfd: pytest.CaptureFixture[str]) -> None:
    condition = text_spec().condition
    source = CaptionSource.open(condition, torch.device("cpu"))
    long = "seven left " * condition.tokens
    source.warn_of_cut(["a seven", long, long, None])
    said = " ".join(capfd.readouterr().err.split())
    assert f"only the first {condition.tokens} tokens (condition.tokens) are read of 1 of 2 captions" in said
    source.warn_of_cut(["a seven", None])
    assert capfd.readouterr().err == ""


def test_a_run_that_goes_on_is_the_run_that_never_stopped(text_spec: Any, tmp_path: Path) -> None:
    train_stage(text_spec(**FIELDS), tmp_path / "whole")
    train_stage(text_spec(**FIELDS | {"train__steps": 3}), tmp_path / "parts")
    train_stage(text_spec(**FIELDS), tmp_path / "parts", resume=True)
    one, other = (
        load_file(tmp_path / name / "denoiser/checkpoints/step-00000006/model.safetensors")
        for name in ("whole", "parts")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_sample_grids_show_their_prompts(text_spec: Any, tmp_path: Path) -> None:
    prompts = ("a handwritten 3 moving left", "eine 7 nach rechts · 向右")
    train_stage(text_spec(**FIELDS | {"train__prompts": prompts, "train__steps": 6}), tmp_path / "run")
    samples = tmp_path / "run/denoiser/samples"
    with av.open(str(samples / "step-00000006.mp4")) as video:
        assert video.metadata["comment"] == "\n".join(prompts)
    with Image.open(samples / "step-00000006.png") as sheet:
        assert sheet.height == 2 * (64 + 16) + 8  # two rows of 16 pixels fourfold, a line of text below each


def test_default_prompts_are_the_first_captions(text_spec: Any) -> None:
    task = task_of(text_spec())
    assert task._prompts() == list(dict.fromkeys(task.dataset.captions or ()))[:8]
    assert len(task._prompts()) == 8


def test_a_clip_has_its_own_caption(text_spec: Any) -> None:
    clips = task_of(text_spec()).dataset
    assert clips.captions is not None
    for file, caption in zip(clips.files, clips.captions, strict=True):
        assert f"a handwritten {file.path.parent.name} " in caption


def test_a_source_without_captions_is_refused_with_what_to_add(text_spec: Any, digits: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"40 of 40 files in .* have no caption") as caught:
        try_stage(text_spec(train__data=str(digits)), tmp_path / "run")
    assert "clips.jsonl" in (caught.value.hint or "")


def test_other_captions_and_another_encoder_are_another_run(text_spec: Any, digits: Path, tmp_path: Path) -> None:
    train_stage(text_spec(**FIELDS | {"train__steps": 3}), tmp_path / "run")
    rows = [json.loads(line) for line in (digits / "clips.jsonl").read_text().splitlines()]
    rows = [row | {"path": str(digits / row["path"])} for row in rows]
    rows[5]["caption"] += "!"
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match="are not those that"):
        train_stage(text_spec(**FIELDS, train__data=str(tmp_path / "clips.jsonl")), tmp_path / "run", resume=True)
    other = make_encoder(tmp_path / "bert", "bert", seed=1)
    spec = text_spec(**FIELDS, condition={"encoder": str(other)})
    with pytest.raises(UserError, match=r"the text encoder of .* is not the one that its denoiser learnt with"):
        train_stage(spec, tmp_path / "run", resume=True)
    train_stage(spec, tmp_path / "run", resume=True, change=True)
