"""An image model's weights as the start of a video model; another table of labels.

Only training starts so, and says what it leaves at its own start: whoever generates wants the weights as they are.

- Blocks. Latte (Vchitect/Latte `train.py`) takes DiT's blocks one to one, so that those which look across frames start
  from blocks that looked within one. A network of twice the file's depth takes them as its even, spatial blocks; the
  others start as the identity (adaLN-Zero's gates).
- A second attention in every block is left at its start, which adds zero, as in Open-Sora 1.0 (`initialize_temporal`).
- Filters of patches that span t frames: the file's, divided by t, for each frame (Carreira & Zisserman, arXiv
  1705.07750 §2): a still clip has the tokens of its image. The head is repeated: each frame of a patch gets the image's
  answer.
- Tables of positions are computed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from sora_spec import output
from sora_spec.builders.weights.dit import fit_official, plain_names, rename_official, to_official
from sora_spec.errors import UserError
from sora_spec.language.schema.backbone import Alternating, Sincos, Transformer
from sora_spec.language.schema.condition import ClassCondition, NoCondition
from sora_spec.language.schema.spec import Spec

TABLE = "y_embedder.embedding_table.weight"
FILTERS, HEAD = "x_embedder.proj.weight", "final_layer.linear"
SPATIAL, TEMPORAL = ("pos_embed", "pos_embed_spatial"), ("temp_embed", "pos_embed_temporal")


def start_state(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], spec: Spec, where: str = "the checkpoint"
) -> dict[str, Tensor]:
    """Our state dict for `spec`, from a checkpoint in any layout that fits it or that training may start from.

    `own`: the state of the freshly built network. What is taken from there, and what is changed, is said.

    Raises UserError as `from_official` does.
    """
    given = plain_names(state, spec, where)
    ours = "patch_in.proj.weight" in given
    given = rename_official(given, spec) if ours else dict(given)
    fresh = to_official(own, spec)
    is_image = not any(name in given for name in TEMPORAL)
    if is_image:
        _take_positions(given, fresh, spec, where, say=not ours)
        _take_blocks(given, fresh, spec, where, say=not ours)
        _take_patches(given, fresh, where)
    _take_labels(given, fresh, spec, where)
    return fit_official(given, spec, where)


def _take_positions(given: dict[str, Tensor], fresh: Mapping[str, Tensor], spec: Spec, where: str, say: bool) -> None:
    """Tables under the spec's names, and those that an image model lacks."""
    wanted = next((name for name in SPATIAL if name in fresh), None)
    known = next((name for name in SPATIAL if name in given), None)
    if wanted is not None and known is None:
        given[wanted] = fresh[wanted]
    elif wanted is not None and known is not None:
        given[wanted] = table = given.pop(known)
        position = spec.backbone.position if isinstance(spec.backbone, Transformer) else None
        if isinstance(position, Sincos) and position.space_scale != 1.0:
            given[wanted] = fresh[wanted]
            output.note(f"{where}: its table of positions is made anew for space_scale {position.space_scale:g}")
        elif table.shape != fresh[wanted].shape:
            output.note(f"{where}: its table of positions is made anew for {fresh[wanted].shape[1]} tokens a frame")
    for name in TEMPORAL:
        if name in fresh:
            given[name] = fresh[name]
            if say:
                output.note(f"{where} is an image model's: the table over frames is computed")


def _take_blocks(given: dict[str, Tensor], fresh: Mapping[str, Tensor], spec: Spec, where: str, say: bool) -> None:
    held, depth = _depth(given), _depth(fresh)
    if isinstance(spec.temporal, Alternating) and say:
        if depth == 2 * held:
            _spread(given, fresh)
            output.warn(
                f"{where}: its {held} blocks become the even ones, which look within a frame; the {held} that look "
                "across frames are left at their start, the identity"
            )
        elif depth == held:
            output.warn(
                f"{where}: its blocks are taken one to one, as Latte does; those with odd numbers looked within an "
                "image and now look across frames"
            )
    second = [name for name in fresh if ".attn_temp." in name]
    if second and not any(name in given for name in second):
        given |= {name: fresh[name] for name in second}
        output.warn(f"{where}: the attention across frames of all {depth} blocks is left at its start, where it adds 0")


def _depth(state: Mapping[str, Tensor]) -> int:
    return 1 + max((int(match[1]) for name in state if (match := re.match(r"blocks\.(\d{1,6})\.", name))), default=-1)


def _spread(given: dict[str, Tensor], fresh: Mapping[str, Tensor]) -> None:
    blocks = {name: given.pop(name) for name in list(given) if name.startswith("blocks.")}
    for name, tensor in blocks.items():
        _, number, rest = name.split(".", 2)
        given[f"blocks.{2 * int(number)}.{rest}"] = tensor
    given |= {name: x for name, x in fresh.items() if re.match(r"blocks\.\d*[13579]\.", name)}


def _take_patches(given: dict[str, Tensor], fresh: Mapping[str, Tensor], where: str) -> None:
    """Filters and head for patches that span frames."""
    filters, wanted = given.get(FILTERS), fresh[FILTERS]
    if filters is None or filters.ndim != 4 or wanted.ndim != 5 or filters.shape != wanted[:, :, 0].shape:
        return
    frames = wanted.shape[2]
    given[FILTERS] = (filters / frames).unsqueeze(2).expand(wanted.shape)
    if frames == 1:
        return
    for kind in ("weight", "bias"):
        head, expected = given.get(f"{HEAD}.{kind}"), fresh[f"{HEAD}.{kind}"]
        if head is None:
            continue
        if len(head) * frames != len(expected):
            raise UserError(
                f"{where}: its head returns {len(head)} values a token of one frame, the spec's {len(expected)} for "
                f"{frames} frames",
                "set backbone.learn_sigma as the file has it",
            )
        given[f"{HEAD}.{kind}"] = head.repeat(frames, *(1 for _ in head.shape[1:]))
    output.warn(
        f"{where}: its patches are of one frame, the spec's of {frames}: each frame gets the file's filters divided by "
        f"{frames}, and the head is repeated for each"
    )


def _take_labels(given: dict[str, Tensor], fresh: Mapping[str, Tensor], spec: Spec, where: str) -> None:
    """Leave out a table of labels of another size, or put a fresh one where there is none."""
    table, own = given.get(TABLE), fresh.get(TABLE)
    if own is None and isinstance(spec.condition, NoCondition) and table is not None:
        del given[TABLE]
        output.warn(f"{where}: its table of {len(table)} labels is left out: condition.kind is none")
    if own is None or not isinstance(spec.condition, ClassCondition):
        return
    if table is None and not any(name.startswith("y_embedder.") for name in given):
        given[TABLE] = own
        output.warn(f"{where} has no table of labels: the one of {spec.condition.classes} classes is left at its start")
    elif table is not None and table.ndim == 2 and len(table) != len(own) and table.shape[1:] == own.shape[1:]:
        given[TABLE] = own
        output.warn(
            f"{where}: its table of {len(table)} labels is left out, the spec has {len(own)} with the null label: "
            "all labels are left at their start"
            if spec.condition.dropout
            else f"{where}: its table of {len(table)} labels is left out, the spec has {len(own)}: all labels are left "
            "at their start"
        )
