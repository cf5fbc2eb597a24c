"""Captions → what the denoiser is steered by: the features of a frozen encoder, each caption encoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sora_spec import output
from sora_spec.builders.diffusion.samplers import Condition
from sora_spec.builders.text.encoder import TextEncoder, load_encoder, text_digest
from sora_spec.builders.text.folders import find_encoder
from sora_spec.builders.text.tokenizer import PromptTokenizer
from sora_spec.language.schema.condition import TextCondition
from sora_spec.recipe.training import FEATURE_BYTES
from sora_spec.train.batch import to_device

Features = tuple[Tensor, Tensor]
"""Of one caption, on the device: what the encoder gives, (M, W) or (W,), and the mask of its tokens, (M,)."""


@dataclass
class CaptionSource:
    """Features of captions. A caption is encoded alone: beside others, or in another length, its features would come
    out otherwise in the last bits, and a run that goes on would not repeat one that was never stopped."""

    condition: TextCondition
    encoder: TextEncoder
    tokenizer: PromptTokenizer
    device: torch.device
    limit_bytes: int = FEATURE_BYTES
    _known: OrderedDict[str, Features] = field(default_factory=OrderedDict)
    """Those that were seen last, in the order of their use."""

    @classmethod
    def open(cls, condition: TextCondition, device: torch.device) -> CaptionSource:
        """The encoder of the spec on `device`. Raises UserError as `load_encoder` does."""
        tokenizer = PromptTokenizer.open(find_encoder(condition.encoder).tokenizer, condition.tokens)
        return cls(condition, load_encoder(condition).to(device), tokenizer, device)

    def warn_of_cut(self, captions: Iterable[str | None]) -> None:
        """Say how many captions are longer than what the encoder is given of them."""
        known = [caption for caption in dict.fromkeys(captions) if caption]
        cut = [caption for caption in known if self.tokenizer.is_cut(caption)]
        if cut:
            output.warn(
                f"only the first {self.condition.tokens} tokens (condition.tokens) are read of {len(cut):,} of "
                f"{len(known):,} captions, such as {cut[0][:80]!r}"
            )

    def digest(self) -> str:
        """Of all that features follow from."""
        return text_digest(self.encoder, self.tokenizer)

    def features(self, captions: Sequence[str], dropped: Tensor | None = None, null: Tensor | None = None) -> Condition:
        """What steers a sample for each of `captions`. `dropped` (B,) bool, on the host: which have none.

        `null`: the network's own table (M, W) for those; without it, they get the features of the empty prompt.
        """
        gone = [False] * len(captions) if dropped is None else dropped.tolist()
        given = ["" if drop and null is None else caption for caption, drop in zip(captions, gone, strict=True)]
        found = [self._of(caption) for caption in given]
        features, mask = (torch.stack(parts) for parts in zip(*found, strict=True))
        if self.condition.pooled:
            return Condition(pooled=features)
        if null is not None and dropped is not None:
            # The mask stays that of the caption, as PixArt-α and Open-Sora train it.
            features = torch.where(to_device(dropped, self.device)[:, None, None], null.to(features.dtype), features)
        return Condition(tokens=features, mask=mask if self.condition.masked else None)

    def null(self, samples: int, table: Tensor | None = None) -> Condition:
        """What stands for no prompt beside `samples` that have one: `table` (M, W), or the empty prompt's features."""
        if table is not None:
            return Condition(tokens=table.expand(samples, -1, -1))
        return self.features([""] * samples)

    @torch.no_grad()  # and not inference mode, whose tensors no backward pass may keep
    def _of(self, caption: str) -> Features:
        found = self._known.get(caption)
        if found is None:
            tokens = self.tokenizer([caption])
            ids, mask = (to_device(torch.from_numpy(part), self.device) for part in tokens)
            found = self._known[caption] = (self.encoder(ids, mask)[0], mask[0])
            largest = max(1, self.limit_bytes // sum(part.nbytes for part in found))
            while len(self._known) > largest:
                self._known.popitem(last=False)
        self._known.move_to_end(caption)
        return found
