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
    from sora_spec.builders.denoiser import Denoiser
    from sora_spec.builders.vae.from_spec import VaeModule
    from sora_spec.language.schema.spec import Spec

_SEED = 0


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

    def load_denoiser(self) -> Denoiser:
        """The denoiser with exactly the weights of `backbone.weights`, on the CPU, in evaluation mode."""
        from sora_spec.builders.weights.run import draw_denoiser, load_named_denoiser

        spec = self.load_spec()
        return draw_denoiser(spec, _SEED) if "denoiser" in self.drawn() else load_named_denoiser(spec)

    def load_vae(self) -> VaeModule:
        """The VAE with the weights of `vae.weights`, on the CPU, in evaluation mode."""
        from sora_spec.builders.weights.vae_run import draw_vae, load_named_vae

        spec = self.load_spec()
        return draw_vae(spec, _SEED) if "vae_decoder" in self.drawn() else load_named_vae(spec)


def is_spec(path: Path) -> bool:
    """Whether `path` is a file, or the name of a packaged spec."""
    return path.is_file() or Path(find_spec_file(str(path))).is_file()
