"""Which text encoder a spec names: the figures of released ones, or a local folder's `config.json`."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, cast

from sora_spec.errors import UserError

Family = Literal["t5", "umt5", "clip", "bert"]
Activation = Literal["gelu", "gelu_new", "quick_gelu", "relu", "silu"]


@dataclass(frozen=True)
class EncoderConfig:
    """The extents of a text encoder, as far as parameters, FLOPs and bytes depend on them."""

    family: Family
    """T5 (one table of relative positions), UMT5 (one for each block), CLIP's text model, or BERT."""
    width: int
    depth: int
    heads: int
    head_width: int
    hidden: int
    """Width inside the MLP."""
    vocabulary: int
    activation: Activation
    gated: bool = False
    """Whether the MLP multiplies two projections (T5 v1.1)."""
    positions: int = 0
    """Rows of the table of absolute positions: the most tokens that it takes. 0: positions are relative."""
    buckets: int = 32
    """Rows of T5's table of relative positions."""
    types: int = 2
    """Rows of BERT's table of segments."""
    projection: int | None = None
    """Width of the projected pooled vector of CLIP, where there is one."""
    last_token_is_largest: bool = True
    """Whether CLIP's pooled place is found as the largest token (`eos_token_id: 2`), or by its number."""

    @property
    def pooled_width(self) -> int:
        """Width of the one vector of a prompt."""
        return self.projection or self.width


def _t5(width: int, hidden: int, depth: int, heads: int, head_width: int = 64) -> EncoderConfig:
    return EncoderConfig("t5", width, depth, heads, head_width, hidden, 32_128, "relu")


def _gated_t5(width: int, hidden: int, depth: int, heads: int) -> EncoderConfig:
    return replace(_t5(width, hidden, depth, heads), activation="gelu_new", gated=True)


def _umt5(width: int, hidden: int, depth: int, heads: int) -> EncoderConfig:
    return replace(_gated_t5(width, hidden, depth, heads), family="umt5", vocabulary=256_384)


