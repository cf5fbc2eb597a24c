"""What every use of memory is called, where it is counted, and how it is reckoned: the one place that knows."""

from __future__ import annotations

from enum import Enum
from functools import cache, partial
from typing import Literal, NamedTuple, assert_never

Owner = Literal["denoiser", "trained VAE", "VAE", "text encoder", "ranks", "machine"]
"""Whose memory it is. A VAE in training is the network of its job; elsewhere it is a part beside the network."""
# fmt: off
Use = Literal[
    "weights", "frozen weights", "buffers", "LPIPS network", "activations", "inputs", "video", "latents",
    "clips as read", "prompts", "noise of the posterior", "convolution workspace", "attention workspace",
    "cuBLAS workspace", "AdamW moments", "AdamW step counters", "AdamW temporaries", "moving average",
    "weights set aside", "gradients", "gradients being added", "gradients of earlier passes",
    "gradients of the last step", "gradients not yet reduced", "gathered weights", "weights in flight",
    "gradients being reduced", "NCCL buffers", "fragmentation", "CUDA context", "Python and PyTorch",
    "clip put together", "picture put together", "row of tiles",
]
# fmt: on
Group = Literal["network", "state", "VAE", "text", "messages", "machine"]
"""Part of the system: a branch of the tree that shows where memory goes."""
Tag = Literal["exact", "documented", "estimated"]
"""Proven against PyTorch's own trace; published by PyTorch or NVIDIA; a guess from measurements of others."""
Level = Literal["allocated", "reserved", "device"]
"""`torch.cuda.max_memory_allocated` counts the first, `…_reserved` the first two, `nvidia-smi` all three."""


class Stretch(Enum):
    """Stretches of the stacked bar in the order in which they stand: letter and colour, which carries white letters on
    dark and light themes."""

    weights = "W", "#2f6fb5"
    gradients = "G", "#1f8a8a"
    optimizer = "O", "#3f8f3f"
    average = "E", "#7d8a1f"
    activations = "A", "#b56a12"
    VAE = "C", "#8452b0"
    text_encoder = "T", "#b84a86"
    messages = "M", "#a04438"
    other = "X", "#6f7680"

    def __init__(self, letter: str, colour: str) -> None:
        self.letter, self.colour = letter, colour
        self.title = self.name.replace("_", " ")


class Meaning(NamedTuple):
    """What is known of a use before it is counted."""

    name: str
    group: Group
    stretch: Stretch
    path: str = ""
    """Dotted path of the YAML value that decides it, where a term names no other."""
    formula: str = ""
    """How it is reckoned, in a line."""
    tag: Tag = "exact"
    level: Level = "allocated"
    by_value: bool = False
    """Whether the name ends in what the YAML value makes."""


_OWNERS: dict[Owner, tuple[Group, Stretch]] = {
    "denoiser": ("network", Stretch.activations),
    "trained VAE": ("network", Stretch.activations),
    "VAE": ("VAE", Stretch.VAE),
    "text encoder": ("text", Stretch.text_encoder),
    "ranks": ("messages", Stretch.messages),
    "machine": ("machine", Stretch.other),
}


