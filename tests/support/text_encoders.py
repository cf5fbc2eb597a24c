"""Tiny text encoders with real tokenizer files, as `save_pretrained` writes them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

Kind = Literal["t5", "umt5", "clip", "clip-projected", "bert"]
KINDS: tuple[Kind, ...] = ("t5", "umt5", "clip", "clip-projected", "bert")
WIDTH = 32
CORPUS = [
    f"{article} {digit} {verb} {where}"
    for article in ("a", "the", "one bright")
    for digit in ("zero", "three", "seven", "nine")
    for verb in ("drifts", "moves", "slides slowly")
    for where in ("to the left", "to the right", "up", "downwards, then stops")
]


def make_encoder(folder: Path, kind: Kind, seed: int = 0) -> Path:
    """A folder with config, weights and `tokenizer.json` of a model of width 32 with random weights."""
    tokenizer = _unigram() if kind in ("t5", "umt5") else _clip_bpe() if kind.startswith("clip") else _word_pieces()
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(kind, tokenizer)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # gains and biases, so that none is one or zero
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    logging.disable(logging.WARNING)
    model.save_pretrained(folder)
    logging.disable(logging.NOTSET)
    return folder


def _model(kind: Kind, tokenizer: PreTrainedTokenizerFast) -> Any:
    size = len(tokenizer)
    relative: dict[str, Any] = {"d_model": WIDTH, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 2}
    layers: dict[str, Any] = {"hidden_size": WIDTH, "intermediate_size": 48, "num_attention_heads": 4}
    layers |= {"num_hidden_layers": 2, "vocab_size": size, "pad_token_id": tokenizer.pad_token_id}
    ends: dict[str, Any] = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    match kind:
        case "t5":
            return T5EncoderModel(T5Config(vocab_size=size, feed_forward_proj="gated-gelu", **relative))
        case "umt5":
            return UMT5EncoderModel(UMT5Config(vocab_size=size, **relative))
        case "clip":
            return CLIPTextModel(CLIPTextConfig(**layers, **ends))
        case "clip-projected":
            return CLIPTextModelWithProjection(CLIPTextConfig(**layers, **ends, projection_dim=24))
        case "bert":
            return BertModel(BertConfig(**layers, max_position_embeddings=64))


def _unigram() -> PreTrainedTokenizerFast:
    """T5's: SentencePiece's unigram, `</s>` behind, padding 0."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )


def _clip_bpe() -> PreTrainedTokenizerFast:
    """CLIP's: byte pairs that end in `</w>`, a start and an end, which pads too."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=end))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=150, special_tokens=[start, end], end_of_word_suffix="</w>", show_progress=False
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, 0), (end, 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=start, eos_token=end, pad_token=end, unk_token=end, model_max_length=77
    )


def _word_pieces() -> PreTrainedTokenizerFast:
    """BERT's: word pieces between [CLS] and [SEP]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
