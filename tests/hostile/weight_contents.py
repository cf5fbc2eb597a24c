"""What lies inside a checkpoint: nests, prefixes, dtypes and values."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch

from tests.hostile.case import Case
from tests.hostile.weight_case import (
    FIRST,
    FLAT,
    FLAT_OTHER,
    OWN,
    case,
    prefixed,
    torch_file,
)


def nests() -> Iterator[Case]:
    both = {"model": FLAT_OTHER, "ema": FLAT}
    yield case("ema and model", torch_file(both), says=("ema and model", "ema is taken"))
    yield case("model and ema", torch_file(dict(reversed(both.items()))), says=("ema is taken",))
    for nest in ("model", "state_dict", "ema", "module", "model_state_dict", "ema_state_dict", "params"):
        yield case(f"under {nest}", torch_file({nest: FLAT, "step": 3}))
    yield case("twice nested", torch_file({"state_dict": {"model": FLAT}, "epoch": torch.tensor(3)}))
    yield case("state_dict and state_dict_ema", torch_file({"state_dict": FLAT_OTHER, "state_dict_ema": FLAT}))
    yield case("under a name nobody knows", torch_file({"generator": FLAT, "step": 3}), says=("generator is taken",))
    unknown = {"generator": {"state_dict": FLAT}, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}}
    yield case("twice nested under such a name", torch_file(unknown), says=("generator is taken",))
    several = {"teacher": FLAT_OTHER, "student": FLAT}
    yield case("two networks, each in a nest", torch_file(several), ("several networks", "teacher, student"))
    lost = {"ema": {"shadow_params": [torch.zeros(2)]}, "net": FLAT}
    yield case("ema without names beside such a name", torch_file(lost), says=("net is taken", "no average"))
    yield case("empty ema", torch_file({"ema": {}, "model": FLAT}))
    shadow = {"ema": {"shadow_params": list(FLAT_OTHER.values()), "decay": 0.9}, "model": FLAT}
    yield case("ema without names", torch_file(shadow), says=("ema holds no tensors by name", "no average"))
    yield case("ema is a number", torch_file({"ema": 0.999, "model": FLAT}))
    circle: dict[str, Any] = {"step": 1}
    circle["model"] = circle
    yield case("nest within itself", torch_file(circle), ("no tensors",))
    circle = {}
    for key in ("ema", "model", "state_dict", "module", "params"):
        circle[key] = circle
    yield case("nests within themselves", torch_file(circle), ("no tensors",))
    deep: dict[str, Any] = dict(FLAT)
    for _ in range(60):
        deep = {"model": deep}
    yield case("sixty nests", torch_file(deep), ("no tensors",))
    for content in ([1, 2], list(FLAT.values()), torch.zeros(3), "text", 5, None, {}, {"model": {}}, {1: 2}):
        shown = type(content).__name__ if not isinstance(content, dict) else repr(content)
        yield case(f"only {shown}", torch_file(content), ("no tensors",))
    yield case("numbers for names", torch_file(dict(enumerate(FLAT.values()))), ("not text",))
    yield case("ordered", torch_file(OrderedDict(FLAT)))


def names() -> Iterator[Case]:
    for prefix in ("module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.module.model."):
        yield case(f"prefix {prefix}", torch_file(prefixed(prefix)), says=(prefix.replace("_orig_mod.", "") or prefix,))
        yield case(f"own names, prefix {prefix}", torch_file(prefixed(prefix, OWN)))
    for prefix in ("model.diffusion_model.", "net.", "denoiser.dit.", "_fsdp_wrapped_module.module."):
        yield case(f"prefix {prefix}", torch_file(prefixed(prefix)))
    yield case("prefix in a nest", torch_file({"model": prefixed("module.", FLAT_OTHER), "ema": prefixed("module.")}))
    inner = {name.replace("blocks.0.", "blocks.0._orig_mod."): tensor for name, tensor in FLAT.items()}
    yield case("compiled block", torch_file(inner), says=("_orig_mod",))
    inner = {name.replace(".attn.", "._checkpoint_wrapped_module.attn."): tensor for name, tensor in FLAT.items()}
    yield case("wrapped blocks", torch_file(inner))
    yield case("averaged model", torch_file({"n_averaged": torch.tensor(9), **prefixed("module.")}))
    twice = {**FLAT, f"_orig_mod.{FIRST}": FLAT[FIRST] + 1}
    yield case("with and without wrapper", torch_file(twice), ("twice",))
    two = {**prefixed("model.", FLAT_OTHER), **prefixed("ema.")}
    yield case("two networks, one averaged", torch_file(two), says=("'ema.' is taken",))
    yield case("two networks", torch_file({**prefixed("a."), **prefixed("b.")}), ("several networks",))
    partly = {("module." if "blocks.0" in name else "") + name: tensor for name, tensor in FLAT.items()}
    yield case("prefix of some", torch_file(partly), ("module.blocks.0",))
    yield case("prefix and more", torch_file({**prefixed("module."), "head.weight": torch.zeros(2)}), ("head.weight",))
    strange = {f"unet.down.{i}": tensor for i, tensor in enumerate(FLAT.values())}
    yield case("another network's names", torch_file(strange), ("none of its names",))
    yield case("no table", torch_file({n: t for n, t in FLAT.items() if "y_emb" not in n}), ("kind to none",))


def values() -> Iterator[Case]:
    for dtype, tolerance in ((torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float64, 0.0)):
        cast = {name: tensor.to(dtype) for name, tensor in FLAT.items()}
        yield case(f"in {dtype}", torch_file(cast), tolerance=tolerance)
    for dtype in (torch.int8, torch.int32, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn):
        word = str(dtype).removeprefix("torch.")
        yield case(f"one in {dtype}", torch_file({**FLAT, FIRST: FLAT[FIRST].to(dtype)}), (FIRST, word))
    whole = {name: (tensor * 100).to(torch.int8) for name, tensor in FLAT.items()}
    yield case("all int8", torch_file(whole), ("int8",))
    for text, value in (("NaN", float("nan")), ("inf", float("inf")), ("-inf", float("-inf"))):
        tensor = FLAT[FIRST].clone()
        tensor.view(-1)[7] = value
        yield case(f"{text} inside", torch_file({**FLAT, FIRST: tensor}), (FIRST, "infinite or not a number"))
    large = FLAT[FIRST].double() * 1e300
    yield case("beyond float32", torch_file({**FLAT, FIRST: large}), (FIRST, "beyond float32"))
    yield case(
        "sparse",
        torch_file({**FLAT, "t_embedder.mlp.0.weight": FLAT["t_embedder.mlp.0.weight"].to_sparse()}),
        ("sparse",),
    )
    square = torch.quantize_per_tensor(FLAT["t_embedder.mlp.2.weight"], 0.1, 0, torch.qint8)
    yield case("quantised", torch_file({**FLAT, "t_embedder.mlp.2.weight": square}), ("t_embedder.mlp.2.weight",))
    yield case("without values", torch_file({**FLAT, FIRST: FLAT[FIRST].to("meta")}), ("meta",))
    name = "t_embedder.mlp.2.weight"
    turned = FLAT[name].t().contiguous().t()
    yield case("transposed view", torch_file({**FLAT, name: turned}))
    every = torch.zeros(64, 32)
    every[::2] = FLAT[name]
    yield case("view with strides", torch_file({**FLAT, name: every[::2]}))
    yield case("parameters", torch_file({n: torch.nn.Parameter(t) for n, t in FLAT.items()}))
    vast = torch.zeros(1).expand(1 << 20, 1 << 20)
    yield case("a vast view", torch_file({**FLAT, name: vast}), ("1048576",))
    wrong = {"shape": FLAT[name][:, :-1], "scalar": torch.tensor(1.0), "no elements": torch.zeros(0, 32)}
    for word, tensor in wrong.items():
        yield case(f"wrong {word}", torch_file({**FLAT, name: tensor.clone()}), (name, "wrong shape"))
    yield case("surplus", torch_file({**FLAT, "more": torch.zeros(3)}), ("unexpected", "more (3)"))
    yield case("lacking", torch_file({n: t for n, t in FLAT.items() if n != FIRST}), ("missing", FIRST))
