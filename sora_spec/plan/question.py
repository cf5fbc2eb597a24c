"""A plan under changed settings: what a user asks on top of a spec, its answer, and the command that prints the same.

`WhatIf` is a value: widgets and sweeps make new ones, and nothing is ever changed in place. `plan_of` never raises for
what a user can get wrong; the answer carries the problem.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sora_spec.errors import UserError
from sora_spec.language.diagnostics import Diagnostic
from sora_spec.language.overrides import apply_override
from sora_spec.language.source import Document
from sora_spec.language.yaml_tree import MapNode
from sora_spec.plan.job import Job, Mode, Placement, RmsNorm, Stage, planned_job
from sora_spec.plan.layout import asked_device, checked_for
from sora_spec.plan.planner import Plan, make_plan
from sora_spec.plan.search.fastest import Fastest, find_fastest
from sora_spec.plan.search.fixes import Fix, find_fixes
from sora_spec.plan.search.solve import Solution, solve
from sora_spec.plan.show.values import plan_values

if TYPE_CHECKING:
    from sora_spec.graph.eager.ops.attention import Kernel
    from sora_spec.language.schema.spec import Spec


@dataclass(frozen=True)
class WhatIf:
    """What is asked of a spec: everything that `sora-spec plan` takes as an argument."""

    mode: Mode = "train"
    stage: Stage = "denoiser"
    gpu: str = ""
    """Device of the table; the spec's when empty."""
    count: int | None = None
    """Number of devices; the spec's when None."""
    batch: int | None = None
    """Clips generated at a time; as `sora-spec generate` chooses when None."""
    placement: Placement = "resident"
    attention: Kernel | None = None
    """An attention kernel in place of the one that PyTorch picks."""
    tf32: bool = False
    temporal_attention: Kernel | None = None
    """The network's attention kernel across frames, where it is another one."""
    rms_norm: RmsNorm | None = None
    """RMS norm in one kernel or written out; as PyTorch does it when None."""
    hardware: str = ""
    """File of the user's own devices."""
    overrides: tuple[tuple[str, str], ...] = ()
    """Dotted paths of the spec and the YAML that stands in their place, in the order in which they were given."""

    def having(self, path: str, value: str) -> WhatIf:
        """With one more override, in place of what was said about the same path and what lies inside it."""
        kept = tuple((old, text) for old, text in self.overrides if not _covers(path, old))
        return replace(self, overrides=(*kept, (path, value)))

    def without(self, path: str) -> WhatIf:
        """Without what was said about a path."""
        return replace(self, overrides=tuple((old, text) for old, text in self.overrides if not _covers(path, old)))

    def given(self, path: str) -> str | None:
        """The YAML that was given for a path."""
        return dict(self.overrides).get(path)

    def on(self, count: int, job: Job) -> WhatIf:
        """On another number of devices than `job`, said where it was said before."""
        if "hardware.count" in job.typed:
            return self.having("hardware.count", str(count))
        return replace(self, count=count)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The overrides as `key=value` arguments."""
        return tuple(f"{path}={value}" for path, value in self.overrides)


def _covers(path: str, inner: str) -> bool:
    return inner == path or inner.startswith(f"{path}.")


def whatif_from(overrides: Iterable[str], **settings: Any) -> WhatIf:
    """A question from `key=value` arguments and settings by name."""
    pairs = [argument.partition("=")[::2] for argument in overrides]
    return WhatIf(overrides=tuple((path, value) for path, value in pairs), **settings)


@dataclass(frozen=True)
class Answer:
    """What the planner says. `plan` is None where there is none, and then `diagnostics` or `problem` says why."""

    whatif: WhatIf
    document: Document
    """With the overrides laid over it: its lines are those that terms come from."""
    diagnostics: tuple[Diagnostic, ...] = ()
    spec: Spec | None = None
    """As written, overrides included; `plan.job.spec` is the spec as it will run on the devices."""
    plan: Plan | None = None
    problem: str = ""
    """Why a right spec has no plan: such as a batch that cannot be shared."""
    hint: str = ""

    @property
    def standing(self) -> str:
        """`yes`, `tight`, `no`, or `errors` where there is no plan."""
        return "errors" if self.plan is None else self.plan.verdict

    @property
    def job(self) -> Job | None:
        """The job that was planned."""
        return None if self.plan is None else self.plan.job


@dataclass(frozen=True)
class Advice:
    """What takes longer than the plan: changes that make it fit, or how much more fits and what is faster."""

    fixes: tuple[Fix, ...] = ()
    largest: Solution | None = None
    fastest: Fastest | None = None


def plan_of(document: Document, whatif: WhatIf) -> Answer:
    """The plan of a spec under a question. `document` is read without overrides and stays as it is."""
    laid = laid_over(document, whatif.arguments)
    checked, typed = checked_for(laid, whatif.count, bool(whatif.gpu or whatif.hardware))
    diagnostics = tuple(checked.diagnostics)
    if not checked.ok:
        return Answer(whatif, laid, diagnostics)
    spec = _once(document, whatif.arguments, checked.record)
    try:
        return Answer(whatif, laid, diagnostics, spec, make_plan(_job(spec, whatif, typed)))
    except UserError as error:
        return Answer(whatif, laid, diagnostics, spec, None, error.message, error.hint or "")


def advise(answer: Answer) -> Advice:
    """Fixes of a plan that does not fit, or the largest batch and the fastest setting of one that does."""
    if answer.plan is None:
        return Advice()
    job = answer.plan.job
    if answer.plan.fits:
        return Advice((), solve(job, "batch", answer.spec), find_fastest(job, answer.spec))
    return Advice(fixes=tuple(find_fixes(job, answer.spec)))


def answer_values(answer: Answer, advice: Advice | None = None) -> dict[str, Any] | None:
    """What `sora-spec plan --json` prints for the same question; None where there is no plan."""
    if answer.plan is None:
        return None
    advice = advice or advise(answer)
    return plan_values(answer.plan, advice.fixes, advice.largest, answer.document, advice.fastest)


def with_advice(whatif: WhatIf, advised: Fix | Solution | Fastest, plan: Plan) -> WhatIf:
    """The question whose answer is what was advised about `plan`."""
    changed = whatif
    for override in advised.overrides:
        path, _, value = override.partition("=")
        changed = changed.having(path, value)
    before, after = plan.job, advised.plan.job
    if after.count != before.count:
        changed = changed.on(after.count, before)
    if after.batch != before.batch:
        changed = replace(changed, batch=after.batch)
    return replace(changed, placement=after.placement) if after.placement != before.placement else changed


def command_line(path: str, whatif: WhatIf) -> str:
    """The `sora-spec plan` line that prints the same numbers, quoted for a POSIX shell."""
    words = ["sora-spec", "plan", path, *whatif.arguments]
    if whatif.gpu:
        words += ["--gpu", whatif.gpu]
    if whatif.count is not None:
        words += ["--count", str(whatif.count)]
    if whatif.mode != "train":
        words += ["--mode", whatif.mode]
    if whatif.stage != "denoiser" and whatif.mode == "train":
        words += ["--stage", whatif.stage]
    if whatif.mode == "generate" and whatif.batch is not None:
        words += ["--batch", str(whatif.batch)]
    if whatif.mode == "generate" and whatif.placement == "sequential":
        words.append("--one-at-a-time")
    if whatif.attention is not None:
        words += ["--attention", whatif.attention]
    vae = whatif.mode == "train" and whatif.stage == "vae"
    if whatif.temporal_attention is not None and not vae:
        words += ["--temporal-attention", whatif.temporal_attention]
    if whatif.rms_norm is not None and not vae:
        words += ["--rms-norm", whatif.rms_norm]
    if whatif.tf32:
        words.append("--tf32")
    if whatif.hardware:
        words += ["--hardware", whatif.hardware]
    return shlex.join(words)


def _job(spec: Spec, whatif: WhatIf, typed: frozenset[str]) -> Job:
    """The job, without the settings that its mode ignores: they would only make the same plan twice."""
    generates = whatif.mode == "generate"
    vae = not generates and whatif.stage == "vae"
    return planned_job(
        spec,
        asked_device(spec, whatif.gpu, whatif.hardware or None, typed),
        whatif.count,
        whatif.mode,
        "denoiser" if generates else whatif.stage,
        whatif.placement if generates else "resident",
        whatif.batch if generates else None,
        whatif.attention,
        whatif.tf32,
        None if vae else whatif.temporal_attention,
        None if vae else whatif.rms_norm,
        typed,
    )


def laid_over(document: Document, arguments: Sequence[str]) -> Document:
    """A document with overrides, which copy what they change: the original is shared and stays as it is."""
    if document.root is None or not arguments:
        return document
    root = MapNode(document.root.span, dict(document.root.entries), document.root.size, document.root.depth)
    problems = list(document.problems)
    for order, argument in enumerate(arguments):
        problems += apply_override(root, argument, order)
    return Document(document.text, root, problems)


_SPECS: dict[tuple[int, tuple[str, ...]], tuple[Document, Spec]] = {}
_MOST_SPECS = 256


def _once(document: Document, arguments: tuple[str, ...], make: Any) -> Spec:
    """The same spec object for the same text and overrides: the planner's caches go by identity."""
    key = (id(document), arguments)
    found = _SPECS.get(key)
    if found is not None and found[0] is document:
        return found[1]
    spec: Spec = make()
    if len(_SPECS) >= _MOST_SPECS:
        _SPECS.clear()
    _SPECS[key] = (document, spec)
    return spec