@cache
def meaning(owner: Owner, use: Use) -> Meaning:  # two lines a use
    """All that a use of memory means; a new use is a type error until it has a case here."""
    group, stretch = _OWNERS[owner]
    network, vae, text = group == "network", owner in ("VAE", "trained VAE"), owner == "text encoder"
    kept, model = Stretch.weights if network else stretch, "VAE" if vae else owner
    training = "vae.training" if owner == "trained VAE" else "train"
    here, state, fsdp = partial(Meaning, use, group, stretch), partial(Meaning, use, "state"), f"FSDP2: {use}"
    held, highest = "4 bytes × parameters that this rank holds", "those alive at the highest moment of the pass"
    match use:
        case "weights":
            place, formula = "vae" if vae else "", "bytes of the type × parameters"
            if text:
                place, formula = "condition.encoder", "2 bytes × parameters; as much again where they are kept in fp32"
            return Meaning(f"{model} weights", group, kept, place, formula, by_value=network)
        case "frozen weights":
            return Meaning(
                f"{model} weights, frozen", group, kept, "vae", f"4 bytes × parameters and constants of the {model}"
            )
        case "buffers":
            stores = "the VAE stores" if vae else "the network stores: positions, frequencies"
            place = "vae" if vae else "backbone.position"
            return Meaning(f"{model} buffers", group, kept, place, f"constants that {stores}")
        case "LPIPS network":
            return Meaning("LPIPS network, frozen", group, stretch, "vae.training.perceptual")
        case "activations":
            moment = f"the {owner}'s highest moment" if not network else "the highest moment"
            formula = f"tensors alive at {moment}, from the model graph"
            formula = "clips × tokens × width × 2 bytes × about 20 tensors" if text else formula
            return Meaning(use if network else f"{owner} {use}", group, stretch, "", formula, by_value=True)
        case "inputs":
            return here("clip", "latents, noise, time and condition of a pass")
        case "video":
            return here("clip", "pixels of a pass in fp32")
        case "latents":
            return here("clip", "latents of a pass")
        case "clips as read":
            return here("clip")
        case "prompts":
            return here("condition.tokens")
        case "noise of the posterior":
            return here("vae.channels")
        case "convolution workspace":
            scratch = "9 bytes × values in and out of a 3 × 3 convolution, where there is room; none to 1.3 ×"
            return here("vae", scratch, "estimated")
        case "attention workspace":
            scratch = "flash attention's backward pass: dQ and row sums in fp32, tokens rounded to 128"
            return here("backbone.heads", scratch, "estimated")
        case "cuBLAS workspace":
            return here("", "once per stream: 32 MiB from Hopper on, 8.1 MiB before", "documented")
        case "AdamW moments":
            return state(Stretch.optimizer, f"{training}.optimizer", f"2 moments × {held}")
        case "AdamW step counters":
            return state(Stretch.optimizer, f"{training}.optimizer")
        case "AdamW temporaries":
            return state(Stretch.optimizer, f"{training}.optimizer", "denominators of the update while it runs")
        case "moving average":
            return state(Stretch.average, f"{training}.ema", held)
        case "weights set aside":
            formula = "the trained weights while the moving average stands in their place"
            return state(Stretch.average, "train.sample_every", formula)
        case "gradients" | "gradients not yet reduced":
            return state(Stretch.gradients, "train.optimizer", highest)
        case "gradients being added":
            return state(Stretch.gradients, "train.accumulation", highest)
        case "gradients of earlier passes":
            return state(Stretch.gradients, "train.accumulation", f"{held}, kept between passes")
        case "gradients of the last step":
            return state(Stretch.gradients, "train.sample_every", held)
        case "gathered weights":
            formula = "weights outside blocks and of one block, whole, in the arithmetic's type"
            return Meaning(fsdp, group, stretch, "parallel.shard", formula)
        case "weights in flight":
            return Meaning(fsdp, group, stretch, "parallel.shard", "the next block's weights while they are gathered")
        case "gradients being reduced":
            formula = "one block's gradients, in the arithmetic's type and in fp32"
            return Meaning(fsdp, group, stretch, "parallel.shard", formula)
        case "NCCL buffers":
            return here("parallel", "150 to 1,500 MiB, likely 500", "estimated", "device")
        case "fragmentation":
            return here("", "0.5 to 15 % of what is allocated, likely 6 %", "estimated", "reserved")
        case "CUDA context":
            return here("", "driver and kernels: 350 to 900 MiB, likely 520", "estimated", "device")
        case "Python and PyTorch":
            return here("", "300 to 700 MiB, likely 450", "estimated", "device")
        case "clip put together":
            return here("clip.frames", level="device")
        case "picture put together" | "row of tiles":
            return here("vae.tiling", level="device")
        case _:
            assert_never(use)


_LABELS = {
    "backbone.mlp_ratio": "MLP",
    "backbone.heads": "attention",
    "backbone.conditioning": "modulation",
    "backbone.width": "embeddings and head",
    "backbone.position": "positions",
    "backbone.qk_norm": "QK norm",
    "patch": "patches",
    "condition": "condition",
    "condition.encoder": "encoder",
    "condition.tokens": "tokens",
    "objective": "loss",
    "sampler": "sampler",
    "vae": "VAE",
    "vae.multipliers": "VAE levels",
    "vae.channels": "VAE latents",
}


def label(path: str) -> str:
    """What the YAML value at a path makes."""
    return _LABELS.get(path, path.rpartition(".")[2] or "tensors")
