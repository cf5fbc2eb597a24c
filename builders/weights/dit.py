"""Official DiT, SiT, Latte and Open-Sora 1.0 checkpoints ⇄ the transformer's state dict.

The official layout is flat: facebookresearch/DiT `models.py`, willisma/SiT the same, Vchitect/Latte with `temp_embed`
besides. Under `temporal: joint` the names of the tables and of the text projection are OpenDiT's (v1.0.0); with
cross-attention and one modulation for all blocks they are PixArt-α's and Open-Sora's (v1.0.0, `stdit.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from sora_spec import output
from sora_spec.builders.backbones.transformer import modulation_of
from sora_spec.builders.blocks.position import spatial_table, temporal_table
from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.weights.diffusers_dit import flat_from_diffusers, is_diffusers
from sora_spec.builders.weights.files import read_config, read_state
from sora_spec.builders.weights.mismatch import check_same_shapes, explain
from sora_spec.builders.weights.names import unnested, unprefixed
from sora_spec.builders.weights.vae_run import checkpoint_state, told_spec
from sora_spec.builders.weights.values import as_float32
from sora_spec.builders.weights.wan import ANCHOR, check_wans, from_wan, has_wans_names
from sora_spec.disk.checkpoints import AVERAGE, INDEX, STATE, part_of
from sora_spec.errors import UserError
from sora_spec.language.schema.backbone import Alternating, CrossAttention, Factorized, Joint, Sincos, Transformer
from sora_spec.language.schema.condition import NoCondition
from sora_spec.language.schema.spec import Spec
from sora_spec.language.shapes import derive_shapes

NAMES = (
    ("patch_in.proj", "x_embedder.proj"),
    ("time_embed.fc1", "t_embedder.mlp.0"),
    ("time_embed.fc2", "t_embedder.mlp.2"),
    ("condition_embed.table", "y_embedder.embedding_table"),
    ("condition_embed.proj", "y_embedder.output_projection"),
    ("condition_embed.null", "y_embedder.y_embedding"),
    (r"condition_embed\.(fc\d)", r"y_embedder.y_proj.\1"),
    ("modulation", "t_block.1"),
    ("patch_out.proj", "final_layer.linear"),
    ("patch_out.modulation", "final_layer.adaLN_modulation.1"),
    (r"(blocks\.\d+)\.attention.out", r"\1.attn.proj"),
    (r"(blocks\.\d+)\.attention", r"\1.attn"),
    (r"(blocks\.\d+)\.temporal.out", r"\1.attn_temp.proj"),
    (r"(blocks\.\d+)\.temporal", r"\1.attn_temp"),
    (r"(blocks\.\d+)\.cross.(q|kv)", r"\1.cross_attn.\2_linear"),
    (r"(blocks\.\d+)\.cross.out", r"\1.cross_attn.proj"),
    (r"(blocks\.\d+)\.modulation", r"\1.adaLN_modulation.1"),
)
"""Our names and the official ones, as prefixes; the first that fits is taken. What is not listed keeps its name."""

ANCHORS = (
    "x_embedder.proj.weight",
    "patch_in.proj.weight",
    "pos_embed.proj.weight",
    "final_layer.linear.weight",
    "patch_out.proj.weight",
    "proj_out_2.weight",
    ANCHOR,
)
"""Names by which the official layout, ours and diffusers' are told, and a prefix before them."""

DIFFUSERS_CLASSES = ("DiTTransformer2DModel", "Transformer2DModel", "WanTransformer3DModel", "WanModel")
"""What a config.json beside a file calls the network that the file is read for."""

SINGLE = (
    (r"patch_out\.modulation\.weight", "final_layer.scale_shift_table"),
    (r"(blocks\.\d+)\.modulation\.weight", r"\1.scale_shift_table"),
)
"""Names of the tables that adaLN-single has in place of linear layers."""

SCALES = (1.0, 0.5, 2.0, 2 / 3, 1.5)
"""What published networks divide positions by, beside the spec's own."""

MOST_TOKENS = 1 << 16
"""Tokens of a frame up to which a stored table is told."""
TABLE_TOLERANCE = 5e-3
"""How far a stored sine-cosine table may be from the computed one: bfloat16's rounding."""


