"""Films and pictures with bytes overwritten, cut and put in: each is read or refused, and nothing else happens."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

from sora_spec.train.data.container import UnusableFileError
from sora_spec.train.data.decode import clip_ticks, decode_file, decode_frames
from sora_spec.train.data.probe import probe
from sora_spec.train.data.sources import Entry
from tests.hostile.case import Case
from tests.hostile.containers import FILMS
from tests.hostile.films import images, write_film

_MUTANTS = 60  # of each film
_PATIENCE_S = 10
_NUMBERS = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0")
_PICTURES = ("a.webp", "a.png", "a.gif", "a.avif", "s.jpg", "s.tif", "s.bmp", "s.jp2")


def _mutant(data: bytes, draw: random.Random) -> bytes:
    mutated = bytearray(data)
    for _ in range(draw.choice([1, 2, 8, 30])):
        at = draw.randrange(min(len(mutated), draw.choice([64, 600, len(mutated)])) or 1)
        kind = draw.randrange(4)
        if kind == 0:
            mutated[at : at + 1] = draw.randbytes(1)
        elif kind == 1:
            mutated[at : at + 4] = draw.choice(_NUMBERS)
        elif kind == 2:
            del mutated[at : at + draw.randrange(1, 40)]
        else:
            mutated[at:at] = draw.randbytes(draw.randrange(1, 20))
    return bytes(mutated)


def _read(path: Path) -> None:
    info = probe(Entry(path))
    if starts := info.starts(4, Fraction(16)):
        decode_frames(info, clip_ticks(info, starts - 1, 4, Fraction(16)), (16, 16))
    decode_file(info, (16, 16))


def _original(name: str, folder: Path) -> Path:
    if name in FILMS:
        return write_film(folder / name, **{**FILMS[name], "frames": 12})
    first, *rest = images(5)
    path = folder / name
    if name.startswith("a."):
        first.save(path, save_all=True, append_images=rest, duration=100)
    else:
        first.save(path)
    return path


def _mutated(name: str, folder: Path) -> str | None:
    original = _original(name, folder)
    data, draw = original.read_bytes(), random.Random(name)
    for number in range(_MUTANTS):
        path = folder / f"mutant{original.suffix}"
        path.write_bytes(_mutant(data, draw))
        begin = time.perf_counter()
        try:
            _read(path)
        except UnusableFileError:
            pass
        except Exception as error:  # the fault that is looked for
            return f"mutant {number}: {type(error).__name__}: {error}"
        if time.perf_counter() - begin > _PATIENCE_S:
            return f"mutant {number} took {time.perf_counter() - begin:.0f} s"
    return None


def cases() -> Iterator[Case]:
    """One case per film or picture, with many mutants each."""
    for name in (*FILMS, *_PICTURES):
        yield Case(f"mutants of {name}", partial(_mutated, name))
