"""The flow `redistill`: distil what is new, promote the student if it is better."""

import math
from typing import Any

import httpx
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from advdistill_core.config import DistillConfig, RedistillConfig
from advdistill_core.evaluation import answers
from advdistill_core.evaluation.statistics import paired_difference
from advdistill_core.prompts import sources
from advdistill_core.store import ArtifactRef, Store
from flows import promotion
from flows.cancelled import note_cancelled
from flows.precheck import precheck
from flows.promotion import Champion, Difference
from flows.questions import gated
from flows.recorder import FromStage, RunRecorder
from flows.run_name import named
from flows.train import make_student
from tasks.evaluate import evaluate
from tasks.load import load
from tasks.select import select

_NOTIFY_S = 10.0


class Approval(RunInput):
    """What a person answers before a promotion."""

    promote: bool = True
    reviewer: str = ""


@flow(
    name="redistill", flow_run_name=named("{config.name}-{policy.champion}"), on_cancellation=[note_cancelled]
)
def redistill(
    config: DistillConfig, policy: RedistillConfig, from_stage: FromStage = "first missing"
) -> dict[str, Any]:
    """Distil the questions that are new since the champion and let the better student stay.

    Args:
        config: as for `distill`, but all questions of a file or data set are read, however
            many `prompts.num_train` says; the held-out ones of a line never change.
        policy: what counts as new, and as better.
        from_stage: make this stage's result, and what follows, anew although it is there.
    """
    config = _whole_source(config)
    precheck(config)
    run = RunRecorder(config, from_stage)
    line = promotion.read_line(run.store, policy.champion)
    before = line.champion
    selection = run.step(select, run.step(load), before.selection if before else None)
    num_new = int(run.store.open(selection).manifest.metrics["num_new"])
    if num_new < policy.min_new_prompts or selection.content_hash == line.considered:
        return _end(
            run, policy, "nothing-new", f"{num_new} new prompts since the last decision; nothing to do."
        )

    asked = gated(run, selection, {})
    student = make_student(run, asked, _start(config, policy, before))
    old = _measure_old(run, selection, before)
    new = run.step(evaluate, selection, student, model="student_after", label="evaluate after")
    difference = compare(run.store, old, new, policy.confidence)
    verdict = judge(difference, policy.margin, student.content_hash in line.rejected)
    who = "advdistill"
    if verdict == "better" and policy.approval:
        who = _ask(policy, difference)
        verdict = "better" if who else "not-approved"
    if verdict != "better":
        promotion.refuse(run.store, policy.champion, student, selection)
        return _end(run, policy, "refused", f"{verdict}: {describe(difference)}", difference)
    made = Champion(
        student=student,
        selection=selection,
        difference=difference,
        run_id=run.record.run_id,
        by=who,
        refs=[old, new],
    )
    promotion.promote(run.store, policy.champion, made)
    return _end(run, policy, "promoted", f"promoted by {who}: {describe(difference)}", difference)


def _whole_source(config: DistillConfig) -> DistillConfig:
    """Ask for as many training questions as a source that may grow holds now."""
    if config.prompts.source == "reasoning_gym":
        return config
    distinct = len({question.normalised for question in sources.questions(config.prompts)})
    num_train = max(1, distinct - config.prompts.num_heldout)
    return config.model_copy(update={"prompts": config.prompts.model_copy(update={"num_train": num_train})})


def compare(store: Store, old: ArtifactRef, new: ArtifactRef, confidence: float) -> Difference:
    """New minus old on the same questions."""
    old_Q, new_Q = (answers.by_question(store.open(ref).table().to_pylist()) for ref in (old, new))
    found = paired_difference(
        answers.matrix(old_Q.values()),
        answers.matrix([new_Q[question] for question in old_Q]),
        confidence=confidence,
    )
    value = found.value if math.isfinite(found.value) else 0.0
    return Difference(value=value, low=found.low, high=found.high, num_questions=found.num_questions)


def judge(difference: Difference, margin: float, was_rejected: bool) -> str:
    """`better` if the whole interval lies above the margin; otherwise why not."""
    if was_rejected:
        return "rejected-before"
    return "better" if difference.num_questions and difference.low > margin else "not-better"


def describe(difference: Difference) -> str:
    """The difference in words."""
    d = difference
    return f"accuracy {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}] on {d.num_questions} questions"


def _start(config: DistillConfig, policy: RedistillConfig, before: Champion | None) -> DistillConfig:
    """The configuration with the model that training starts from."""
    if before is None or policy.start_from == "student":
        return config
    # Of a remote root the URI: whichever machine trains fetches a copy of its own.
    model = f"{Store(config.storage.root).files.uri}/{before.student.stage}/{before.student.fingerprint}"
    return config.model_copy(update={"student": config.student.model_copy(update={"model": model})})


def _measure_old(run: RunRecorder, selection: ArtifactRef, before: Champion | None) -> ArtifactRef:
    """Scores of the champion, or of the untrained student before there is one."""
    if before is None:
        return run.step(evaluate, selection, model="student_before", label="evaluate before")
    return run.step(evaluate, selection, before.student, model="student_after", label="evaluate before")


def _ask(policy: RedistillConfig, difference: Difference) -> str:
    """Pause until a person decides in the UI; their name, or nothing if they refuse."""
    form = Approval.with_initial_data(
        description=f"Promote the new student of **{policy.champion}**? {describe(difference)}.",
        promote=True,
        reviewer="",
    )
    answer = pause_flow_run(wait_for_input=form, timeout=policy.approval_timeout_s)
    return (answer.reviewer or "somebody") if answer.promote else ""


def _end(
    run: RunRecorder, policy: RedistillConfig, what: str, text: str, difference: Difference | None = None
) -> dict[str, Any]:
    """Say how it ended: in the log, as an artifact and as an event that automations can act on."""
    get_run_logger().info("Champion %s: %s", policy.champion, text)
    create_markdown_artifact(f"**{what}**: {text}", key="decision", description=f"Champion {policy.champion}")
    found = difference.model_dump() if difference else {}
    emit_event(
        f"advdistill.student.{what}",
        resource={"prefect.resource.id": f"advdistill.champion.{policy.champion}"},
        related=[
            {"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.role": "flow-run"}
        ],
        payload={"text": text, **found},
    )
    if policy.notify:
        notify(policy.notify, {"champion": policy.champion, "decision": what, "text": text, **found})
    return run.finish(metrics={"decision": what, "decision_text": text, **found})


def notify(address: str, message: dict[str, Any]) -> None:
    """POST a decision. It is made and kept whether anybody hears of it or not."""
    try:
        httpx.post(address, json=message, timeout=_NOTIFY_S).raise_for_status()
    except httpx.HTTPError as error:
        get_run_logger().warning("%s was not told: %s", address, error)