def official_name(name: str, spec: Spec) -> str:
    """Official name of one of our tensors."""
    if name == "pos_embed" and isinstance(spec.temporal, Joint):
        return "pos_embed_spatial"
    assert isinstance(spec.backbone, Transformer)
    single = modulation_of(spec.backbone.conditioning) == "single"
    for ours, official in (*SINGLE, *NAMES) if single else NAMES:
        renamed, count = re.subn(rf"^{ours}(?=\.|$)", official, name)
        if count:
            return renamed
    return name


def to_official(state: Mapping[str, Tensor], spec: Spec) -> dict[str, Tensor]:
    """Our state dict in the official layout, frozen tables included; loads with `strict=True` upstream."""
    official = _renamed(state, spec)
    weight = official["x_embedder.proj.weight"]
    official["x_embedder.proj.weight"] = weight.reshape(weight.shape[0], *_kernel(spec))
    return official | _time_tables(spec, weight.device)


def from_official(state: Mapping[str, Tensor], spec: Spec, where: str = "the checkpoint") -> dict[str, Tensor]:
    """A state dict in the official, diffusers' or our own layout as ours in float32, ready for
    `load_state_dict(strict=True)`.

    A prefix common to all names is taken off. A positional table of another resolution is rebuilt for the spec's when
    it is the sine-cosine table it should be; the frozen table over frames is dropped for the same reason. Of a nested
    training checkpoint the moving average is taken. `where`: what messages call the checkpoint.

    Raises UserError that lists every missing, unexpected and wrongly shaped tensor, with both shapes; and for tensors
    that are not floating-point numbers, or not finite.
    """
    given = plain_names(state, spec, where)
    if "patch_in.proj.weight" in given:
        return _from_own(given, spec, where)
    return fit_official(given, spec, where)


def fit_official(given: Mapping[str, Tensor], spec: Spec, where: str) -> dict[str, Tensor]:
    """Tensors with official names as ours in float32. Raises UserError as `from_official` does."""
    own = own_state(spec)
    expected = {name: tensor.shape for name, tensor in to_official(own, spec).items()}
    given = _with_fitting_tables(given, spec)
    check_same_shapes(given, expected, explain(given, expected, spec), where)
    given = as_float32(given, where)
    _check_time_tables(given, spec)
    return {name: given[official_name(name, spec)].reshape(tensor.shape) for name, tensor in own.items()}


def plain_names(state: Mapping[str, Tensor], spec: Spec, where: str) -> dict[str, Tensor]:
    """The network's tensors in the official layout or ours: out of their nest, without prefix, diffusers' renamed."""
    given = _without_text_encoder(unprefixed(unnested(state, where), ANCHORS, where))
    if has_wans_names(given):
        check_wans(given, spec, where)
        return from_wan(given, own_state(spec), spec)
    _check_frame_positions(given, spec)
    if "patch_in.proj.weight" not in given:
        _say_guidance(spec, where)
    if is_diffusers(given):
        output.note(
            f"{where}: diffusers' own DiTTransformer2DModel divides the exponents of its time embedding by 127, DiT "
            "and this network by 128, as these weights were trained: pictures differ a little from diffusers'"
        )
        given = flat_from_diffusers(given)
        given.setdefault("pos_embed", _spatial_table(spec))  # diffusers computes it and does not store it
    return given


def _say_guidance(spec: Spec, where: str) -> None:
    """DiT, SiT, OpenDiT and Open-Sora guide three of four channels, Latte all: left out, the spec guides all."""
    sampler, latte = spec.sampler, isinstance(spec.temporal, Alternating)
    guides = sampler.guidance != 1.0 and not isinstance(spec.condition, NoCondition)
    if guides and sampler.guidance_channels is None and spec.vae.channels == 4 and not latte:
        output.note(
            f"{where}: its own program guides the first 3 of 4 latent channels, this spec all: its pictures need "
            "sampler.guidance_channels=3"
        )


def _from_own(given: Mapping[str, Tensor], spec: Spec, where: str) -> dict[str, Tensor]:
    expected = {name: tensor.shape for name, tensor in own_state(spec).items()}
    given = _with_fitting_tables(given, spec)
    check_same_shapes(given, expected, explain(_renamed(given, spec), {}, spec), where)
    return as_float32(given, where)


