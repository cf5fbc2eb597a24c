"""Under which conditions clips were judged. Results are compared only where all of these are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sora_spec.errors import UserError
from sora_spec.train.judge.asked import Asked, DigitsData
from sora_spec.train.judge.measures import COMPONENTS
from sora_spec.train.judge.reading import READER

Protocol = dict[str, Any]


def protocol_of(
    data: DigitsData, asked: Sequence[Asked], seed: int, clip: dict[str, Any], shuffled: bool = False
) -> Protocol:
    """All that decides a result but the model: its hash is the name of the protocol.

    `seed`: of the generated clips. `clip`: frames, height, width and rate of a generated clip; real ones are cut and
    scaled to it.
    """
    values: Protocol = {
        "version": 1,
        "clips": len(asked),
        "seed": seed,
        "asked": hashlib.sha256(json.dumps([one.prompt for one in asked]).encode()).hexdigest(),
        "shuffled": shuffled,
        "data": ("captioned digits" if data.captioned else "digits"),
        "recipe": asdict(data.recipe),
        "resize": {name: clip[name] for name in ("frames", "height", "width", "fps")},
        "reader": READER,
        "extractor": f"{COMPONENTS} principal components of {len(asked)} real clips of the training split",
        "real": f"{len(asked)} clips of held-out handwriting",
    }
    return values | {"hash": hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]}


def read_result(path: Path) -> dict[str, Any]:
    """What an earlier `eval --json` printed. Raises UserError for anything else."""
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        protocol = dict(values["protocol"])
        assert isinstance(protocol["hash"], str)
        assert isinstance(values["generated"], dict)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AssertionError):
        raise UserError(
            f"{path} is no result of an evaluation", "give what `sora-spec eval … --json` printed"
        ) from None
    return values


def refuse_unlike(now: Protocol, before: Protocol, path: Path) -> None:
    """Raise UserError, naming what differs, where two results are of different protocols."""
    names = [name for name in now.keys() | before.keys() if name != "hash" and now.get(name) != before.get(name)]
    if not names and now["hash"] == before["hash"]:
        return
    listed = "\n".join(f"  {name}: {before.get(name)!r} there, {now.get(name)!r} here" for name in sorted(names))
    raise UserError(
        f"{path} was judged under another protocol, {before['hash']} in place of {now['hash']}:\n{listed}",
        "numbers of different protocols cannot be compared; judge both with the same --clips, --seed and data",
    )
