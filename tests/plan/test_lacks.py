"""What this program cannot do is the first that a plan says, in every form."""

from __future__ import annotations

import json

from sora_spec.language.loading import load_spec
from sora_spec.plan import find_device, make_plan
from sora_spec.plan.job import Question, planned_job
from sora_spec.plan.question import question_from, snapshot_values
from sora_spec.plan.search.budget import Budget, best
from sora_spec.plan.search.sweep import Row
from tests.plan.test_plan_command import SCHEMA, _problems, _run

BARRED = ("parallel.sequence=2", "--count", "2", "--gpu", "h100")
WHY = "2 ranks cannot share the tokens of one clip yet"


def test_the_report_begins_with_it() -> None:
    done = _run("plan", "tiny-latte", *BARRED)
    lines = done.stdout.splitlines()
    assert lines[1].startswith("CANNOT BE TRAINED; it would fit: ")
    assert lines[2].strip() == f"{WHY} (parallel.sequence)"
    assert "parallel.sequence=1" in lines[3]
    assert max(map(len, lines)) <= 80
    assert "YES" not in done.stdout
    assert done.returncode == 0  # it is about memory


def test_the_verdict_alone_says_it() -> None:
    assert _run("plan", "tiny-latte", *BARRED, "--check").stdout.startswith("CANNOT BE TRAINED; it would fit: ")
    much = _run("plan", "latte", "--check", "--stage", "vae", "vae.training.perceptual={kind: lpips, weights: w}",
                "vae.training.crop=8").stdout  # fmt: skip
    assert much.startswith("CANNOT HAVE ITS VAE TRAINED; ")


def test_json_names_the_value_and_its_line() -> None:
    found = json.loads(_run("plan", "tiny-latte", *BARRED, "--json").stdout)
    assert _problems(found, SCHEMA) == []
    assert found["verdict"] == "yes"
    help = "set parallel.sequence=1, and use parallel.shard or parallel.replicate"
    assert found["lacks"] == [{"path": "parallel.sequence", "line": None, "why": WHY, "help": help}]
    assert json.loads(_run("plan", "tiny-latte", "--gpu", "h100", "--json").stdout)["lacks"] == []


def test_a_job_on_other_ranks_or_for_another_verb_is_judged_as_it_will_run() -> None:
    spec, device = load_spec("tiny-latte", ["parallel.sequence=2"]), find_device("h100")
    lacks = [
        [lack.path for lack in make_plan(planned_job(spec, device, question)).lacks]
        for question in (Question(), Question(count=1), Question(mode="generate"))
    ]
    assert lacks == [["parallel.sequence"], [], []]


def test_snapshots_stand_as_what_cannot_be_done() -> None:
    values = snapshot_values("tiny-latte", question_from(["parallel.sequence=2"], gpu="h100", count=2))
    assert values["standing"] == "cannot"
    assert values["plan"]["fits"]
    assert [item["code"] for item in values["diagnostics"]] == ["W401"]


def test_the_best_row_of_a_sweep_is_one_that_can_be_done() -> None:
    device, rows = find_device("h100"), list[Row]()
    for sequence in (2, 1):
        spec = load_spec("tiny-latte", [f"parallel.sequence={sequence}"])
        plan = make_plan(planned_job(spec, device, Question(count=sequence)))
        rows.append(Row(device.name, sequence, (f"parallel.sequence={sequence}",), plan, ""))
    assert best(rows, Budget("hours", None)).place == 1
    assert best(rows[:1], Budget("hours", None)).place == 0  # the best there is
    table = _run("plan", "tiny-latte", "--sweep", *BARRED).stdout.splitlines()
    assert "cannot" in table[1]
