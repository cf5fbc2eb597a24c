"""Prompts → token numbers of a fixed length. `tokenizers` and numpy alone, so that a bundle needs no transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sora_spec.errors import UserError
from sora_spec.language.packaged import install_command

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NEEDED = "prompts are cut into tokens by `tokenizers`, which is not installed"


class Tokens(NamedTuple):
    """`B` prompts of `M` tokens each."""

    ids: NDArray[np.int64]
    """(B, M)"""
    mask: NDArray[np.int64]
    """(B, M): 1 for a token of the prompt, 0 for padding, which stands on the right."""


@dataclass(frozen=True)
class PromptTokenizer:
    """A tokenizer with the padding and the length that an encoder is given."""

    tokenizer: Tokenizer

    @classmethod
    def open(cls, path: Path, tokens: int) -> PromptTokenizer:
        """That of an encoder's folder: `tokenizer.json`, with prompts of `tokens`.

        Raises UserError when it cannot be read, and when nothing says which token pads.
        """
        tokenizer = _read(path)
        pad, token = _padding(path, tokenizer)
        tokenizer.enable_truncation(tokens)
        tokenizer.enable_padding(direction="right", pad_id=pad, pad_token=token, length=tokens)
        return cls(tokenizer)

    @classmethod
    def reopen(cls, path: Path) -> PromptTokenizer:
        """One that `save` wrote. Raises UserError when it cannot be read."""
        return cls(_read(path))

    def save(self, path: Path) -> None:
        """Write it with its padding and length."""
        self.tokenizer.save(str(path))

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """The tokens of prompts; those that are too long are cut."""
        found = self.tokenizer.encode_batch(list(prompts))
        ids, mask = [item.ids for item in found], [item.attention_mask for item in found]
        return Tokens(np.array(ids, np.int64), np.array(mask, np.int64))

    def is_cut(self, prompt: str) -> bool:
        """Whether a prompt is longer than what the encoder is given of it."""
        return bool(self.tokenizer.encode(prompt).overflowing)


def _read(path: Path) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UserError(_NEEDED, install_command("text")) from None
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path} is not a tokenizer that can be read: {error}", "copy the file again") from None


def _padding(path: Path, tokenizer: Tokenizer) -> tuple[int, str]:
    """Number and text of the token that pads."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = _values(path.with_name(name)).get("pad_token")
        token = token.get("content") if isinstance(token, dict) else token
        number = tokenizer.token_to_id(token) if isinstance(token, str) else None
        if number is not None:
            return number, str(token)
    own: Any = tokenizer.padding
    if own is not None:
        return int(own["pad_id"]), str(own["pad_token"])
    number = _values(path.with_name("config.json")).get("pad_token_id")
    token = tokenizer.id_to_token(number) if isinstance(number, int) else None
    if isinstance(number, int) and token is not None:
        return number, token
    raise UserError(
        f"condition.encoder: nothing in {path.parent} says which token pads a prompt",
        'add a tokenizer_config.json with {"pad_token": "…"}',
    )


def _values(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
