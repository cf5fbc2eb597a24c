"""What one process is to do: the spec as it will be run on a number of devices."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from sora_spec.errors import UserError
from sora_spec.graph import Setting
from sora_spec.graph.component import Component, Precision
from sora_spec.graph.eager.ops.attention import Kernel
from sora_spec.language.abilities import Verb, training, vae_to_train
from sora_spec.language.facts import is_learned, temporal_facts
from sora_spec.plan.devices.hardware import Device
from sora_spec.plan.layout import NOTHING, device_count, with_count
from sora_spec.plan.memory.workload import Workload, workload
from sora_spec.recipe.sampling import default_batch, is_guided
from sora_spec.recipe.training import uses_fsdp

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec
    from sora_spec.language.schema.vae import VaeTraining

Mode = Literal["train", "generate"]
Stage = Literal["denoiser", "vae"]
RmsNorm = Literal["fused", "composite"]
Placement = Literal["resident", "sequential"]
"""Generation with all parts in device memory, or with one part at a time, as `sora-spec generate --offload` does."""

KERNELS: tuple[Kernel, ...] = ("flash", "efficient", "math")
"""Attention kernels that can be asked for: those of a GPU."""
RMS_NORMS: tuple[RmsNorm, ...] = ("fused", "composite")
_NETWORK = ("denoiser", "denoiser_step", "sampler_step")
_BLOCK = 512  # bytes: the unit of CUDA's caching allocator


@dataclass(frozen=True, kw_only=True)
class Way:
    """What is done, and how, beside what a spec says."""

    mode: Mode = "train"
    stage: Stage = "denoiser"
    batch: int | None = None
    """Clips generated at a time; as `sora-spec generate` chooses when None."""
    placement: Placement = "resident"
    attention: Kernel | None = None
    """An attention kernel in place of the one that PyTorch picks; `flash` for the network, the others everywhere."""
    temporal_attention: Kernel | None = None
    """The network's attention kernel across frames, where it is another one than across space."""
    rms_norm: RmsNorm | None = None
    """RMS norm as one kernel or written out; as PyTorch does it on the device when None."""
    tf32: bool = False
    """Whether fp32 matrix products may use TF32 although the spec's `train.tf32` does not say so."""
    hardware: str = ""
    """File of the user's own devices."""

    @property
    def way(self) -> dict[str, Any]:
        """All of it by name: what a job takes from a question, and a plan's memory depends on."""
        return {field.name: getattr(self, field.name) for field in fields(Way)}

    @property
    def effective(self) -> Self:
        """Without the settings that the mode ignores: they would only make the same plan twice."""
        if self.mode == "generate":
            return replace(self, stage="denoiser")
        trained = replace(self, placement="resident", batch=None)
        return replace(trained, temporal_attention=None, rms_norm=None) if self.stage == "vae" else trained


