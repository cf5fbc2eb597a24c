"""Which of a checkpoint's tensors are meant, and what stands before their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sora_spec import output
from sora_spec.errors import UserError

AVERAGES = ("ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "params_ema")
PLAIN = ("model", "model_state_dict", "state_dict", "module", "params", "weights")
NESTS = (*AVERAGES, *PLAIN)
"""Where training checkpoints keep their weights; the moving average first, it is what papers evaluate."""
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and recomputation put into names, also in their middle."""
COUNTERS = ("n_averaged", "num_updates", "decay")
"""Single numbers that averaging wrappers keep beside the weights."""
_DEEPEST = 8
_MOST_NESTS = 100


def unnested(loaded: Any, where: str = "the checkpoint") -> dict[str, Tensor]:
    """The tensors by name inside a loaded checkpoint, nested or not; empty where there are none.

    Of several sets the moving average is taken; what was taken and what was left is said.
    """
    inside, path = loaded, list[str]()
    while isinstance(inside, Mapping) and len(path) < _DEEPEST:
        nests = [nest for nest in NESTS if isinstance(inside.get(nest), Mapping)]
        filled = [nest for nest in nests if _has_tensors(inside[nest])]
        filled = filled or _other_nests(inside, where)
        _say_empty(inside, filled, where)
        if not filled:
            break
        if len(filled) > 1:
            output.note(f"{where} holds {_listed(filled)}: {filled[0]} is taken")
        path.append(filled[0])
        inside = inside[filled[0]]
    if not isinstance(inside, Mapping):
        return {}
    state = {name: value for name, value in inside.items() if isinstance(value, Tensor)}
    odd = [name for name in state if not isinstance(name, str)]
    if odd:
        raise UserError(f"{where} names a tensor {odd[0]!r}, which is not text", "save a module's state_dict()")
    return state


def _other_nests(inside: Mapping[Any, Any], where: str) -> list[str]:
    """The one nest of another name, where all tensors lie in it. Raises UserError where there are several."""
    if any(isinstance(value, Tensor) for value in inside.values()):
        return []
    others = [name for name, value in inside.items() if isinstance(name, str) and _has_tensors(value)]
    if len(others) > 1:
        raise UserError(f"{where} holds several networks: {', '.join(others)}", "save the one that is meant by itself")
    if others:
        output.note(f"{where}: {others[0]} is taken, the only tensors by name in it")
    return others


def _has_tensors(value: Any, seen: set[int] | None = None) -> bool:
    """Whether tensors by name lie in `value`, or in one of its nests; a mapping may hold itself."""
    seen = set[int]() if seen is None else seen
    if not isinstance(value, Mapping) or id(value) in seen or len(seen) > _MOST_NESTS:
        return False
    seen.add(id(value))
    if any(isinstance(item, Tensor) for item in value.values()):
        return True
    return any(_has_tensors(value.get(nest), seen) for nest in NESTS)


def _say_empty(inside: Mapping[Any, Any], filled: Sequence[str], where: str) -> None:
    empty = [nest for nest in AVERAGES if inside.get(nest) and nest not in filled]
    if empty and filled and filled[0] not in AVERAGES:
        output.warn(f"{where}: its {empty[0]} holds no tensors by name, so {filled[0]} is taken, which is no average")


def unprefixed(state: Mapping[str, Tensor], anchors: Sequence[str], where: str = "the checkpoint") -> dict[str, Tensor]:
    """The state without wrappers' names, and without the one prefix that stands before all of its names.

    `anchors`: names that the network's own layouts have; what stands before the first one found is the prefix. Of
    several networks in one file the averaged one is taken, and said.

    Raises UserError when two tensors would get one name, or when it is not clear which network is meant.
    """
    given = _unwrapped(state, where)
    prefixes = _prefixes(given, anchors)
    if not prefixes or prefixes == [""]:
        return given
    prefix = _chosen(prefixes, where)
    rest = [name for name in given if not name.startswith(prefix)]
    others = [name for name in rest if any(other and name.startswith(other) for other in prefixes if other != prefix)]
    if prefix:
        output.note(f"{where}: {prefix!r} is taken off the names of its tensors")
    kept = {name.removeprefix(prefix): tensor for name, tensor in given.items() if name.startswith(prefix)}
    strange = {
        name: given[name] for name in rest if name not in others and not (name in COUNTERS and given[name].numel() == 1)
    }
    return kept | {name: tensor for name, tensor in strange.items() if name not in kept}


def _unwrapped(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    taken: set[str] = set()
    for name, tensor in state.items():
        short = name
        for wrapper in WRAPPERS:
            if wrapper in short:
                short = short.replace(wrapper, "")
                taken.add(wrapper)
        if short in found:
            raise UserError(f"{where} holds {short} twice, with and without {sorted(taken)[0]!r}", "keep one of them")
        found[short] = tensor
    if taken:
        output.note(f"{where}: {_listed(sorted(repr(name) for name in taken))} is taken off the names of its tensors")
    return found


def _prefixes(state: Mapping[str, Tensor], anchors: Sequence[str]) -> list[str]:
    """What stands before the first anchor that the file has, shortest first."""
    for anchor in anchors:
        found = [name.removesuffix(anchor) for name in state if name == anchor or name.endswith(f".{anchor}")]
        if found:
            return sorted(found, key=lambda prefix: (len(prefix), prefix))
    return []


def _chosen(prefixes: Sequence[str], where: str) -> str:
    if len(prefixes) == 1:
        return prefixes[0]
    shown = _listed([repr(prefix) if prefix else "names without prefix" for prefix in prefixes])
    averages = [prefix for prefix in prefixes if "ema" in prefix.replace("_", ".").split(".")]
    if len(averages) != 1:
        raise UserError(f"{where} holds several networks: {shown}", "save the one that is meant in a file of its own")
    output.note(f"{where} holds {shown}: {averages[0]!r} is taken")
    return averages[0]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
