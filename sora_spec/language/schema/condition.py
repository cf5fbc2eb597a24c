"""`condition`: what steers the generation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sora_spec.language.schema.section import Probability, Section, Size
from sora_spec.language.schema.training import Precision


class NoCondition(Section):
    """Unconditional."""

    kind: Literal["none"] = "none"


class ClassCondition(Section):
    """A class label, with one extra row for "no label" that guidance needs (DiT)."""

    kind: Literal["class"]
    classes: Annotated[int, Field(ge=1, le=1_000_000)]
    """Number of classes. Row `classes` of the table is the trained null label."""
    dropout: Probability = 0.1
    """How often a training label is replaced by the null label. Without it there is no null row and no guidance."""


class TextCondition(Section):
    """Text features of a frozen encoder."""

    kind: Literal["text"]
    encoder: str
    """A folder as `transformers` writes it, with `config.json`, weights and `tokenizer.json`; or the name of such an
    encoder, of which a copy lies in Hugging Face's cache or comes as a package. Nothing is downloaded."""
    tokens: Annotated[int, Field(ge=1, le=4096)] = 77
    """Tokens of a prompt; longer prompts are cut."""
    width: Size = 512
    """Width of the encoder's features."""
    feature_norm: Literal["none", "layer_norm"] = "none"
    """What is done with the features before they are projected: nothing (PixArt-α, Open-Sora, Latte-1, Wan), or each
    token is brought to mean 0 and variance 1, as features of unlike size or of one direction ask for."""
    pooled: bool = False
    """Use the one pooled vector of the prompt in place of its tokens, projected and added to the time embedding
    (OpenDiT). It is CLIP's own; of other encoders the mean over the tokens that are not padding."""
    dropout: Probability = 0.1
    """How often a training prompt is replaced by the empty one."""
    precision: Precision = "bf16"
    """Precision of the encoder's weights and arithmetic. Several published systems run theirs in fp32."""
    masked: bool = False
    """Whether cross-attention passes over the padding of a prompt that is shorter than `tokens` (PixArt-α, Open-Sora);
    otherwise padding is attended to (Latte-1, CogVideoX)."""
    no_prompt: Literal["empty", "table"] = "empty"
    """What takes the place of a dropped prompt: the features of the empty prompt, or a table of tokens that is kept
    with the network, drawn at random and never trained (PixArt-α's and Open-Sora's `y_embedding`)."""


Condition = Annotated[NoCondition | ClassCondition | TextCondition, Field(discriminator="kind")]
