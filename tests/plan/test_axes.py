"""The one list of axes: a value means the same job to a search and to a question, and no axis is without its words."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from sora_spec.errors import UserError
from sora_spec.language.packaged import find_spec_file
from sora_spec.language.source import load_document
from sora_spec.plan.axes.all_axes import AXES, FIELDS
from sora_spec.plan.job import Question, Way
from sora_spec.plan.question import plan_of

JOBS: dict[str, tuple[str, Question]] = {
    "train": ("tiny-latte", Question("h100", 4)),
    "generate": ("tiny-latte", Question("h100", mode="generate")),
    "VAE": ("tiny-causal3d", Question("h100", 2, stage="vae")),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_change_means_the_same_job_to_a_search_and_to_a_question(name: str) -> None:
    spec, question = JOBS[name]
    document = load_document(find_spec_file(spec))
    job = plan_of(document, question).job
    assert job is not None
    turned = 0
    for axis in AXES.values():
        if axis.key == "job" or not axis.applies(job):
            continue
        for words, change in list(axis.settings(job).items())[:8]:
            asked = plan_of(document, change.asked(question, job)).job
            try:
                found = change.at(job)
            except UserError:
                assert asked is None, (axis.key, words)
                continue
            if asked is None:  # the language refuses it, at its line
                continue
            assert found.spec == asked.spec, (axis.key, words)
            assert (found.device, found.count, found.way) == (asked.device, asked.count, asked.way), (axis.key, words)
            turned += 1
    assert turned > 40


@pytest.mark.parametrize("name", JOBS)
def test_what_an_axis_offers_changes_the_job(name: str) -> None:
    spec, question = JOBS[name]
    job = plan_of(load_document(find_spec_file(spec)), question).job
    assert job is not None
    for axis in AXES.values():
        ease, found = axis.ease(job), list[Any]()
        for words, change in () if ease is None else ease.settings:
            found.append(change.at(job))
            assert words
            assert found[-1] != job, (axis.key, words)
        assert all(axis.free is not None or not axis.ladder for axis in AXES.values())
    assert {axis.key for axis in AXES.values() if axis.solved} == set(FIELDS)


def test_every_option_has_an_axis_that_turns_it() -> None:
    """So that none can be asked on the command line alone."""
    job = plan_of(load_document(find_spec_file("tiny-causal3d")), Question("h100", mode="generate")).job
    assert job is not None
    turned = {name for axis in AXES.values() for change in axis.settings(job).values() for name in change.options}
    assert turned >= {field.name for field in fields(Way)} - {"hardware"}
