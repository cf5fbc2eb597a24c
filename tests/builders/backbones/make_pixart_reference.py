"""Writes `pixart_reference.safetensors`: a tiny PixArt-α as the package diffusers builds it, its inputs and its output.

    pip install diffusers==0.42.1 torch && python tests/builders/backbones/make_pixart_reference.py

diffusers is needed here only, not by the tests.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import PixArtTransformer2DModel  # pyright: ignore
from safetensors.torch import save_file

FILE = Path(__file__).parent / "pixart_reference.safetensors"


def main() -> None:
    torch.manual_seed(0)
    sizes = {"sample_size": 8, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "patch_size": 2}
    text = {"caption_channels": 24, "cross_attention_dim": 32, "use_additional_conditions": False}
    model = PixArtTransformer2DModel(in_channels=4, out_channels=8, **sizes, **text).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # nothing may stay zero
            parameter.add_(torch.randn_like(parameter) * 0.05)
        latents, time, context = torch.randn(2, 4, 8, 8), torch.tensor([3.0, 700.0]), torch.randn(2, 7, 24)
        sizes = {"resolution": None, "aspect_ratio": None}
        output = model(latents, context, time, added_cond_kwargs=sizes).sample
    weights = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    save_file({**weights, "latents": latents, "time": time, "context": context, "output": output}, FILE)


if __name__ == "__main__":
    main()