def _clip(width: int, hidden: int, depth: int, heads: int, activation: Activation = "quick_gelu") -> EncoderConfig:
    return EncoderConfig("clip", width, depth, heads, width // heads, hidden, 49_408, activation, positions=77)


def _mini_lm(depth: int) -> EncoderConfig:
    return EncoderConfig("bert", 384, depth, 12, 32, 1536, 30_522, "gelu", positions=512)


_GATED = {
    "small": _gated_t5(512, 1024, 8, 6),
    "base": _gated_t5(768, 2048, 12, 12),
    "large": _gated_t5(1024, 2816, 24, 16),
    "xl": _gated_t5(2048, 5120, 24, 32),
    "xxl": _gated_t5(4096, 10_240, 24, 64),
}

RELEASED: dict[str, EncoderConfig] = {
    **{f"t5-v1_1-{size}": config for size, config in _GATED.items()},
    **{f"flan-t5-{size}": config for size, config in _GATED.items()},
    "t5-small": _t5(512, 2048, 6, 8),
    "t5-base": _t5(768, 3072, 12, 12),
    "t5-large": _t5(1024, 4096, 24, 16),
    "t5-3b": _t5(1024, 16_384, 24, 32, 128),
    "t5-11b": _t5(1024, 65_536, 24, 128, 128),
    "umt5-small": _umt5(512, 1024, 8, 6),
    "umt5-base": _umt5(768, 2048, 12, 12),
    "umt5-xl": _umt5(2048, 5120, 24, 32),
    "umt5-xxl": _umt5(4096, 10_240, 24, 64),
    "clip-vit-base-patch16": _clip(512, 2048, 12, 8),
    "clip-vit-base-patch32": _clip(512, 2048, 12, 8),
    "clip-vit-large-patch14": _clip(768, 3072, 12, 12),
    "clip-vit-large-patch14-336": _clip(768, 3072, 12, 12),
    "clip-vit-h-14-laion2b-s32b-b79k": _clip(1024, 4096, 24, 16, "gelu"),
    "clip-vit-bigg-14-laion2b-39b-b160k": replace(_clip(1280, 5120, 32, 20, "gelu"), projection=1280),
    "all-minilm-l6-v2": _mini_lm(6),
    "all-minilm-l12-v2": _mini_lm(12),
}
"""Released encoders by the last part of their name, lower-cased; figures of their published `config.json`."""


def find_config(encoder: str) -> EncoderConfig | None:
    """The encoder that `condition.encoder` names: a folder with a `config.json`, or a released one; None for others.

    Raises UserError: the folder's `config.json` cannot be read, or describes another kind of model.
    """
    path = os.path.join(encoder, "config.json")
    try:
        changed = os.stat(path).st_mtime_ns
    except (OSError, ValueError):
        return RELEASED.get(encoder.rstrip("/").rpartition("/")[2].lower())
    return _read(path, changed)


def known_config(encoder: str) -> EncoderConfig:
    """`find_config`, for an encoder that must be known. Raises UserError."""
    config = find_config(encoder)
    if config is None:
        raise UserError(
            f"condition.encoder: there is no model graph of {encoder!r}",
            "name a folder with the `config.json` of a T5, UMT5, CLIP text or BERT model, or a released encoder: "
            + ", ".join(RELEASED),
        )
    return config


def check_tokens(config: EncoderConfig, tokens: int) -> None:
    """Raises UserError where a prompt is longer than the encoder's table of positions."""
    if config.positions and tokens > config.positions:
        raise UserError(
            f"condition.tokens: this encoder takes prompts of {config.positions} tokens, and {tokens} are asked for",
            f"set condition.tokens={config.positions}",
        )


@lru_cache(maxsize=16)
def _read(path: str, changed: int) -> EncoderConfig:
    import json

    try:
        with open(path, encoding="utf-8") as file:
            values: Any = json.load(file)
        return config_from_values(values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"condition.encoder: {path} is not the configuration of a text encoder that is known here ({error})",
            "name a folder as `transformers` writes it, of a T5, UMT5, CLIP text or BERT model",
        ) from None


def config_from_values(values: dict[str, Any]) -> EncoderConfig:
    """An encoder from what its `config.json` says, in the layout and with the defaults of `transformers`.

    Raises ValueError: another kind of model.
    """
    match values.get("model_type"):
        case "t5" | "mt5":
            return _read_t5(values, "t5", {"vocab_size": 32_128, "d_ff": 2048, "num_layers": 6, "num_heads": 8})
        case "umt5":
            defaults = {"vocab_size": 250_112, "d_ff": 1024, "num_layers": 8, "num_heads": 6}
            return _read_t5(values, "umt5", defaults | {"feed_forward_proj": "gated-gelu"})
        case "clip":
            return _read_clip(values.get("text_config") or {})
        case "clip_text_model":
            return _read_clip(values)
        case "bert":
            return _read_bert(values)
        case kind:
            raise ValueError(f"model_type {kind!r}")


def _read_t5(values: dict[str, Any], family: Family, defaults: dict[str, Any]) -> EncoderConfig:
    found = {"d_model": 512, "d_kv": 64, "relative_attention_num_buckets": 32, "feed_forward_proj": "relu"}
    found = found | defaults | values
    gate, _, name = str(found["feed_forward_proj"]).rpartition("-")
    gated = gate == "gated"
    activation = _activation("gelu_new" if gated and name == "gelu" else name)
    names = ("d_model", "num_layers", "num_heads", "d_kv", "d_ff", "vocab_size", "relative_attention_num_buckets")
    width, depth, heads, head_width, hidden, vocabulary, buckets = _integers(found, names)
    extents = (width, depth, heads, head_width, hidden, vocabulary)
    return EncoderConfig(family, *extents, activation, gated=gated, buckets=buckets)


_EXTENTS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
"""What CLIP and BERT call width, depth, heads, width inside the MLP and vocabulary."""


def _read_clip(values: dict[str, Any]) -> EncoderConfig:
    defaults = {"max_position_embeddings": 77, "hidden_act": "quick_gelu", "projection_dim": 512}
    defaults |= dict(zip(_EXTENTS, (512, 12, 8, 2048, 49_408), strict=True))
    found = defaults | {"eos_token_id": 49_407, "architectures": ()} | values
    projected = "CLIPTextModelWithProjection" in (found["architectures"] or ())
    return replace(
        _read_absolute("clip", found),
        projection=int(found["projection_dim"]) if projected else None,
        last_token_is_largest=found["eos_token_id"] == 2,
    )


def _read_bert(values: dict[str, Any]) -> EncoderConfig:
    defaults = {"max_position_embeddings": 512, "hidden_act": "gelu", "type_vocab_size": 2}
    found = defaults | dict(zip(_EXTENTS, (768, 12, 12, 3072, 30_522), strict=True)) | values
    return replace(_read_absolute("bert", found), types=int(found["type_vocab_size"]))


def _read_absolute(family: Family, found: dict[str, Any]) -> EncoderConfig:
    """An encoder with a table of absolute positions, whose heads share its width."""
    width, depth, heads, hidden, vocabulary = _integers(found, _EXTENTS)
    return EncoderConfig(
        *(family, width, depth, heads, width // heads, hidden, vocabulary, _activation(found["hidden_act"])),
        positions=int(found["max_position_embeddings"]),
    )


def _integers(found: dict[str, Any], names: tuple[str, ...]) -> list[int]:
    return [int(found[name]) for name in names]


def _activation(name: str) -> Activation:
    if name not in ("gelu", "gelu_new", "quick_gelu", "relu", "silu"):
        raise ValueError(f"activation {name!r}")
    return cast(Activation, name)