def load_official(path: Path | str, spec: Spec) -> dict[str, Tensor]:
    """Read a checkpoint in the official, diffusers' or our own layout, as our state dict for `spec`.

    Raises UserError when it cannot be read or does not fit.
    """
    return from_official(read_weights(path, spec), spec, str(path))


def read_weights(path: Path | str, spec: Spec) -> dict[str, Tensor]:
    """The tensors of a denoiser's checkpoint file or folder. Of a checkpoint of a run, the moving average.

    Raises UserError where a folder tells a number of heads that is not the spec's: no tensor does.
    """
    folder = Path(path).expanduser()
    checkpoint = folder if folder.is_dir() and not (folder / INDEX).is_file() else folder.parent
    if (checkpoint / STATE).is_file():
        heads = told_spec(checkpoint).get("backbone", {}).get("heads")
        _check_heads(heads, spec, checkpoint / STATE)
    if (folder / STATE).is_file():
        average = part_of(folder, AVERAGE).exists()
        output.note(f"{path} is a checkpoint of a run: its {'moving average is' if average else 'weights are'} taken")
        return checkpoint_state(folder)
    inner = folder / "transformer" if (folder / "transformer").is_dir() else folder
    beside = (inner if inner.is_dir() else inner.parent) / "config.json"
    config = read_config(beside) or {}
    if inner.is_dir() or config.get("_class_name") in DIFFUSERS_CLASSES:
        _check_heads(config.get("num_attention_heads", config.get("num_heads")), spec, beside)
    return read_state(folder, subfolder="transformer")


def _check_heads(heads: object, spec: Spec, where: Path) -> None:
    assert isinstance(spec.backbone, Transformer)
    if heads is not None and heads != spec.backbone.heads:
        raise UserError(
            f"{where}: the weights are of {heads!r} heads, backbone.heads is {spec.backbone.heads}",
            f"set backbone.heads={heads}",
        )


def rename_official(given: Mapping[str, Tensor], spec: Spec) -> dict[str, Tensor]:
    """Our names as the official ones; filters of patches get their shape back, of one frame where they cannot span the
    spec's."""
    named = _renamed(given, spec)
    weight, kernel = named["x_embedder.proj.weight"], _kernel(spec)
    image = (spec.vae.channels, spec.patch.space, spec.patch.space)
    for shape in (kernel, image):
        if weight.ndim == 2 and weight.shape[1] == math.prod(shape):
            named["x_embedder.proj.weight"] = weight.reshape(weight.shape[0], *shape)
            break
    return named


def own_state(spec: Spec) -> dict[str, Tensor]:
    """Names and shapes of the network's state dict, without memory behind them."""
    with torch.device("meta"):
        return build_denoiser(spec).state_dict()


def _renamed(state: Mapping[str, Tensor], spec: Spec) -> dict[str, Tensor]:
    return {official_name(name, spec): tensor for name, tensor in state.items()}


def _kernel(spec: Spec) -> tuple[int, ...]:
    """Shape (C, [t,] p, p) of one official patch filter: three-dimensional where patches may span frames."""
    patch, channels = spec.patch, spec.vae.channels
    if isinstance(spec.temporal, Joint) or patch.time > 1 or is_stdit(spec):
        return (channels, patch.time, patch.space, patch.space)
    return (channels, patch.space, patch.space)


def _time_tables(spec: Spec, device: torch.device) -> dict[str, Tensor]:
    """Frozen tables over frames that upstream stores and we compute."""
    assert isinstance(spec.backbone, Transformer)
    position = spec.backbone.position
    named = isinstance(spec.temporal, Joint | Alternating) or is_stdit(spec)
    if not isinstance(position, Sincos) or not named:
        return {}
    name = "temp_embed" if isinstance(spec.temporal, Alternating) else "pos_embed_temporal"
    with torch.device(device):
        return {name: temporal_table(spec.backbone.width, derive_shapes(spec).grid[0], position.time_scale)}


def is_stdit(spec: Spec) -> bool:
    """Whether the network is Open-Sora's: PixArt-α with a second attention in every block."""
    assert isinstance(spec.backbone, Transformer)
    return isinstance(spec.temporal, Factorized) and isinstance(spec.backbone.conditioning, CrossAttention)


