"""The noise level as a vector (DiT's `TimestepEmbedder`)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from sora_spec.builders.blocks.table import FixedTable

CHANNELS = 256
"""Channels of the sinusoid."""


def _rates() -> Tensor:
    """exp(−ln(10000)·i/128), in float32 as published: float64 would change the fifth digit of the angle at step 999."""
    half = CHANNELS // 2
    return torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32) / half)


class TimeEmbedding(nn.Module):
    """(B,) times → (B, D). Times are taken as they are: 0..999 under DDPM, [0, 1] under an interpolant (SiT).

    `noise_level`: an interpolant's time t is told as 1000·(1 − t).
    """

    def __init__(self, width: int, told: Literal["time", "noise_level"] = "time") -> None:
        super().__init__()
        self.told = told
        self.rates = FixedTable(_rates)
        self.fc1 = nn.Linear(CHANNELS, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        """The sinusoid is [cos | sin] and always float32; only its values are cast to the weights' dtype."""
        time = time.float()
        if self.told == "noise_level":
            time = (1.0 - time) * 1000.0
        angles = time[:, None] * self.rates()[None]
        wave = torch.cat([angles.cos(), angles.sin()], dim=-1)  # (B, 256)
        return self.fc2(silu(self.fc1(wave.to(self.fc1.weight.dtype))))
