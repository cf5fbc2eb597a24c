"""Whether the numbers of a checkpoint can be a network's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sora_spec.errors import UserError

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SHOWN = 8
_ELEMENTS_AT_A_TIME = 1 << 24


def as_float32(state: Mapping[str, Tensor], where: str = "the checkpoint") -> dict[str, Tensor]:
    """The state in float32, every tensor dense and finite.

    Raises UserError that names the tensors which are whole numbers, sparse, quantised, or not finite.
    """
    for name, tensor in state.items():
        odd = _oddity(tensor)
        if odd is not None:
            raise UserError(
                f"{where}: {name} {odd}, but weights are floating-point numbers",
                "give the weights as trained, in float32, float16 or bfloat16",
            )
    cast = {name: tensor.to(torch.float32) for name, tensor in state.items()}
    _check_finite(state, cast, where)
    return cast


def _oddity(tensor: Tensor) -> str | None:
    if tensor.is_quantized or tensor.dtype in (torch.qint8, torch.quint8, torch.qint32):
        return "is quantised"
    if tensor.layout != torch.strided:
        return f"is sparse ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_nested:
        return "is a nested tensor"
    if tensor.dtype not in FLOATS:
        return f"is {str(tensor.dtype).removeprefix('torch.')}"
    return None


def _check_finite(given: Mapping[str, Tensor], cast: Mapping[str, Tensor], where: str) -> None:
    bad = [name for name, tensor in cast.items() if not _is_finite(tensor)]
    if not bad:
        return
    large = [name for name in bad if given[name].dtype == torch.float64 and _is_finite(given[name])]
    what = "values beyond float32" if large == bad else "values that are infinite or not a number"
    more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    raise UserError(
        f"{where}: {len(bad)} of {len(cast)} tensors hold {what}: {', '.join(bad[:SHOWN])}{more}",
        "such a network only makes noise: take an earlier checkpoint, or copy the file again",
    )


def _is_finite(tensor: Tensor) -> bool:
    """Of a tensor without memory behind it, yes. In pieces, so that no mask as large as the tensor is made."""
    if tensor.device.type == "meta":
        return True
    flat = tensor.reshape(-1)
    return all(bool(torch.isfinite(piece).all()) for piece in flat.split(_ELEMENTS_AT_A_TIME))
