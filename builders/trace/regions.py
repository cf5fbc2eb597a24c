"""The parts of a recorded module: its submodules, with the YAML values that made them."""

from __future__ import annotations

from torch import nn

from sora_spec.graph.eager.tape import Region, YamlPath

_YAML: dict[str, YamlPath] = {
    "backbone": ("backbone",),
    "backbone.patch_in": ("patch",),
    "backbone.patch_out": ("patch",),
    "backbone.time_embed": ("backbone", "width"),
    "backbone.condition_embed": ("condition",),
    "backbone.pos_embed": ("backbone", "position"),
    "backbone.time_table": ("backbone", "position"),
    "backbone.rope": ("backbone", "position"),
    "backbone.modulation": ("backbone", "conditioning"),
    "backbone.blocks": ("backbone", "depth"),
    "backbone.blocks.attention": ("backbone", "heads"),
    "backbone.blocks.temporal": ("temporal",),
    "backbone.blocks.cross": ("backbone", "conditioning"),
    "backbone.blocks.mlp": ("backbone", "mlp_ratio"),
    "backbone.blocks.modulation": ("backbone", "conditioning"),
    "vae": ("vae",),
    "vae.encoder": ("vae", "multipliers"),
    "vae.decoder": ("vae", "multipliers"),
    "vae.quant_conv": ("vae", "channels"),
    "vae.post_quant_conv": ("vae", "channels"),
    "perceptual": ("vae", "training", "perceptual"),
    "objective": ("objective",),
    "condition": ("condition",),
    "mask": ("condition",),
}
"""By the longest beginning of a module's path, blocks without their numbers. Others are inputs: the clip's."""
_DEEPEST = 2
"""Parts below the root, or below a block, that are told apart; what lies deeper belongs to them."""


def part_of(path: str, blocks: str = "") -> Region:
    """The part of a module, parameter or buffer with this path. `blocks`: path of the list of repeated blocks."""
    names, number = path.split("."), None
    if blocks and path.startswith(f"{blocks}."):
        depth = blocks.count(".") + 1
        number = int(names[depth])
        shown = [*names[: depth - 1], f"{names[depth - 1]}[{number}]", *names[depth + 1 : depth + 2]]
        names = [*names[:depth], *names[depth + 1 : depth + 2]]
    else:
        shown = names = names[: 1 + _DEEPEST]
    return Region(".".join(shown), _yaml(names), number)


def _yaml(names: list[str]) -> YamlPath:
    for length in range(len(names), 0, -1):
        found = _YAML.get(".".join(names[:length]))
        if found is not None:
            return found
    return ("clip",)


def blocks_of(root: str, module: nn.Module) -> str:
    """Path of a denoiser's list of repeated blocks; empty for a module without one."""
    blocks = getattr(module, "blocks", None)
    names = (name for name, found in module.named_modules() if found is blocks)
    return next((f"{root}.{name}" for name in names), "") if isinstance(blocks, nn.ModuleList) else ""