@dataclass(frozen=True)
class Question(Way):
    """What is asked of a spec: everything that `sora-spec plan` takes as an argument."""

    gpu: str = ""
    """Device of the table; the spec's when empty."""
    count: int | None = None
    """Number of devices; the spec's when None."""
    overrides: tuple[tuple[str, str], ...] = ()
    """Dotted paths of the spec and the YAML that stands in their place, in the order in which they were given."""

    def having(self, path: str, value: str) -> Question:
        """With one more override, in place of what was said about the same path and what lies inside it."""
        return replace(self, overrides=(*self.without(path).overrides, (path, value)))

    def without(self, path: str) -> Question:
        """Without what was said about a path and what lies inside it."""
        kept = [pair for pair in self.overrides if not f"{pair[0]}.".startswith(f"{path}.")]
        return replace(self, overrides=tuple(kept))

    def given(self, path: str) -> str | None:
        """The YAML that was given for a path."""
        return dict(self.overrides).get(path)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The overrides as `key=value` arguments."""
        return tuple(f"{path}={value}" for path, value in self.overrides)

    @property
    def options(self) -> list[str]:
        """What else it says than nothing, as options of the command."""
        words = list[str]()
        for field in sorted(fields(self), key=lambda field: field.name not in ("gpu", "count")):
            value = getattr(self, field.name)
            if field.name != "overrides" and value != field.default:
                flag = field.name == "placement" or value is True
                words += ["--one-at-a-time" if field.name == "placement" else f"--{field.name.replace('_', '-')}"]
                words += [] if flag else [str(value)]
        return words


@dataclass(frozen=True)
class Job(Way):
    """A spec on a machine."""

    spec: Spec
    device: Device
    count: int
    typed: frozenset[str] = NOTHING
    """Paths of what arguments said (`layout.typed_paths`), which nothing overrules."""

    @property
    def allows_tf32(self) -> bool:
        """Whether fp32 matrix products may use TF32, which PyTorch's default forbids."""
        return self.tf32 or self.spec.train.tf32

    @property
    def verb(self) -> Verb:
        """What the program would be asked for."""
        return "generate" if self.mode == "generate" else training(self.stage)

    @property
    def precision(self) -> Precision:
        """Of the arithmetic."""
        if self.mode == "generate":
            return "fp32" if self.spec.export.precision == "fp32" else "bf16"
        if self.stage == "vae":
            return self.vae_training.precision
        return self.spec.train.precision

    @property
    def ranks(self) -> int:
        """Processes that work on one optimiser step."""
        return self.spec.parallel.ranks if self.mode == "train" else 1

    @property
    def groups(self) -> int:
        """Ranks that get clips of their own: those of a sequence group share theirs."""
        return self.ranks // self.spec.parallel.sequence if self.mode == "train" else 1

    @property
    def clips_per_step(self) -> int:
        """The global batch."""
        return self.vae_training.batch if self.stage == "vae" else self.spec.train.batch

    @property
    def accumulation(self) -> int:
        """Forward passes per optimiser step."""
        return self.spec.train.accumulation if self.stage == "denoiser" else 1

    @property
    def micro_batch(self) -> int:
        """Clips of one forward pass on one rank; the ranks of a sequence group work on the same ones."""
        return max(1, self.clips_per_step // (self.groups * self.accumulation))

    @property
    def vae_training(self) -> VaeTraining:
        """How the VAE is trained."""
        return vae_to_train(self.spec).training

    @property
    def sharded(self) -> bool:
        """Whether FSDP2 runs: on several ranks, and on one for bf16 and for offload."""
        return uses_fsdp(self.spec, self.precision, self.ranks)

    @property
    def states_on_host(self) -> bool:
        """Whether weights, gradients and optimiser states of a training lie in host memory, and that is another one."""
        return self.spec.parallel.offload and self.device.kind == "cuda"

    @property
    def average_on_host(self) -> bool:
        """Whether the moving average does."""
        return self.states_on_host or (self.spec.train.ema_device == "cpu" and self.device.kind == "cuda")

    @property
    def generated(self) -> int:
        """Clips generated at a time."""
        return self.batch or default_batch(self.spec)

    @property
    def offloads(self) -> bool:
        """Whether generation keeps only the part that is running on the device, as `generate --offload` does."""
        return self.placement == "sequential" or self.spec.export.offload

    @property
    def guided(self) -> bool:
        """Whether each step runs the network with and without its condition."""
        return is_guided(self.spec)

    def kernel(self, component: Component) -> Kernel:
        """The attention kernel that was asked for, or that PyTorch picks."""
        network = component in _NETWORK
        if self.attention is not None and (network or self.attention != "flash"):
            return self.attention
        if self.device.kind == "cpu":
            return "cpu"
        return "flash" if (network and self.takes_flash) or component == "text_encode" else "efficient"

    @property
    def takes_flash(self) -> bool:
        """Whether the network's attention can be FlashAttention: 16-bit types, heads up to 256 channels wide."""
        backbone = self.spec.backbone
        narrow = backbone.kind == "transformer" and backbone.width // backbone.heads <= 256
        return self.precision == "bf16" and narrow

    def setting(self, component: Component, batch: int, precision: Precision | None = None) -> Setting:
        """How a component runs here."""
        cuda, step = self.device.kind == "cuda", component in ("denoiser_step", "vae_step")
        return Setting(
            batch=batch,
            precision=precision or self.precision,
            attention=self.kernel(component),
            fused_rms_norm=cuda if self.rms_norm is None else self.rms_norm == "fused",
            temporal_attention=self.temporal_attention if component in _NETWORK else None,
            rounding=_BLOCK if cuda else 1,
            threads=0 if cuda or not component.startswith("vae") else 2,  # any number above 1: convolutions ask no more
            winograd=cuda and component.startswith("vae"),
            owned_inputs=step,
            sequence=self.spec.parallel.sequence if component == "denoiser_step" else 1,
            accumulates=step and self.accumulation > 1 and not self.sharded,
        )

    def work(self, component: Component, batch: int, precision: Precision | None = None) -> Workload:
        """The needs of a component here."""
        return workload(self.spec, component, self.setting(component, batch, precision))

    @property
    def has_vae(self) -> bool:
        """Whether there is anything between pixels and latents."""
        return is_learned(self.spec.vae)


def with_clip(spec: Spec, **sides: int) -> Spec:
    """The spec with other frames, height or width."""
    return spec.model_copy(update={"clip": spec.clip.model_copy(update=sides)})


def planned_job(spec: Spec, device: Device, question: Question = Question(), typed: frozenset[str] = NOTHING) -> Job:
    """The job that a question means, on a spec that holds its overrides. Without `count` the spec's ranks, or its
    number of devices where it names no ranks; a generation runs on one.

    Raises UserError: the stage has nothing to train, two values that were given do not fit, the batch cannot be shared
    by the devices, or a kernel does not run there.
    """
    trains = question.mode == "train"
    if trains and question.stage == "vae":
        vae_to_train(spec)
    devices = device_count(spec, question.count, trains, typed)
    if trains:
        spec = with_count(spec, devices, question.stage, typed)
    job = Job(spec, device, devices, typed, **question.way)
    if job.placement == "sequential" and "export.offload" in typed and not spec.export.offload:
        raise UserError("--one-at-a-time and export.offload=false say two things", "leave one of the two out")
    if job.tf32 and "train.tf32" in typed and not spec.train.tf32:
        raise UserError("--tf32 and train.tf32=false say two things", "leave one of the two out")
    check_kernels(job)
    return job


def has_rms_norm(spec: Spec) -> bool:
    """Whether the network has RMS norms: those of queries and keys."""
    if spec.backbone.kind != "transformer":
        return False
    text = spec.backbone.conditioning
    return spec.backbone.qk_norm or (text.kind == "cross_attention" and text.qk_norm)


def check_kernels(job: Job) -> None:
    """Raise UserError for a kernel that does not run in this job, or that nothing of it uses."""
    asked = {"--attention": job.attention, "--temporal-attention": job.temporal_attention}
    for option, kernel in asked.items():
        if kernel is not None and job.device.kind == "cpu":
            raise UserError("the CPU has attention kernels of its own", f"leave {option} out")
        if kernel == "flash" and not job.takes_flash:
            needs = "FlashAttention takes 16-bit types and heads of at most 256 channels"
            key = "export.precision" if job.mode == "generate" else "train.precision"
            raise UserError(f"{option} flash does not run here: {needs}", f"for example {key}=bf16")
    if job.temporal_attention is not None and not temporal_facts(job.spec.temporal).across_frames:
        raise UserError(
            f"{job.spec.name} has no attention across frames alone: temporal.kind is {job.spec.temporal.kind}",
            "leave --temporal-attention out; --attention is the kernel of its attention",
        )
    if job.rms_norm == "fused" and job.device.kind == "cpu":
        raise UserError("PyTorch has no fused RMS norm for the CPU", "leave --rms-norm out")
    vae = job.mode == "train" and job.stage == "vae"
    if job.rms_norm is not None and (vae or not has_rms_norm(job.spec)):
        hint = "leave --rms-norm out" + ("" if vae else "; backbone.qk_norm=true adds norms of queries and keys")
        raise UserError(f"{'the VAE' if vae else job.spec.name} has no RMS norm that PyTorch fuses", hint)
    if vae and job.temporal_attention is not None:
        raise UserError("the VAE has no attention across frames", "leave --temporal-attention out")
    if vae and job.attention == "flash":
        raise UserError("the VAE has one wide head, which FlashAttention does not take", "leave --attention out")
