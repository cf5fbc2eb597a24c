"""What this program cannot do with a spec, whatever the machine, and why. Imports neither torch nor pydantic.

`validate` warns of it, `plan` and `tui` say it in their verdict, and the verbs refuse with the same words before they
begin. A spec without lacks can be built, trained, exported and generated from, given data, weights and memory. What can
be done one day is a row less here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sora_spec.errors import UserError
from sora_spec.language.facts import is_trainable
from sora_spec.language.grammar import kinds_of
from sora_spec.language.shapes import latent_frames, pixel_frames
from sora_spec.recipe.sampling import longest_clip
from sora_spec.recipe.training import vae_crop

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec
    from sora_spec.language.schema.vae import TrainableVae

Verb = Literal["build", "train", "train --stage vae", "generate", "export"]

Part = Literal["vae", "network"]

WORDS: dict[Verb, str] = {
    "build": "be built",
    "train": "be trained",
    "train --stage vae": "have its VAE trained",
    "generate": "generate clips",
    "export": "be exported",
}
"""What a spec with a lack cannot do."""

UNBUILT: dict[str, tuple[str, ...]] = {
    "vae": ("cascade",),
    "vae.decoder": ("consistency",),
    "backbone": ("cascade",),
    "backbone.conditioning": ("adaln_lora",),
    "backbone.position": ("learned",),
    "temporal": ("inserted",),
}
"""Kinds of the language that `builders/` has no constructor for, by section; tests compare it with the tables there."""


def training(stage: Literal["denoiser", "vae"]) -> Verb:
    """The verb that trains a stage."""
    return "train --stage vae" if stage == "vae" else "train"


@dataclass(frozen=True)
class Lack:
    """One thing that stands in the way of verbs."""

    verbs: tuple[Verb, ...]
    path: str
    """The value to change."""
    why: str
    help: str
    """How to do without, as the hint of an error."""
    label: str = "not supported yet"
    """A few words beside the value."""
    expected: bool = False
    """Whether no one would take the spec for more, so that only who asks is told."""

    def sentence(self) -> str:
        """`cannot be trained or generate clips: …`."""
        return f"cannot {' or '.join(WORDS[verb] for verb in self.verbs)}: {self.why}"


def kinds(spec: Spec, part: Part) -> dict[str, str]:
    """The kind of each section of `UNBUILT` that a part of the spec has."""
    of_part = (section for section in UNBUILT if section.startswith("vae") == (part == "vae"))
    found = {section: kind_of(spec, section) for section in of_part}
    return {section: kind for section, kind in found.items() if kind is not None}


def kind_of(spec: Spec, section: str) -> str | None:
    """Kind of the section at a dotted path; None where the kind above it has no such section."""
    found: Any = spec
    for name in section.split("."):
        found = getattr(found, name, None)
    return getattr(found, "kind", None)


def buildable(section: str) -> list[str]:
    """Kinds of a section that can be built, as the language lists them."""
    return [kind for kind in kinds_of(section) if kind not in UNBUILT.get(section, ())]


def unbuilt(section: str, kind: str | None) -> Lack | None:
    """That nothing builds this kind, if so."""
    if kind not in UNBUILT[section]:
        return None
    why = f"nothing builds `{section}: {{kind: {kind}}}` yet"
    return Lack(tuple(WORDS), f"{section}.kind", why, f"can be built: {', '.join(buildable(section))}")


def text_is_not_exported(spec: Spec) -> Lack | None:
    """Nothing writes a text encoder into a bundle."""
    if spec.condition.kind != "text":
        return None
    help = 'generate from the run itself: sora-spec generate RUN "a prompt"'
    return Lack(("export",), "condition.kind", "text encoders cannot be exported yet", help)


def clips_are_not_shared(spec: Spec) -> Lack | None:
    """Sequence parallelism is planned, and no module does it."""
    ranks = spec.parallel.sequence
    if ranks == 1:
        return None
    why = f"{ranks} ranks cannot share the tokens of one clip yet"
    help = "set parallel.sequence=1, and use parallel.shard or parallel.replicate"
    return Lack(("train", "train --stage vae"), "parallel.sequence", why, help)


def vae_has_nothing_to_learn(spec: Spec) -> Lack | None:
    """A VAE without weights of its own, or one whose training is not known."""
    if is_trainable(spec.vae):
        return None
    why, help = f"a VAE of kind {spec.vae.kind} has nothing to train", "the network itself is --stage denoiser"
    return Lack(("train --stage vae",), "vae.kind", why, help, expected=True)


def vae_batch_is_not_shared(spec: Spec) -> Lack | None:
    """Ranks that get unequal shares. Of the denoiser's batch this is an error; most VAEs are taken as they are."""
    if not is_trainable(spec.vae):
        return None
    batch, parallel = spec.vae.training.batch, spec.parallel
    ranks = parallel.shard * parallel.replicate
    if batch % ranks == 0:
        return None
    why = f"a batch of {batch} cannot be shared by {ranks} ranks"
    help = f"give a batch that is a multiple of {ranks}: vae.training.batch={max(ranks, batch // ranks * ranks)}"
    return Lack(("train --stage vae",), "vae.training.batch", why, help, expected=True)


