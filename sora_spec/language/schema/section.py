"""What every section of a spec has in common: strict fields, docstrings that reach the JSON schema, bounded numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Base of every YAML section: unknown keys are errors, values are immutable, numbers are finite and never coerced.

    A string below a field is its description. `sora_spec.language.schema.json_schema` puts it into the JSON schema;
    pydantic's `use_attribute_docstrings` would re-read every module's source at each import: twice the import time.
    Defaults that are sections are made by `model_construct`: calling the class would build its validator at import.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        defer_build=True,
    )
    __slots__ = ("_hash",)  # kept, since a planner's caches ask for it all the time; copies and pickles leave it behind

    def __eq__(self, other: object) -> bool:
        return self is other or (type(self) is type(other) and self.__dict__ == other.__dict__)

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            object.__setattr__(self, "_hash", hash(tuple(self.__dict__.values())))
            return self._hash


# Upper bounds are far above any published system. They exist so that a slip of the keyboard
# (`width: 11520000`) is an error at its line and not an attempt to allocate petabytes.
Small = Annotated[int, Field(ge=1, le=4096)]
"""A small count: heads, classes per table axis, window sides, accumulation."""
Size = Annotated[int, Field(ge=1, le=65_536)]
"""A feature or pixel extent."""
Frames = Annotated[int, Field(ge=1, le=100_000)]
"""A number of video frames."""
Steps = Annotated[int, Field(ge=1, le=1_000_000_000)]
"""A number of optimiser steps."""
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
"""A probability."""
Positive = Annotated[float, Field(gt=0.0, le=1e12)]
"""A positive, finite number."""
NonNegative = Annotated[float, Field(ge=0.0, le=1e12)]
"""A finite number that may be zero."""
