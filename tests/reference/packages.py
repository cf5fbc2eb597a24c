"""What needs no checkout: the straight-line statements of this repository's tests, and the package diffusers."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from typing import Any

import torch

from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.vae.image_kl import ImageKlModule
from sora_spec.builders.weights.dit import to_official
from sora_spec.builders.weights.sd_vae import from_official
from sora_spec.language.loading import load_spec
from sora_spec.language.schema.vae import Compression, ImageKlVae
from tests.reference.images import TINY as IMAGE
from tests.reference.images import inputs
from tests.reference.row import Row, awake, ours_from, relative, small
from tests.support import reference_dit
from tests.support.reference_stdit import stdit

SAME = 1e-5
OWN = "straight-line statement"
WAN = [
    "backbone.conditioning={kind: cross_attention, norm: true, qk_norm: true}",
    *("backbone.position={kind: rope, axes: [44, 42, 42]}", "backbone.qk_norm_over=width"),
    "backbone.time_input=noise_level",
]
WAN_TINY = [
    *("backbone.depth=2", "backbone.width=24", "backbone.heads=2", "backbone.mlp_ratio=5.8"),
    "backbone.position.axes=[4,4,4]",
]


def straight_rows() -> Iterator[Row]:
    """The networks as one straight line each, in float64, written from their descriptions."""
    for name, system, temporal, frames in (("dit", "DiT", "none", 1), ("latte", "Latte", "alternating", 3)):
        spec = small(name, *IMAGE, f"clip.frames={frames}")
        torch.manual_seed(0)
        ours: Any = awake(build_denoiser(spec))
        state = {key: value.double() for key, value in to_official(ours.state_dict(), spec).items()}
        x, time, label = torch.randn(2, 4, frames, 8, 8), torch.tensor([3.0, 700.0]), torch.tensor([2, 7])
        network = reference_dit.Network(heads=4, temporal=temporal)
        expected = reference_dit.forward(state, network, x.double(), time, label)
        yield Row(system, OWN, "network", relative(ours(x, time, label), expected), SAME)
    spec = small(
        "stdit",
        *("clip.height=64", "clip.width=48", "clip.frames=3", "condition.encoder=mine"),
        *("condition.width=20", "condition.tokens=7", "backbone.position.space_scale=0.5"),
    )
    torch.manual_seed(0)
    ours = awake(build_denoiser(spec))
    x, time, text = torch.randn(2, 4, 3, 8, 6), torch.tensor([3.0, 700.0]), torch.randn(2, 7, 20)
    mask = torch.tensor([[1] * 7, [1] * 3 + [0] * 4])
    expected = stdit(to_official(ours.state_dict(), spec), x, time, text, mask, 4, (0.5, 1.0))
    yield Row("STDiT", OWN, "network, masked prompts", relative(ours(x, time, text, mask), expected), SAME)


def diffusers_rows() -> Iterator[Row]:
    """The SD-VAE, and diffusers' own DiT, whose time embedding is not DiT's."""
    if importlib.util.find_spec("diffusers") is None:
        return
    from diffusers import AutoencoderKL, DiTTransformer2DModel, WanTransformer3DModel
    from diffusers import __version__ as version

    source = f"diffusers {version}"
    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3}
    layers = {"layers_per_block": 2, "block_out_channels": [32, 64, 64], "latent_channels": 4, "norm_num_groups": 8}
    theirs: Any = awake(AutoencoderKL(**blocks, **layers))
    section = ImageKlVae(
        kind="image_kl",
        compression=Compression(time=1, space=4),
        width=32,
        multipliers=(1, 2, 2),
        groups=8,
        channels=4,
        scale=0.18215,
    )
    vae = ImageKlModule(section)
    vae.load_state_dict(from_official(theirs.state_dict(), section))
    vae = vae.eval().requires_grad_(False)
    video, noise = torch.rand(2, 3, 1, 32, 32) * 2 - 1, torch.randn(2, 4, 1, 8, 8)
    posterior = theirs.encode(video[:, :, 0]).latent_dist
    expected = (posterior.mean + posterior.std * noise[:, :, 0]) * 0.18215
    model = f"{source}, AutoencoderKL"
    yield Row("SD-VAE", model, "encoder, sampled", relative(vae.encode(video, noise)[:, :, 0], expected), SAME)
    picture = theirs.decode(expected / 0.18215).sample
    yield Row("SD-VAE", model, "decoder", relative(vae.decode(expected[:, :, None])[:, :, 0], picture), SAME)

    size = {"num_attention_heads": 4, "attention_head_dim": 12, "num_layers": 4, "sample_size": 8, "out_channels": 8}
    other: Any = awake(DiTTransformer2DModel(**size, num_embeds_ada_norm=10))
    embedder = other.transformer_blocks[0].norm1.emb
    for block in other.transformer_blocks[1:]:  # the published file holds one embedder, written once for every block
        block.norm1.emb.load_state_dict(embedder.state_dict())
    ours = ours_from(other.state_dict(), small("dit", *IMAGE))
    x, time, label = inputs()
    expected = other(x, timestep=time, class_labels=label).sample
    model = f"{source}, DiTTransformer2DModel"
    error = relative(ours(x[:, :, None], time, label)[:, :, 0], expected)
    yield Row("DiT", model, "network; its time embedding divides by 127, DiT's by 128", error, math.inf)
    rates: Any = ours.time_embed
    rates.rates.values = torch.exp(-math.log(10_000) * torch.arange(128) / 127)
    error = relative(ours(x[:, :, None], time, label)[:, :, 0], expected)
    yield Row("DiT", model, "network, ours dividing by 127 too", error, SAME)

    shared = {"in_channels": 16, "out_channels": 16, "text_dim": 4096, "rope_max_seq_len": 64}
    sizes: list[tuple[str, dict[str, Any], list[str]]] = [
        ("2 blocks", {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "ffn_dim": 139}, WAN_TINY),
        ("one block of 1.3B", {"num_attention_heads": 12, "num_layers": 1, "ffn_dim": 8960}, ["backbone.depth=1"]),
    ]
    for name, changes, fields in sizes:
        wan: Any = awake(WanTransformer3DModel(**shared, **changes))
        spec = load_spec("specs/sora-480p.yaml", [*WAN, "clip.frames=9", "clip.height=48", "clip.width=64", *fields])
        network = ours_from(wan.state_dict(), spec)
        x, time, text = torch.randn(2, 16, 3, 6, 8), torch.tensor([0.1, 0.75]), torch.randn(2, 7, 4096)
        expected = wan(x, timestep=1000 * (1 - time), encoder_hidden_states=text).sample
        error = relative(-network(x, time, text), expected)
        yield Row("Wan 2.1", f"{source}, WanTransformer3DModel", f"network, {name}", error, SAME)
