"""Frozen text encoders by their family, without gradients: what `transformers` runs for them.

Prompts are taken to fill their tokens: a padding mask adds a bool per token, and to T5 and BERT a bias per pair of
tokens.
"""

from __future__ import annotations

from sora_spec.graph.lower.bert_encoder import Bert
from sora_spec.graph.lower.clip_text import ClipText
from sora_spec.graph.lower.t5_encoder import T5Encoder
from sora_spec.graph.lower.weights import Weights
from sora_spec.language.text_encoders import EncoderConfig


def build_text_encoder(weights: Weights, config: EncoderConfig, depth: int) -> T5Encoder | ClipText | Bert:
    """The encoder with `depth` of its blocks."""
    match config.family:
        case "t5" | "umt5":
            return T5Encoder(weights, config, depth)
        case "clip":
            return ClipText(weights, config, depth)
        case "bert":
            return Bert(weights, config, depth)
