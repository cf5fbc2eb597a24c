"""Constants of a network that are computed, never learned and never saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class FixedTable(nn.Module):
    """A float32 constant that stays exact whatever happens to the module around it.

    `half()` and `bfloat16()` would round it (a time embedding at step 999 would then be wrong by whole turns), and
    `to_empty()` would leave noise in it, so it is computed afresh after every such move. It is not in the state dict.

    `make`: returns the table, made by tensor factories, so that it follows `torch.device(...)` contexts.
    """

    values: Tensor

    def __init__(self, make: Callable[[], Tensor]) -> None:
        super().__init__()
        self.make = make
        self.register_buffer("values", make(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        with torch.device(self.values.device):
            self.values = self.make()
        return self

    def forward(self) -> Tensor:
        return self.values
