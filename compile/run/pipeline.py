"""Labels → noise → latents → frames, over any executor. A bundle generates without torch.

Latents stay on the denoiser's device while they are sampled: noise and labels go up, the last step's latents come down.

Sample i starts from noise keyed by (seed, i), so it is the same clip whatever the batch, and eager and exported models
start from the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sora_spec.builders.diffusion.noise import DECODING, NoiseStream
from sora_spec.builders.diffusion.samplers import Array, Condition, Step, count_steps, sampling_steps
from sora_spec.compile.bundle.contract import condition_ports
from sora_spec.compile.bundle.manifest import Precision
from sora_spec.compile.run.decoding import Decoder, Progress, ignore
from sora_spec.compile.run.executors.stage import Stage
from sora_spec.compile.run.prompts import Prompts
from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from sora_spec.language.shapes import derive_shapes
from sora_spec.recipe.parts import ROLES, Role
from sora_spec.recipe.sampling import default_batch as default_batch
from sora_spec.video import to_uint8

Asked: TypeAlias = int | str | None
"""What one clip is to show: a label, a prompt, or nothing."""


@dataclass(frozen=True)
class Clip:
    """One generated clip."""

    index: int
    """Number of the sample within its seed."""
    asked: Asked
    frames: NDArray[np.uint8]
    """(T, Y, X, 3)"""

    @property
    def label(self) -> int | None:
        """Of a model with classes; None for a clip without."""
        return self.asked if isinstance(self.asked, int) else None

    @property
    def prompt(self) -> str | None:
        """Of a model that is steered by text; None for a clip without."""
        return self.asked if isinstance(self.asked, str) else None


@dataclass
class Pipeline:
    """A spec's sampler over its loaded parts."""

    spec: Spec
    stages: Sequence[Stage]
    """The parts in the order in which they run."""
    decoder: Decoder
    """How the part that decodes is run."""
    precision: Precision = "fp32"
    """What all parts compute in. Between them, and in the sampler, everything is fp32."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each part so far, by its name."""
    prompts: Prompts | None = None
    """How prompts are read, of a model that is steered by text."""

    def __post_init__(self) -> None:
        self.seconds |= {stage.name: 0.0 for stage in self.stages}

    @property
    def calls(self) -> int | None:
        """Calls of networks, one after another, for one clip; None where the sampler decides on its way."""
        calls = count_steps(self.spec)
        return None if calls is None else calls + self.decoder.calls

    @property
    def denoiser(self) -> Stage:
        """The part that the sampler calls."""
        return with_role(self.stages, "denoise")

    @contextmanager
    def _timed(self, role: Role) -> Iterator[Stage]:
        """The part with a role, on its device while the body runs; the time counts as its own."""
        stage, started = with_role(self.stages, role), time.perf_counter()
        with stage.using():
            yield stage
        self.seconds[stage.name] += time.perf_counter() - started

    def generate(
        self,
        asked: Sequence[Asked],
        seed: int = 0,
        batch: int | None = None,
        progress: Progress = ignore,
        negative: str | None = None,
    ) -> Iterator[Clip]:
        """One clip for each of `asked` (None: unconditional), in order, `batch` at a time.

        `negative`: the prompt that guidance leads away from, in place of what stands for none. `progress` is called
        with the number of clips times calls of a network just done; see `calls`.
        """
        for indices in _batches(asked, batch or default_batch(self.spec)):
            part = [asked[index] for index in indices]
            latents = self.sample(indices, self._condition(part, negative), seed, progress)
            with with_role(self.stages, "decode").using():
                for index, shown, clip in zip(indices, part, latents, strict=True):
                    video = self.decode(clip[None], [index], seed, progress)[0]
                    self._check_finite(index, video)
                    yield Clip(index, shown, to_uint8(video))

    def _condition(self, asked: Sequence[Asked], negative: str | None) -> Condition:
        """What steers a batch; the time of encoding prompts counts as the text encoder's."""
        if self.prompts is None:
            return _labelled([label for label in asked if not isinstance(label, str)])
        started = time.perf_counter()
        found = self.prompts.steer([prompt for prompt in asked if not isinstance(prompt, int)], negative)
        self.seconds["text_encoder"] = self.seconds.get("text_encoder", 0.0) + time.perf_counter() - started
        return found

    def sample(
        self,
        indices: Sequence[int],
        condition: Condition,
        seed: int,
        progress: Progress = ignore,
    ) -> NDArray[np.float32]:
        """Latents (B, C, F, H, W) of the samples `indices` of `seed`, on the host."""
        with self._timed("denoise") as denoiser:
            *_, last = self.steps(indices, condition, seed, progress)
            return denoiser.xp.to_host(last.latents)

    def steps(
        self,
        indices: Sequence[int],
        condition: Condition,
        seed: int,
        progress: Progress = ignore,
    ) -> Iterator[Step]:
        """The steps that `sample` takes, with latents on the denoiser's device (`denoiser.xp`); see `Step`.

        A noisy sampler's noise is drawn on the host, so that a clip is the same everywhere, and goes up once a step,
        while the device works.
        """
        stream, denoiser = NoiseStream(seed, indices, derive_shapes(self.spec).latent), self.denoiser
        with denoiser.using():
            xp = denoiser.xp

            def draw() -> Array:
                return xp.from_host(stream.draw())

            def advance(_: int) -> None:
                progress(len(indices))

            yield from sampling_steps(self.spec, self._network, draw(), condition.each(xp.from_host), draw, xp, advance)

    def decode(
        self, latents: NDArray[np.float32], indices: Sequence[int], seed: int, progress: Progress = ignore
    ) -> NDArray[np.float32]:
        """Video (B, 3, T, Y, X) of latents (B, C, F, H, W) of the samples `indices` of `seed`."""
        with self._timed("decode"):
            return self.decoder.decode(latents, partial(NoiseStream, seed, indices, lane=DECODING), progress)

    def _network(self, latents: Array, times: Array, *condition: Array | None) -> Array:
        names = [port.name for port in condition_ports(self.spec)]
        given = zip(names, condition, strict=True) if names else ()
        inputs = {"latents": latents, "time": times, **dict(given)}
        return self.denoiser.compute(inputs)["prediction"]

    def _check_finite(self, index: int, video: NDArray[np.float32]) -> None:
        """fp16 ends at 65,504: a network trained in another precision may go beyond, and its clip would be black."""
        if self.precision == "fp16" and not np.isfinite(video).all():
            raise UserError(
                f"clip {index} is not finite: values of the networks are beyond the range of fp16",
                "--precision bf16 has the range of fp32; bundles: sora-spec export RUN --precision bf16",
            )


def with_role(stages: Iterable[Stage], role: Role) -> Stage:
    """The one of `stages` with a role."""
    (found,) = (stage for stage in stages if ROLES[stage.name] == role)
    return found


def _labelled(labels: Sequence[int | None]) -> Condition:
    given = [label for label in labels if label is not None]
    assert len(given) in (0, len(labels)), "a batch is conditional or not"
    return Condition(np.array(given, np.int64) if given else None)


def _batches(asked: Sequence[Asked], size: int) -> Iterator[range]:
    """Numbers of the clips of each batch, which is conditional or not, never both."""
    start = 0
    for stop in range(1, len(asked) + 1):
        whole = stop == len(asked) or stop - start == size
        if whole or (asked[stop] is None) != (asked[start] is None):
            yield range(start, stop)
            start = stop
