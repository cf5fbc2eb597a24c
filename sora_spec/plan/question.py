"""A plan under changed settings: what a user asks on top of a spec, its answer, and the command that prints the same.

A question is a value: widgets and sweeps make new ones, and nothing is ever changed in place. `plan_of` never raises
for what a user can get wrong; the answer carries the problem.
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
from sora_spec.plan.job import Job, Question, planned_job
from sora_spec.plan.layout import asked_device, checked_for
from sora_spec.plan.planner import Plan, make_plan
from sora_spec.plan.search.fastest import Fastest, find_fastest
from sora_spec.plan.search.fixes import Fix, find_fixes
from sora_spec.plan.search.solve import Solution, solve
from sora_spec.plan.show.values import plan_values

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


def question_from(overrides: Iterable[str], **settings: Any) -> Question:
    """A question from `key=value` arguments and settings by name."""
    pairs = [argument.partition("=")[::2] for argument in overrides]
    return Question(overrides=tuple((path, value) for path, value in pairs), **settings)


@dataclass(frozen=True)
class Answer:
    """What the planner says. `plan` is None where there is none, and then `diagnostics` or `problem` says why."""

    question: Question
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


def plan_of(document: Document, question: Question) -> Answer:
    """The plan of a spec under a question. `document` is read without overrides and stays as it is."""
    laid = laid_over(document, question.arguments)
    checked, typed = checked_for(laid, question.count, bool(question.gpu or question.hardware))
    diagnostics = tuple(checked.diagnostics)
    if not checked.ok:
        return Answer(question, laid, diagnostics)
    spec = _once(document, question.arguments, checked.record)
    try:
        return Answer(question, laid, diagnostics, spec, make_plan(_job(spec, question, typed)))
    except UserError as error:
        return Answer(question, laid, diagnostics, spec, None, error.message, error.hint or "")


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


def with_advice(question: Question, advised: Fix | Solution | Fastest, plan: Plan) -> Question:
    """The question whose answer is what was advised about `plan`."""
    changed = question
    for override in advised.overrides:
        path, _, value = override.partition("=")
        changed = changed.having(path, value)
    before, after = plan.job, advised.plan.job
    if after.count != before.count:
        changed = changed.on(after.count, before)
    if after.batch != before.batch:
        changed = replace(changed, batch=after.batch)
    return replace(changed, placement=after.placement) if after.placement != before.placement else changed


def command_line(path: str, question: Question) -> str:
    """The `sora-spec plan` line that prints the same numbers, quoted for a POSIX shell."""
    asked = effective(question)
    said = {
        "--gpu": asked.gpu,
        "--count": asked.count,
        "--mode": asked.mode if asked.mode != "train" else "",
        "--stage": asked.stage if asked.stage != "denoiser" else "",
        "--batch": asked.batch,
        "--one-at-a-time": asked.placement == "sequential",
        "--attention": asked.attention,
        "--temporal-attention": asked.temporal_attention,
        "--rms-norm": asked.rms_norm,
        "--tf32": asked.tf32,
        "--hardware": asked.hardware,
    }
    words = ["sora-spec", "plan", path, *asked.arguments]
    for option, value in said.items():
        words += [option, *([] if value is True else [str(value)])] if value else []
    return shlex.join(words)


def _job(spec: Spec, question: Question, typed: frozenset[str]) -> Job:
    """The job, without the settings that its mode ignores: they would only make the same plan twice."""
    device = asked_device(spec, question.gpu, question.hardware or None, typed)
    return planned_job(spec, device, effective(question), typed)


def effective(question: Question) -> Question:
    """Without the settings that its mode ignores."""
    if question.mode == "generate":
        return replace(question, stage="denoiser")
    way = replace(question, placement="resident", batch=None)
    return replace(way, temporal_attention=None, rms_norm=None) if way.stage == "vae" else way


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


def snapshot_values(path: str, question: Question) -> dict[str, Any]:
    """One spec's answer for scripts: its standing, the same plan as `plan --json`, and what is wrong with it."""
    from sora_spec.language.packaged import find_spec_file
    from sora_spec.language.report import diagnostic_values
    from sora_spec.language.source import load_document

    answer = plan_of(load_document(find_spec_file(path)), question)
    return {
        "spec": path,
        "standing": answer.standing,
        "command": command_line(path, question),
        "plan": answer_values(answer),
        "problem": answer.problem or None,
        "diagnostics": [diagnostic_values(item) for item in answer.diagnostics],
    }


def written_values(answer: Answer) -> tuple[tuple[str, str], ...]:
    """What a question says that the language can hold: the values that a spec with the same answer would have."""
    question, found = answer.question, dict(answer.question.overrides)
    if question.gpu:
        found["hardware.gpu"] = question.gpu
    if question.count is not None:
        found["hardware.count"] = str(question.count)
    if answer.plan is not None and answer.spec is not None and question.mode == "train":
        before, after = answer.spec.parallel, answer.plan.job.spec.parallel
        for side in ("shard", "sequence", "replicate"):
            if getattr(before, side) != getattr(after, side):
                found[f"parallel.{side}"] = str(getattr(after, side))
        micro = answer.plan.job.spec.train.micro_batch
        if micro != answer.spec.train.micro_batch and micro is not None:
            found["train.micro_batch"] = str(micro)
    return tuple(found.items())


def after_writing(question: Question) -> Question:
    """What remains to be asked once `written_values` stand in the spec."""
    return replace(question, gpu="", count=None, overrides=())
