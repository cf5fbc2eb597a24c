"""What a bundle says about itself: `manifest.json`. Torch-free and readable without any of the heavy packages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sora_spec.recipe.parts import ROLES, GraphName, Role

FORMAT = "sora-spec-bundle"
FORMAT_VERSION = 2
"""1 had `stages` by name in place of the list of parts; it is read, and written as 2 when an engine is added."""
READ_VERSIONS = (1, FORMAT_VERSION)

Precision = Literal["fp32", "fp16", "bf16"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Record(BaseModel):
    """Base of the manifest's parts: immutable; keys of a later minor addition are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Range(Record):
    """The sizes that a dynamic axis takes: min, min + multiple_of, … up to max, or without end."""

    min: int
    max: int | None = None
    multiple_of: int = 1


class Port(Record):
    """One input or output of a graph. Named extents of `shape` are keys of the part's `axes`, or follow from them."""

    name: str
    dtype: Literal["float32", "int64"]
    shape: tuple[int | str, ...]


class ParityCase(Record):
    """Exported against eager on one shape: ‖a − b‖₂ / ‖b‖₂ and max |a − b|, b being eager fp32."""

    batch: int
    frames: int
    """Latent frames; 0 of a part that sees none."""
    relative_l2: float
    max_abs: float


class Parity(Record):
    """How closely ONNX Runtime follows PyTorch eager on random inputs."""

    backend: str
    """What ran the exported graph, with its version."""
    limit: float
    """Largest relative L2 that the export accepts."""
    cases: tuple[ParityCase, ...]
    perturbed: bool = False
    """The weights were perturbed for this measurement, because the untrained network answers zero to everything."""
    note: str | None = None

    @property
    def worst(self) -> float:
        """Largest relative L2 of all cases."""
        return max(case.relative_l2 for case in self.cases)


class ExportedPart(Record):
    """One exported graph: what it takes and gives, and how it was checked."""

    name: GraphName
    role: Role
    file: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    axes: dict[str, Range]
    opset: int
    ir_version: int
    nodes: int
    weights_sha256: Sha256
    """Over the names, types, shapes and bytes of the module's parameters and buffers."""
    parity: Parity | None
    """None for bf16, which no CPU backend runs."""
    export_seconds: float
    notes: tuple[str, ...] = ()
    """What the graph does otherwise than the run that it comes from."""


class File(Record):
    """One file of the bundle."""

    path: str
    bytes: int
    sha256: Sha256


class Profile(Record):
    """Smallest, best and largest shape of each input that an engine takes."""

    min: dict[str, tuple[int, ...]]
    opt: dict[str, tuple[int, ...]]
    max: dict[str, tuple[int, ...]]


class Engine(Record):
    """One TensorRT engine."""

    part: GraphName
    path: str
    target: str
    """GPU names that this was built for, or the compute capability."""
    sm: str
    """Compute capability, `sm89`."""
    builder: str
    """`tensorrt_rtx` or `tensorrt`."""
    version: str
    profile: Profile
    flags: tuple[str, ...] = ()
    key: Sha256
    """Hash of all that the engine depends on; an engine whose key is unchanged is not built again."""
    build_seconds: float


class Source(Record):
    """Which weights were exported."""

    run: str
    """Name of the run folder, or of the spec."""
    step: int | None
    """Optimiser steps behind the denoiser's weights."""
    ema: bool
    random: tuple[GraphName, ...] = ()
    """Parts whose weights were drawn at random, to try an engine."""


class Manifest(Record):
    """`manifest.json`."""

    format: Literal["sora-spec-bundle"] = FORMAT
    format_version: int = FORMAT_VERSION
    name: str
    spec_sha256: Sha256
    precision: Precision
    source: Source
    packages: dict[str, str]
    parts: tuple[ExportedPart, ...]
    """In the order in which generating runs them."""
    files: tuple[File, ...]
    engines: tuple[Engine, ...] = ()


def upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """A manifest of format 1 as one of format 2; what is not as it should be is left for the check to find."""
    stages, engines = values.get("stages"), values.get("engines", [])
    if not isinstance(stages, dict) or not isinstance(engines, list):
        return values
    return {
        **values,
        "format_version": FORMAT_VERSION,
        "parts": [
            {**stage, "name": name, "role": ROLES.get(name)} if isinstance(stage, dict) else stage
            for name, stage in stages.items()
        ],
        "engines": [
            {**engine, "part": engine.get("stage")} if isinstance(engine, dict) else engine for engine in engines
        ],
    }
