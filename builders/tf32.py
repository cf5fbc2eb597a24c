"""Whether a GPU may multiply fp32 matrices in TF32."""

from __future__ import annotations

import torch


def set_tf32(allowed: bool) -> None:
    """Let this process's fp32 matrix products on a GPU run in TF32, or not; convolutions may either way.

    These are the two switches that DiT's, SiT's and Latte's programs turn on. PyTorch's default is off for products and
    on for convolutions. A CPU does not know them.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = True
