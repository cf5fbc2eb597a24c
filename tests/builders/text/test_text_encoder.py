"""Encoders against `transformers` called directly, and what is refused of their folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BertModel,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5EncoderModel,
    T5ForConditionalGeneration,
    UMT5EncoderModel,
)

from sora_spec.builders.text.encoder import TextEncoder, load_encoder
from sora_spec.builders.text.folders import find_encoder
from sora_spec.builders.text.tokenizer import PromptTokenizer
from sora_spec.errors import UserError
from sora_spec.language.schema.condition import TextCondition
from tests.support.text_encoders import KINDS, WIDTH, Kind, make_encoder

MINI_LM = "sentence-transformers/all-MiniLM-L6-v2"
PROMPTS = ["a seven drifts to the left", "", "über 数字 ⅷ moves\n up", "the nine slides slowly to the right " * 9]
CLASSES: dict[Kind, Any] = {
    "t5": T5EncoderModel,
    "umt5": UMT5EncoderModel,
    "clip": CLIPTextModel,
    "clip-projected": CLIPTextModelWithProjection,
    "bert": BertModel,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Path]:
    return {kind: make_encoder(tmp_path_factory.mktemp("encoders") / kind, kind) for kind in KINDS}


def condition(encoder: Path | str, tokens: int = 20, width: int = WIDTH, **fields: Any) -> TextCondition:
    values = {"kind": "text", "encoder": str(encoder), "tokens": tokens, "width": width, "precision": "fp32"}
    return TextCondition(**(values | fields))


def encoded(encoder: TextEncoder, prompts: list[str], tokens: int = 20, folder: Path | None = None) -> Tensor:
    assert folder is not None
    ids, mask = PromptTokenizer.open(find_encoder(str(folder)).tokenizer, tokens)(prompts)
    with torch.no_grad():
        return encoder(torch.from_numpy(ids), torch.from_numpy(mask))


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_features_are_those_of_transformers(folders: dict[Kind, Path], kind: Kind) -> None:
    folder = folders[kind]
    reader = AutoTokenizer.from_pretrained(folder)
    wanted = reader(PROMPTS, padding="max_length", truncation=True, max_length=20, return_tensors="pt")
    tokenizer = PromptTokenizer.open(folder / "tokenizer.json", 20)
    ids, mask = tokenizer(PROMPTS)
    assert (ids == wanted["input_ids"].numpy()).all()
    assert (mask == wanted["attention_mask"].numpy()).all()
    assert [tokenizer.is_cut(prompt) for prompt in PROMPTS] == [
        len(reader(prompt).input_ids) > 20 for prompt in PROMPTS
    ]

    reference = CLASSES[kind].from_pretrained(folder).eval()
    with torch.no_grad():
        found = reference(input_ids=wanted["input_ids"], attention_mask=wanted["attention_mask"])
    torch.testing.assert_close(
        encoded(load_encoder(condition(folder)), PROMPTS, folder=folder), found.last_hidden_state
    )

    real = wanted["attention_mask"].bool()
    means = torch.stack([row[kept].mean(0) for row, kept in zip(found.last_hidden_state, real, strict=True)])
    own = {"clip": getattr(found, "pooler_output", None), "clip-projected": getattr(found, "text_embeds", None)}
    width = 24 if kind == "clip-projected" else WIDTH
    pooled = encoded(load_encoder(condition(folder, width=width, pooled=True)), PROMPTS, folder=folder)
    torch.testing.assert_close(pooled, own.get(kind, means))


@pytest.mark.parametrize("kind", ["t5", "umt5", "bert"])
def test_padding_is_passed_over_inside_the_encoder(folders: dict[Kind, Path], kind: Kind) -> None:
    encoder = load_encoder(condition(folders[kind]))
    short, long = (encoded(encoder, ["a seven moves"], tokens, folders[kind]) for tokens in (14, 20))
    _, mask = PromptTokenizer.open(folders[kind] / "tokenizer.json", 14)(["a seven moves"])
    real = mask[0].astype(bool)
    assert 2 < real.sum() < 14
    torch.testing.assert_close(short[0, real], long[0, :14][real], atol=2e-5, rtol=1e-5)


def test_a_whole_t5_gives_its_encoder_alone(folders: dict[Kind, Path], tmp_path: Path) -> None:
    """`AutoModel` would add a decoder with random weights."""
    config = T5EncoderModel.from_pretrained(folders["t5"]).config
    whole = T5ForConditionalGeneration(config).eval()
    shutil.copytree(folders["t5"], tmp_path / "t5")
    whole.save_pretrained(tmp_path / "t5")
    encoder = load_encoder(condition(tmp_path / "t5"))
    assert type(encoder.model).__name__ == "T5EncoderModel"
    ids, mask = (torch.from_numpy(part) for part in PromptTokenizer.open(tmp_path / "t5/tokenizer.json", 20)(PROMPTS))
    with torch.no_grad():
        wanted = whole.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(encoded(encoder, PROMPTS, folder=tmp_path / "t5"), wanted)


def test_the_packaged_encoder_makes_sentence_vectors_that_know_what_is_alike() -> None:
    encoder = load_encoder(condition(MINI_LM, 24, 384, pooled=True))
    prompts = ["a dog plays in the garden", "a puppy is playing outside", "the stock market fell sharply"]
    found = encoded(encoder, prompts, 24, find_encoder(MINI_LM).folder)
    unit = torch.nn.functional.normalize(found, dim=-1)
    assert unit[0] @ unit[1] > 0.6 > 0.2 > unit[0] @ unit[2]


def test_precision_and_freezing(folders: dict[Kind, Path]) -> None:
    encoder = load_encoder(condition(folders["t5"], precision="bf16"))
    assert {p.dtype for p in encoder.parameters()} == {torch.bfloat16}
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    features = encoded(encoder, PROMPTS, folder=folders["t5"])
    assert features.dtype == torch.float32
    assert not features.is_inference()


def test_a_tokenizer_that_was_saved_needs_nothing_beside_it(folders: dict[Kind, Path], tmp_path: Path) -> None:
    for kind in ("t5", "clip", "bert"):
        first = PromptTokenizer.open(folders[kind] / "tokenizer.json", 20)
        first.save(tmp_path / "tokenizer.json")
        again = PromptTokenizer.reopen(tmp_path / "tokenizer.json")
        for one, other in zip(first(PROMPTS), again(PROMPTS), strict=True):
            assert (one == other).all()


def test_diffusers_layout(folders: dict[Kind, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["t5"], tmp_path / "text_encoder")
    (tmp_path / "tokenizer").mkdir()
    for path in (tmp_path / "text_encoder").glob("tokenizer*"):
        path.rename(tmp_path / "tokenizer" / path.name)
    assert find_encoder(str(tmp_path / "text_encoder")).tokenizer == tmp_path / "tokenizer/tokenizer.json"


def test_a_copy_in_the_cache_of_hugging_face(
    folders: dict[Kind, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "models--some--encoder"
    shutil.copytree(folders["bert"], cache / "snapshots/abc")
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    assert find_encoder("some/encoder").folder == cache / "snapshots/abc"


def opened(folder: Path) -> tuple[PromptTokenizer, TextEncoder]:
    return PromptTokenizer.open(find_encoder(str(folder)).tokenizer, 20), load_encoder(condition(folder))


def damaged(folder: Path, what: str) -> None:
    match what:
        case "no weights":
            (folder / "model.safetensors").unlink()
        case "cut short":
            data = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
        case "a tensor is missing":
            state = load_file(folder / "model.safetensors")
            state.pop(sorted(name for name in state if "layer" in name)[0])
            save_file(state, folder / "model.safetensors", {"format": "pt"})
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
        case "no JSON":
            (folder / "config.json").write_text("{")
        case "no encoder":
            (folder / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_size": 32}))
        case "tokenizer is no JSON":
            (folder / "tokenizer.json").write_text("{}")
        case _:
            raise AssertionError(what)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no weights", "has no weights"),
        ("cut short", "cannot be read"),
        ("a tensor is missing", "not those of its config.json: has no"),
        ("no tokenizer", "has no tokenizer.json"),
        ("no JSON", "is not"),
        ("no encoder", "encodes no text"),
        ("tokenizer is no JSON", "not a tokenizer"),
    ],
)
def test_damaged_folders(folders: dict[Kind, Path], tmp_path: Path, what: str, said: str) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(folders["bert"], folder)
    damaged(folder, what)
    with pytest.raises(UserError) as caught:
        opened(folder)
    assert said in caught.value.message
    assert str(folder) in caught.value.message
    assert caught.value.hint


def test_an_encoder_that_is_nowhere_is_named_with_what_to_bring() -> None:
    for name in ("google/t5-v1_1-xxl", "./no/such/folder", "not a name: at all"):
        with pytest.raises(UserError, match=r"is not on this machine") as caught:
            load_encoder(condition(name))
        assert "tokenizer.json" in (caught.value.hint or "")


def test_width_and_length_are_checked_before_weights_are_read(folders: dict[Kind, Path], tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(folders["clip"], folder)
    (folder / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(UserError, match=r"condition\.width is 48, but the features of .* have width 32"):
        load_encoder(condition(folder, width=48))
    with pytest.raises(UserError, match=r"condition\.tokens: this encoder takes prompts of 77 tokens"):
        load_encoder(condition(folder, tokens=78))
