"""Folders of weights: shards, indices, configs, and checkpoints of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from safetensors.torch import save
from torch import Tensor

from tests.hostile.case import Case
from tests.hostile.weight_case import (
    FLAT,
    FLAT_OTHER,
    OTHER,
    OWN,
    STEM,
    case,
    folder_of,
    saved,
)

ONE, TWO = f"{STEM}-00001-of-00002.safetensors", f"{STEM}-00002-of-00002.safetensors"


def sharded(change: Callable[[dict[str, str]], Any] = lambda _: None, **files: dict[str, Tensor]) -> dict[str, bytes]:
    parts = {ONE: dict(list(FLAT.items())[::2]), TWO: dict(list(FLAT.items())[1::2])}
    where = {name: shard for shard, part in parts.items() for name in part}
    change(where)
    parts |= {{"one": ONE, "two": TWO}[key]: value for key, value in files.items()}
    index = json.dumps({"metadata": {}, "weight_map": where}).encode()
    return {f"{STEM}.safetensors.index.json": index} | {shard: save(part) for shard, part in parts.items()}


STATE = json.dumps({"step": 5, "stage": "denoiser", "data": "x"}).encode()


def folders() -> Iterator[Case]:
    whole, other = save(FLAT), save(FLAT_OTHER)
    yield case("folder", folder_of({f"{STEM}.safetensors": whole}))
    yield case("pipeline", folder_of({f"transformer/{STEM}.safetensors": whole, "model_index.json": b"{}"}))
    two = {f"{STEM}.safetensors": whole, f"{STEM}.bin": saved(FLAT_OTHER), "model.safetensors": other}
    yield case("folder with several", folder_of(two), says=("is taken",))
    run = {"spec.yaml": b"", "denoiser/checkpoints/step-00000005/model.safetensors": save(OWN)}
    yield case("run folder", folder_of(run), ("is a run folder", "denoiser/checkpoints/step-00000005"))
    yield case("empty folder", folder_of({}), ("holds no weights",))
    yield case("folder of others", folder_of({"a.txt": b""}), ("a.txt",))
    yield case("shards", folder_of(sharded()))
    index = f"{STEM}.safetensors.index.json"
    yield case("shard missing", folder_of({n: c for n, c in sharded().items() if n != TWO}), (TWO, "lacks 1 of 2"))
    first, second = list(FLAT)[:2]
    yield case("index swaps", folder_of(sharded(lambda w: w.update({first: w[second], second: w[first]}))), ("belong",))
    yield case("index lacks a tensor", folder_of(sharded(lambda w: w.pop(first))), (first,))
    yield case("index has more", folder_of(sharded(lambda w: w.update(more=ONE))), ("more",))
    both = {name: tensor + 1 for name, tensor in FLAT.items()}
    yield case("shards with the same tensors", folder_of(sharded(two=both)), ("belong",))
    mixed = {**sharded(), TWO: b"junk"}
    yield case("shard of junk", folder_of(mixed), ("safetensors",))
    for name, content in {
        "no JSON": b"{",
        "a list": b"[]",
        "no map": b"{}",
        "an empty map": b'{"weight_map": {}}',
        "map of numbers": b'{"weight_map": {"a": 1}}',
        "outside": b'{"weight_map": {"a": "../w.safetensors"}}',
        "absolute": b'{"weight_map": {"a": "/etc/passwd"}}',
        "itself": json.dumps({"weight_map": {"a": index}}).encode(),
        "a name twice": b'{"weight_map": {"a": "x.bin", "a": "y.bin"}}',
        "not text": b"\xff\xfe",
        "deep": b"[" * 100_000,
    }.items():
        yield case(f"index: {name}", folder_of({index: content}), ("not an index",))
    average = {"model.safetensors": save(OTHER), "ema.safetensors": save(OWN), "state.json": STATE}
    yield case("checkpoint of a run", folder_of(average, "step-00000005"), says=("moving average",))
    for heads, words in ((2, None), (4, ("4 heads", "backbone.heads=4")), ("two", ("heads",))):
        config = json.dumps({"_class_name": "DiTTransformer2DModel", "num_attention_heads": heads}).encode()
        files = {f"{STEM}.safetensors": whole, "config.json": config}
        yield case(f"config of {heads} heads", folder_of(files), words and ("config.json", *words))
        beside = lambda folder, files=files: folder_of(files)(folder) / f"{STEM}.safetensors"  # noqa: E731
        yield case(f"file beside a config of {heads} heads", beside, words, named=False)
    for content in (b"{", b"[]", b"null", b"7", b"\xff", b"[" * 100_000, b'{"a": 1, "a": 2}'):
        files = {f"{STEM}.safetensors": whole, "config.json": content}
        yield case(f"config {content[:12]!r}", folder_of(files), ("config.json",))
    told = json.dumps({"step": 5, "stage": "denoiser", "data": "x", "spec": {"backbone": {"heads": 4}}}).encode()
    yield case("checkpoint of other heads", folder_of({**average, "state.json": told}, "step-00000005"), ("4 heads",))
    for content in (b"{", b"[]", b"", b'{"step": "five"}', b'{"step": 5}'):
        files = {**average, "state.json": content}
        yield case(f"checkpoint with state {content!r}", folder_of(files, "step-00000005"), ("damaged",))
    yield case("absent", lambda folder: folder / "none.pt", ("does not exist",))
