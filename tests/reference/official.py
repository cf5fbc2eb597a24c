"""Official programs, imported from checkouts that lie beside this repository and are no part of it.

A folder holds them under the names of their repositories: `DiT`, `SiT`, `Latte` and `Open-Sora` (at tag v1.0.0). What
they import of acceleration libraries is replaced: xformers' attention by PyTorch's, prompt by prompt; `timm` by three
small classes where it is not there, as it needs a torchvision that fits torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def load_file(path: Path, name: str) -> Any:
    """One module from its file; a package with the modules beside it."""
    folder = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=folder)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load_stdit(checkout: Path) -> tuple[Any, Any]:
    """Open-Sora's `STDiT` and `IDDPM`."""
    with stand_ins(), _open_sora(checkout):
        network = importlib.import_module("opensora.models.stdit.stdit")
        return network.STDiT, load_file(checkout / "opensora/schedulers/iddpm/__init__.py", "official_iddpm").IDDPM


@contextmanager
def stand_ins() -> Generator[None]:
    """Libraries that the programs import and that need not be there."""
    made: list[str] = []

    def make(name: str, **members: Any) -> None:
        module = types.ModuleType(name)
        module.__dict__.update(members)
        sys.modules[name] = module
        made.append(name)

    if not _imports("timm.models.vision_transformer"):
        for name in [one for one in sys.modules if one.split(".")[0] == "timm"]:
            del sys.modules[name]  # what a failed import left
        make("timm")
        make("timm.models")
        make("timm.models.layers", DropPath=nn.Identity)
        make("timm.models.vision_transformer", PatchEmbed=PatchEmbed, Attention=Attention, Mlp=Mlp)
    if not _imports("xformers.ops"):
        mask = types.SimpleNamespace(from_seqlens=lambda queries, keys: (queries, keys))
        ops = {"memory_efficient_attention": packed_attention, "fmha": types.SimpleNamespace(BlockDiagonalMask=mask)}
        make("xformers", ops=types.SimpleNamespace(**ops))
        make("xformers.ops", **ops)
    try:
        yield
    finally:
        for name in made:
            sys.modules.pop(name, None)


def _imports(name: str) -> bool:
    try:
        importlib.import_module(name)
    except Exception:
        return False
    return True


@contextmanager
def _open_sora(checkout: Path) -> Generator[None]:
    """Open-Sora's packages without what their `__init__` files pull in."""

    class Registry:
        def register_module(self, *names: str) -> Any:
            return lambda made: made

    packages = ["", ".models", ".models.layers", ".models.stdit", ".acceleration", ".utils", ".schedulers"]
    for package in packages:
        module = types.ModuleType(f"opensora{package}")
        module.__path__ = [str(checkout / "opensora" / package.strip(".").replace(".", "/"))]
        sys.modules[module.__name__] = module
    members: dict[str, dict[str, Any]] = {
        "registry": {"MODELS": Registry(), "SCHEDULERS": Registry()},
        "acceleration.checkpoint": {"auto_grad_checkpoint": lambda module, *rest: module(*rest)},
        "acceleration.communications": dict.fromkeys(
            ("all_to_all", "split_forward_gather_backward", "gather_forward_split_backward")
        ),
        "acceleration.parallel_states": {"get_sequence_parallel_group": None},
        "utils.ckpt_utils": {"load_checkpoint": None},
    }
    for name, contents in members.items():
        module = types.ModuleType(f"opensora.{name}")
        module.__dict__.update(contents)
        sys.modules[module.__name__] = module
    try:
        yield
    finally:
        for name in [one for one in sys.modules if one.split(".")[0] == "opensora"]:
            del sys.modules[name]


def packed_attention(q: Tensor, k: Tensor, v: Tensor, p: float = 0.0, attn_bias: Any = None) -> Tensor:
    """Attention of sequences laid end to end, (1, N, heads, d), each to its own keys."""
    assert p == 0.0
    parts: list[Tensor] = []
    first = first_key = 0
    for queries, keys in zip(*attn_bias, strict=True):
        one = q[:, first : first + queries].transpose(1, 2)
        key, value = (x[:, first_key : first_key + keys].transpose(1, 2) for x in (k, v))
        scores = one @ key.transpose(-2, -1) * one.shape[-1] ** -0.5
        parts.append((scores.softmax(-1) @ value).transpose(1, 2))
        first, first_key = first + queries, first_key + keys
    return torch.cat(parts, dim=1)


class Mlp(nn.Module):
    """timm's: linear, activation, linear."""

    def __init__(
        self, in_features: int, hidden_features: int, out_features: int | None = None, act_layer: Any = nn.GELU, drop=0
    ) -> None:
        super().__init__()
        self.fc1, self.act = nn.Linear(in_features, hidden_features), act_layer()
        self.fc2 = nn.Linear(hidden_features, out_features or in_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Attention(nn.Module):
    """timm's: fused query, key and value, softmax, projection."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = False, **rest: Any) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = num_heads, nn.Linear(dim, 3 * dim, bias=qkv_bias), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, N, D = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q * (D // self.heads) ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(B, N, D))


class PatchEmbed(nn.Module):
    """timm's: a convolution whose stride is its kernel."""

    def __init__(self, size: int, patch: int, channels: int, dim: int, bias: bool = True) -> None:
        super().__init__()
        self.patch_size, self.num_patches = (patch, patch), (size // patch) ** 2
        self.proj = nn.Conv2d(channels, dim, patch, patch, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)