LPIPS_SIDE = 16
"""Smallest side that VGG-16 halves four times."""


def crops_are_too_small_for_lpips(spec: Spec) -> Lack | None:
    """The fifth stage of VGG-16 would see nothing."""
    if not is_trainable(spec.vae) or spec.vae.training.perceptual.kind != "lpips":
        return None
    _, height, width = vae_crop(spec)
    if min(height, width) >= LPIPS_SIDE:
        return None
    why = f"LPIPS halves a picture four times, and {height}x{width} pixels are too few"
    help = f"train on crops of {LPIPS_SIDE} pixels or more, or set vae.training.perceptual.kind=none"
    return Lack(("train --stage vae",), "vae.training.perceptual.kind", why, help, "crops too small")


def clips_are_too_long_to_export(spec: Spec) -> Lack | None:
    """The tables of time in an exported graph end somewhere."""
    if spec.export.frames is None:
        return None
    frames, unit = max(spec.export.frames), spec.patch.time
    most = unit * longest_clip(unit, latent_frames(spec, spec.clip.frames) // unit)
    if latent_frames(spec, frames) <= most:
        return None
    longest = pixel_frames(spec, most)
    why = f"a clip of {frames:,} frames is longer than the {longest:,} that the exported network takes"
    return Lack(("export",), "export.frames", why, f"let export.frames end at {longest}", "too long")


ROWS: tuple[Callable[[Spec], Lack | None], ...] = (
    text_is_not_exported,
    clips_are_not_shared,
    vae_has_nothing_to_learn,
    vae_batch_is_not_shared,
    crops_are_too_small_for_lpips,
    clips_are_too_long_to_export,
)
"""What stands in the way beside kinds that nothing builds."""


def lacks(spec: Spec, verb: Verb) -> list[Lack]:
    """What stands in the way of a verb."""
    built = {**kinds(spec, "vae"), **kinds(spec, "network")}
    found = [*(unbuilt(section, kind) for section, kind in built.items()), *(row(spec) for row in ROWS)]
    return [lack for lack in found if lack is not None and verb in lack.verbs]


def refuse(spec: Spec, verb: Verb) -> None:
    """Raise UserError where something stands in the way of a verb."""
    _raise(spec, verb, lacks(spec, verb))


def refuse_unbuilt(spec: Spec, part: Part) -> None:
    """Raise UserError where nothing builds a part."""
    _raise(spec, "build", (unbuilt(section, kind) for section, kind in kinds(spec, part).items()))


def vae_to_train(spec: Spec) -> TrainableVae:
    """The section of a VAE that `train --stage vae` trains. Raises UserError where there is nothing to train."""
    if not is_trainable(spec.vae):
        _raise(spec, "train --stage vae", (vae_has_nothing_to_learn(spec),))
    assert is_trainable(spec.vae)
    return spec.vae


def _raise(spec: Spec, verb: Verb, found: Iterable[Lack | None]) -> None:
    for lack in found:
        if lack is not None:
            raise UserError(f"{spec.name} cannot {WORDS[verb]}: {lack.why} ({lack.path})", lack.help)
