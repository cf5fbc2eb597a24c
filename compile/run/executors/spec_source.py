"""A spec as the source of a model: its weights come from the files that it names, or are drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sora_spec.errors import UserError
from sora_spec.language.loading import load_spec
from sora_spec.language.packaged import find_spec_file
from sora_spec.recipe.parts import GraphName, unnamed_weights

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


@dataclass(frozen=True)
class SpecSource:
    """A spec file, or a packaged spec by its name, with overrides."""

    path: Path
    overrides: tuple[str, ...] = ()
    random: bool = False
    """Draw the weights that the spec names no file for."""

    def load_spec(self, overrides: Sequence[str] = ()) -> Spec:
        """The spec, with further overrides."""
        return load_spec(str(self.path), [*self.overrides, *overrides])

    @staticmethod
    def classes() -> None:
        """A spec knows no names of classes."""

    def drawn(self) -> tuple[GraphName, ...]:
        """Parts whose weights are random."""
        return tuple(part.name for part in unnamed_weights(self.load_spec())) if self.random else ()

    def check_weights(self) -> None:
        """Raise UserError where the spec names no file for a part, and none is to be drawn."""
        lacking = [] if self.random else [f"{part.section}.weights" for part in unnamed_weights(self.load_spec())]
        if lacking:
            names = f"{' and '.join(lacking)} name{'s' * (len(lacking) == 1)}"
            raise UserError(
                f"{self.path} is a spec, and its {names} no file",
                f"add {' '.join(f'{name}=FILE' for name in lacking)}; or train it, and give the run folder",
            )


def is_spec(path: Path) -> bool:
    """Whether `path` is a file, or the name of a packaged spec."""
    return path.is_file() or Path(find_spec_file(str(path))).is_file()
