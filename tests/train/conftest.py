"""A tiny spec and tiny data, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sora_spec.language.loading import spec_from_values
from sora_spec.language.schema.spec import Spec
from sora_spec.train.data.digits import DigitsRecipe, write_digits

MakeSpec = Callable[..., Spec]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 clips of 8 frames, 16×16 pixels, 8 fps, in ten classes."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    write_digits(folder, DigitsRecipe(clips=40, frames=8, size=16))
    return folder


@pytest.fixture(scope="session")
def tiny_spec(digits: Path) -> MakeSpec:
    """A function that gives a spec which trains in milliseconds; keywords set fields: `train__steps=3`."""

    def make(**fields: Any) -> Spec:
        values: dict[str, Any] = {
            "version": 1,
            "name": "tiny",
            "clip": {"frames": 4, "height": 16, "width": 16, "fps": 8.0},
            "vae": {"kind": "identity"},
            "patch": {"time": 1, "space": 4},
            "backbone": {"kind": "transformer", "depth": 2, "width": 32, "heads": 2, "learn_sigma": False},
            "temporal": {"kind": "alternating"},
            "condition": {"kind": "class", "classes": 10, "dropout": 0.1},
            "objective": {"kind": "interpolant"},
            "sampler": {"kind": "euler", "steps": 2, "guidance": 2.0},
            "train": {
                "data": str(digits),
                "batch": 8,
                "optimizer": {"kind": "adamw", "lr": 2e-3},
                "clip_grad": 1.0,
                "ema": 0.9,
                "steps": 6,
                "log_every": 1,
                "checkpoint_every": 3,
                "workers": 0,
            },
        }
        for path, value in fields.items():
            *sections, name = path.split("__")
            target = values
            for section in sections:
                target = target.setdefault(section, {})
            target[name] = value
        return spec_from_values(values)

    return make