def _scales(spec: Spec) -> tuple[float, float]:
    """What the spec divides rows and columns by, and frames."""
    assert isinstance(spec.backbone, Transformer)
    position = spec.backbone.position
    return (position.space_scale, position.time_scale) if isinstance(position, Sincos) else (1.0, 1.0)


def _spatial_table(spec: Spec) -> Tensor:
    assert isinstance(spec.backbone, Transformer)
    _, rows, columns = derive_shapes(spec).grid
    return spatial_table(spec.backbone.width, rows, columns, _scales(spec)[0])


def _with_fitting_tables(state: Mapping[str, Tensor], spec: Spec) -> dict[str, Tensor]:
    """The state with its sine-cosine tables made for the spec's grid; tables of other content stay as they are."""
    assert isinstance(spec.backbone, Transformer)
    width, (_, rows, columns) = spec.backbone.width, derive_shapes(spec).grid
    fitting, (space_scale, time_scale) = dict(state), _scales(spec)
    for name in ("pos_embed", "pos_embed_spatial"):
        table = state.get(name)
        found = None if table is None else _grid_of(table, width, (space_scale, *SCALES))
        if table is None or found is None:
            continue
        if found[2] != space_scale:
            raise UserError(
                f"{name} of the checkpoint divides rows and columns by {found[2]:g}, the spec by {space_scale:g}",
                f"set backbone.position.space_scale to {found[2]:g}",
            )
        if found[:2] != (rows, columns):
            fitting[name] = spatial_table(width, rows, columns, space_scale).to(table.dtype)
    for name, computed in _time_tables(spec, torch.device("cpu")).items():
        table = state.get(name)
        if table is None or table.ndim != 3 or table.shape[2] != width:
            continue
        if _close(table, temporal_table(width, table.shape[1], time_scale)):
            fitting[name] = computed
    return fitting


def _check_time_tables(given: Mapping[str, Tensor], spec: Spec) -> None:
    """A table over frames can only be dropped where it is the computed one."""
    for name, computed in _time_tables(spec, torch.device("cpu")).items():
        if _close(given[name], computed):
            continue
        _, frames, width = computed.shape
        scale = next((one for one in SCALES if _close(given[name], temporal_table(width, frames, one))), None)
        raise UserError(
            f"{name} {tuple(computed.shape)} is not the sine-cosine table over frames that the network computes",
            "a checkpoint with learned positions has no counterpart here"
            if scale is None
            else f"the checkpoint divides frames by {scale:g}: set backbone.position.time_scale to {scale:g}",
        )


def _check_frame_positions(given: Mapping[str, Tensor], spec: Spec) -> None:
    """Open-Sora's network and one that adds its table over frames to the tokens have the same tensors."""
    if is_stdit(spec) and "pos_embed_temporal" in given:
        assert isinstance(spec.temporal, Factorized)
        if spec.temporal.frame_positions == "tokens":
            raise UserError(
                "the checkpoint is Open-Sora's STDiT, which shows the table over frames to the first attention only",
                "set temporal.frame_positions to first_attention",
            )


def _without_text_encoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenDiT keeps its frozen CLIP inside the network, and so in the file."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("y_embedder.text_encoder.")}


def _grid_of(table: Tensor, width: int, scales: Iterable[float]) -> tuple[int, int, float] | None:
    """Rows and columns of the grid, and the scale, whose sine-cosine table `table` is, if any; the first that fits."""
    if table.ndim != 3 or table.shape[0] != 1 or table.shape[2] != width or width % 4:
        return None
    tokens = table.shape[1]
    if tokens > MOST_TOKENS:
        return None
    grids = [(rows, tokens // rows) for rows in range(1, tokens + 1) if tokens % rows == 0]
    candidates = ((*grid, scale) for scale in dict.fromkeys(scales) for grid in grids)
    return next((found for found in candidates if _close(table, spatial_table(width, *found))), None)


def _close(table: Tensor, computed: Tensor) -> bool:
    if table.layout != torch.strided or not table.is_floating_point():
        return False
    return table.shape == computed.shape and torch.allclose(table.float(), computed, rtol=0, atol=TABLE_TOLERANCE)
