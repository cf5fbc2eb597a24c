"""The frozen text encoder: a model of `transformers` by the class that its `config.json` names for encoding text.

Legend: `B` prompts, `M` tokens, `W` width of the features.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sora_spec.builders.text.folders import CONFIG, find_encoder
from sora_spec.builders.text.tokenizer import PromptTokenizer
from sora_spec.builders.weights.digest import hash_weights
from sora_spec.errors import UserError
from sora_spec.language.packaged import install_command
from sora_spec.language.schema.condition import TextCondition
from sora_spec.language.text_encoders import check_tokens, find_config

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_UNUSED = "pooler."
"""Weights that no feature comes from: BERT's own pooled vector, which was trained for another task."""


class TextEncoder(nn.Module):
    """(B, M) ids and mask, int64 → features (B, M, W), or the pooled vector (B, W), float32.

    `model` is called with both: without its mask T5 attends to padding, and every token changes.
    """

    def __init__(self, model: nn.Module, pooled: bool) -> None:
        super().__init__()
        self.model, self.pooled = model, pooled

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode, in the precision of the weights."""
        found = self.model(input_ids=ids, attention_mask=mask)
        if not self.pooled:
            return found.last_hidden_state.float()
        if _is_clip(self.model):
            own = getattr(found, "text_embeds", None)
            return (found.pooler_output if own is None else own).float()
        real = mask[..., None].float()
        return (found.last_hidden_state.float() * real).sum(1) / real.sum(1)


def text_digest(encoder: TextEncoder, tokenizer: PromptTokenizer) -> str:
    """Of all that features follow from: weights, tokenizer, length and padding."""
    return hashlib.sha256((hash_weights(encoder) + tokenizer.tokenizer.to_str()).encode()).hexdigest()


def load_encoder(condition: TextCondition) -> TextEncoder:
    """The encoder that the spec names, frozen, in its own precision, on the CPU, in evaluation mode.

    Raises UserError when it is not on this machine, damaged, of no kind that encodes text, or of another width.
    """
    folder = find_encoder(condition.encoder).folder
    _check(condition, folder)
    model = _load(folder, DTYPES[condition.precision])
    width = _width(model, condition.pooled)
    if width != condition.width:
        raise _other_width(condition, folder, width)
    return TextEncoder(model, condition.pooled).eval().requires_grad_(False)


def _check(condition: TextCondition, folder: Path) -> None:
    """Refuse what `config.json` says does not fit, before anything is read."""
    config = find_config(str(folder)) if _values(folder).get("model_type") in _KNOWN else None
    if config is None:
        return
    check_tokens(config, condition.tokens)
    width = config.pooled_width if condition.pooled else config.width
    if width != condition.width:
        raise _other_width(condition, folder, width)


_KNOWN = {"t5", "mt5", "umt5", "clip", "clip_text_model", "bert"}


def _other_width(condition: TextCondition, folder: Path, width: int) -> UserError:
    return UserError(
        f"condition.width is {condition.width}, but the features of {folder} have width {width}",
        f"set condition.width={width}",
    )


def _load(folder: Path, dtype: torch.dtype) -> nn.Module:
    kind = _class_of(folder)
    with _quiet():
        try:
            model, info = kind.from_pretrained(
                folder, dtype=dtype, local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, UnpicklingError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"condition.encoder: {folder} cannot be read: {first}", "copy the folder again") from error
    lacking = sorted(name for name in info["missing_keys"] if not name.startswith(_UNUSED))
    if lacking or info["mismatched_keys"]:
        wrong = f"has no {lacking[0]}" if lacking else f"{sorted(info['mismatched_keys'])[0]} has another shape"
        raise UserError(
            f"condition.encoder: the weights in {folder} are not those of its {CONFIG}: {wrong}",
            "copy the folder again; weights of another program need converting by transformers first",
        )
    return model


def _class_of(folder: Path) -> Any:
    """The class that holds an encoder alone: `AutoModel` gives a T5 a decoder with random weights."""
    try:
        import transformers
        from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
    except ImportError:
        raise UserError("prompts are encoded by `transformers`, which is not installed", install_command("text")) from (
            None
        )
    values = _values(folder)
    names = values.get("architectures") or []
    kind = values.get("model_type")
    if "CLIPTextModelWithProjection" in names:
        return transformers.CLIPTextModelWithProjection
    if kind == "clip":  # a whole CLIP, of which this is the half that reads text
        return transformers.CLIPTextModel
    known: dict[str, str] = {**MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES}
    if kind not in known:
        raise UserError(
            f"condition.encoder: {folder / CONFIG} is of a model of type {kind!r}, which encodes no text",
            f"types that do: {', '.join(sorted(known))}",
        )
    return getattr(transformers, known[kind])


def _values(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(
            f"condition.encoder: {folder / CONFIG} is not JSON that can be read: {error}", "copy it again"
        ) from (error)
    if not isinstance(values, dict):
        raise UserError(f"condition.encoder: {folder / CONFIG} is no object of JSON", "copy it again")
    return values


def _is_clip(model: nn.Module) -> bool:
    return str(getattr(model.config, "model_type", "")).startswith("clip")


def _width(model: nn.Module, pooled: bool) -> int:
    config: Any = model.config
    if pooled and type(model).__name__ == "CLIPTextModelWithProjection":
        return int(config.projection_dim)
    return int(config.hidden_size)


@contextmanager
def _quiet() -> Generator[None]:
    """Without the library's reports and bars: what matters of them is an error here."""
    from transformers.utils import logging as reports

    before, bars = logging.root.manager.disable, reports.is_progress_bar_enabled()
    logging.disable(logging.WARNING)
    reports.disable_progress_bar()
    try:
        yield
    finally:
        logging.disable(before)
        if bars:
            reports.enable_progress_bar()