def snapshot_values(path: str, whatif: WhatIf) -> dict[str, Any]:
    """One spec's answer for scripts: its standing, the same plan as `plan --json`, and what is wrong with it."""
    from sora_spec.language.packaged import find_spec_file
    from sora_spec.language.report import diagnostic_values
    from sora_spec.language.source import load_document

    answer = plan_of(load_document(find_spec_file(path)), whatif)
    return {
        "spec": path,
        "standing": answer.standing,
        "command": command_line(path, whatif),
        "plan": answer_values(answer),
        "problem": answer.problem or None,
        "diagnostics": [diagnostic_values(item) for item in answer.diagnostics],
    }


def written_values(answer: Answer) -> tuple[tuple[str, str], ...]:
    """What a question says that the language can hold: the values that a spec with the same answer would have."""
    whatif, found = answer.whatif, dict(answer.whatif.overrides)
    if whatif.gpu:
        found["hardware.gpu"] = whatif.gpu
    if whatif.count is not None:
        found["hardware.count"] = str(whatif.count)
    if answer.plan is not None and answer.spec is not None and whatif.mode == "train":
        before, after = answer.spec.parallel, answer.plan.job.spec.parallel
        for side in ("shard", "sequence", "replicate"):
            if getattr(before, side) != getattr(after, side):
                found[f"parallel.{side}"] = str(getattr(after, side))
        micro = answer.plan.job.spec.train.micro_batch
        if micro != answer.spec.train.micro_batch and micro is not None:
            found["train.micro_batch"] = str(micro)
    return tuple(found.items())


def after_writing(whatif: WhatIf) -> WhatIf:
    """What remains to be asked once `written_values` stand in the spec."""
    return replace(whatif, gpu="", count=None, overrides=())
