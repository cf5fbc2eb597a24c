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
from sora_spec.plan.axes.axis import Change
from sora_spec.plan.job import Job, Question, planned_job
from sora_spec.plan.layout import asked_device, checked_for
from sora_spec.plan.planner import Plan, make_plan
from sora_spec.plan.search.advised import NO_ADVICE, Advice, Advised
from sora_spec.plan.search.fastest import find_fastest
from sora_spec.plan.search.fixes import find_fixes
from sora_spec.plan.search.solve import solve
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
        """`yes`, `tight`, `no`, `cannot` where no machine would do, or `errors` where there is no plan."""
        return "errors" if self.plan is None else self.plan.standing

    @property
    def job(self) -> Job | None:
        return None if self.plan is None else self.plan.job


def plan_of(document: Document, question: Question, strict: bool = False) -> Answer:
    """The plan of a spec under a question. `document` is read without overrides and stays as it is. If `strict`,
    settings that the mode ignores are not passed over but refused.
    """
    laid = laid_over(document, question.arguments)
    checked, typed = checked_for(laid, question.count, bool(question.gpu or question.hardware))
    diagnostics = tuple(checked.diagnostics)
    if not checked.ok:
        return Answer(question, laid, diagnostics)
    spec = _once(document, question.arguments, checked.spec)
    try:
        device = asked_device(spec, question.gpu, question.hardware or None, typed)
        plan = make_plan(planned_job(spec, device, question if strict else question.effective, typed))
    except UserError as error:
        return Answer(question, laid, diagnostics, spec, None, error.message, error.hint or "")
    return Answer(question, laid, diagnostics, spec, plan)


def planned(document: Document, question: Question) -> tuple[Plan, Spec, Document]:
    """The plan, the spec as written, and the document with the question's overrides.

    Raises:
        SpecErrors, UserError: there is no plan.
    """
    from sora_spec.language.spec_errors import SpecErrors

    answer = plan_of(document, question, strict=True)
    if answer.spec is None:
        raise SpecErrors(answer.diagnostics)
    if answer.plan is None:
        raise UserError(answer.problem, answer.hint or None)
    return answer.plan, answer.spec, answer.document


def advise(plan: Plan | None, spec: Spec | None = None) -> Advice:
    """Fixes of a plan that does not fit, or the largest batch and the fastest setting of one that does."""
    if plan is None:
        return NO_ADVICE
    if plan.fits:
        return Advice((), solve(plan.job, "batch", spec), find_fastest(plan.job, spec))
    return Advice(tuple(find_fixes(plan.job, spec)))


def answer_values(answer: Answer, advice: Advice | None = None) -> dict[str, Any] | None:
    """What `sora-spec plan --json` prints for the same question; None where there is no plan."""
    if answer.plan is None:
        return None
    return plan_values(answer.plan, advice or advise(answer.plan, answer.spec), answer.document)


def with_advice(question: Question, advised: Advised, plan: Plan) -> Question:
    """The question whose answer is what was advised about `plan`."""
    for override in advised.overrides:
        path, _, value = override.partition("=")
        question = question.having(path, value)
    before, after = plan.job, advised.plan.job
    names = ("count", "batch", "placement")
    options = {name: getattr(after, name) for name in names if getattr(after, name) != getattr(before, name)}
    return Change(options=options).asked(question, before)


def command_line(path: str, question: Question) -> str:
    """The `sora-spec plan` line that prints the same numbers, quoted for a POSIX shell."""
    asked = question.effective
    return shlex.join(["sora-spec", "plan", path, *asked.arguments, *asked.options])


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
