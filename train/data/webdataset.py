"""WebDataset's layout: tars in which files of one name but for its end belong together: `a.mp4`, `a.txt`, `a.json`."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sora_spec.errors import UserError
from sora_spec.train.data.captions import check_encodable
from sora_spec.train.data.entries import Entries, Source
from sora_spec.train.data.members import Member, index_of
from sora_spec.train.data.rows import label_text
from sora_spec.train.data.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES, thumbnails

_BESIDE = (".txt", ".json", ".cls")


def read_tar(path: Path) -> Source:
    """Every clip of a tar. Raises UserError as `read_tars` does."""
    return read_tars(path, [path])


def read_tars(path: Path, tars: Sequence[Path]) -> Source:
    """Every clip of tars in one folder, with its caption (`.txt`, or "caption" of `.json`) and class (`.cls`, "label").

    `path`: the source that they are. Raises UserError for what is no plain tar, and for a caption or class that is not
    understood, by its member.
    """
    kind = "WebDataset tar" if len(tars) == 1 else f"{len(tars)} WebDataset tars"
    source = Source(path, kind, Entries(tars[0].parent), in_tars=True)
    for tar in tars:
        _read(tar, source)
    return source


def _read(tar: Path, source: Source) -> None:
    try:
        members = index_of(str(tar))
    except (OSError, tarfile.TarError) as error:
        raise UserError(
            f"{tar} cannot be read as a tar: {error}", "write it anew, uncompressed: tar -cf shard.tar -C FOLDER ."
        ) from None
    keys: dict[str, str] = {}
    beside = thumbnails(members)
    for name in members:
        key, suffix = _split(name)
        if name in beside:
            source.ignored.add("pictures beside a video of the same name (thumbnails)", f"{tar}/{name}")
        elif suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES:
            if key in keys:
                raise UserError(f"{tar}: {keys[key]} and {name} are two clips of one key", "rename one of them")
            keys[key] = name
            label, caption = _said(tar, members, key)
            source.entries.add(f"{tar.name}/{name}", label, caption)
        elif suffix not in _BESIDE:
            source.ignored.add(f"suffix {suffix}" if suffix else "no suffix", f"{tar}/{name}")


def _split(name: str) -> tuple[str, str]:
    """WebDataset's key, which ends at the first dot of the file's name, and the last suffix."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}".removeprefix("/"), os.path.splitext(file)[1].lower()


def _said(path: Path, members: Mapping[str, Member], key: str) -> tuple[str | None, str | None]:
    """Label and caption of a key."""
    texts = {end: members[name] for end in _BESIDE if (name := key + end) in members}
    where = f"{path}: {key}"
    facts = _facts(_text(texts[".json"], f"{where}.json"), f"{where}.json") if ".json" in texts else {}
    caption, label = facts.get("caption"), facts.get("label")
    if caption is not None and not isinstance(caption, str):
        raise UserError(f"{where}.json: caption {caption!r} is not text", 'a caption is a string: "caption": "a cat"')
    if caption is not None:
        check_encodable(caption, f"{where}.json")
    if ".txt" in texts:
        beside = _text(texts[".txt"], f"{where}.txt").removesuffix("\n").removesuffix("\r")
        if caption is not None and caption != beside:
            raise UserError(f"{where} has two captions, in .txt and in .json", "remove one of them")
        caption = beside
    if ".cls" in texts:
        label = _text(texts[".cls"], f"{where}.cls").strip()
    return label_text(label, where), caption


def _text(member: Member, where: str) -> str:
    try:
        return member.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where} is not UTF-8 text: {error.reason} at byte {error.start}", "save it as UTF-8"
        ) from None


def _facts(text: str, where: str) -> dict[str, Any]:
    try:
        facts: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}", 'one object: {"caption": "a cat"}') from None
    if not isinstance(facts, dict):
        raise UserError(f"{where} is no JSON object", 'one object: {"caption": "a cat"}')
    return facts
