"""Prompts: which clip shows which, and what they are for the denoiser. Torch-free.

Legend: `B` clips, `M` tokens of a prompt, `W` width of the encoder's features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora_spec import output
from sora_spec.builders.diffusion.samplers import Condition
from sora_spec.builders.text.tokenizer import PromptTokenizer
from sora_spec.compile.run.executors.stage import Stage
from sora_spec.compile.run.labels import MOST_CLIPS, spread
from sora_spec.errors import UserError
from sora_spec.language.schema.condition import TextCondition
from sora_spec.language.schema.spec import Spec
from sora_spec.recipe.sampling import is_guided

Features = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Of one prompt: features (M, W) or (W,), and the mask of its tokens (M,)."""


def plan_prompts(
    spec: Spec, prompts: Sequence[str], count: int | None, unconditional: bool = False, negative: str | None = None
) -> list[str | None]:
    """The prompt of each clip, None for clips without one, of a model that is steered by text.

    With several prompts `count` is the number of clips in all and a multiple of theirs. Raises UserError where nothing
    is asked for, or something that does not fit.
    """
    condition = spec.condition
    assert isinstance(condition, TextCondition)
    for text in [*prompts, *([] if negative is None else [negative])]:
        _check_encodable(text)
    if negative is not None and not is_guided(spec):
        raise UserError(
            "--negative counts for nothing without guidance: sampler.guidance is 1", "add --guidance 4, or leave it out"
        )
    if unconditional and (prompts or negative is not None):
        raise UserError("--unconditional and a prompt ask for two things", "give one of them")
    if unconditional and condition.dropout == 0:
        raise UserError(
            "this model was trained without clips that have no prompt (condition.dropout is 0)", "give a prompt"
        )
    if unconditional:
        return [None] * (count or 1)
    if not prompts:
        raise UserError(
            f"{spec.name} is steered by text, and no prompt is given",
            'sora-spec generate RUN "a prompt"; --prompts FILE for one a line, --unconditional for clips without',
        )
    if len(prompts) > MOST_CLIPS:
        raise UserError(f"{len(prompts):,} prompts are more than {MOST_CLIPS:,}", "ask for fewer at a time")
    return spread(list(prompts), count, "prompts")


def read_prompts(path: Path) -> list[str]:
    """One prompt a line; empty lines are passed over. Raises UserError for a file that cannot be read as UTF-8."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: {error.reason} at byte {error.start}", "save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", "name a file with one prompt a line") from None
    found = [line.strip("\r") for line in text.split("\n") if line.strip()]
    if not found:
        raise UserError(f"{path} holds no prompt", "write one prompt a line")
    return found


def _check_encodable(prompt: str) -> None:
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise UserError(f"the prompt {prompt!r} is not text in UTF-8", "check the encoding of the terminal") from None


@dataclass
class Prompts:
    """What steers the denoiser for prompts: arrays of the host, each prompt encoded once and alone.

    Alone, a prompt's features are the same in whatever batch, and those that the denoiser was trained with.
    """

    condition: TextCondition
    tokenizer: PromptTokenizer
    encoder: Stage
    """(ids, mask) → features."""
    table: NDArray[np.float32] | None = None
    """(M, W): what the network keeps for no prompt (`condition.no_prompt: table`)."""
    _known: dict[str, Features] = field(default_factory=dict)

    def steer(self, prompts: Sequence[str | None], negative: str | None = None) -> Condition:
        """The condition of a batch, all of whose clips have a prompt or none has; with what stands for no prompt."""
        given = [prompt for prompt in prompts if prompt is not None]
        assert len(given) in (0, len(prompts)), "a batch is conditional or not"
        null = "" if negative is None else negative
        self._encode({*given, *([] if self._takes_table(negative) else [null])})
        without = (
            self._table(len(prompts), bool(given)) if self._takes_table(negative) else self._of([null] * len(prompts))
        )
        return Condition(null=without) if not given else self._of(given, without)

    def warn_of_cut(self, prompts: Sequence[str | None]) -> None:
        """Say which prompts are longer than what the encoder is given of them."""
        for prompt in dict.fromkeys(prompts):
            if prompt is not None and self.tokenizer.is_cut(prompt):
                output.warn(f"only the first {self.condition.tokens} tokens count of the prompt {_short(prompt)!r}")

    def _takes_table(self, negative: str | None) -> bool:
        return self.table is not None and negative is None

    def _table(self, samples: int, beside: bool) -> Condition:
        """The network's own null prompt: beside prompts with their masks, as it was trained, else with all tokens."""
        assert self.table is not None
        tokens = np.repeat(self.table[None], samples, 0)
        whole = self.condition.masked and not beside
        return Condition(tokens=tokens, mask=np.ones(tokens.shape[:2], np.int64) if whole else None)

    def _of(self, prompts: Sequence[str], null: Condition | None = None) -> Condition:
        features, masks = (np.stack(parts) for parts in zip(*(self._known[prompt] for prompt in prompts), strict=True))
        if self.condition.pooled:
            return Condition(pooled=features, null=null)
        return Condition(tokens=features, mask=masks if self.condition.masked else None, null=null)

    def _encode(self, prompts: set[str]) -> None:
        """Know these, and forget all others."""
        self._known = {prompt: found for prompt, found in self._known.items() if prompt in prompts}
        missing = sorted(prompts - self._known.keys())
        if not missing:
            return
        with self.encoder.using():
            for prompt in missing:
                ids, mask = self.tokenizer([prompt])
                features: NDArray[Any] = self.encoder.run({"ids": ids, "mask": mask})["features"]
                self._known[prompt] = (features[0], mask[0])


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"
