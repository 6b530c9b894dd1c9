"""The flow `compare`: methods side by side on the same responses, at equal steps and equal tokens."""

import json
from typing import Any

from prefect import Task, flow
from prefect.artifacts import create_table_artifact

from advdistill_core import compare as arms_of
from advdistill_core.compare import Arm, Budget
from advdistill_core.config import DistillConfig
from advdistill_core.errors import InputError
from advdistill_core.store import ArtifactRef
from flows.cancelled import note_cancelled
from flows.precheck import precheck
from flows.questions import Questions, load_questions
from flows.recorder import FromStage, RunRecorder
from flows.run_name import named
from tasks.compare import publish_comparison
from tasks.generate import generate
from tasks.train import rewards_for, train
from tasks.verify import verify
from tasks.weigh import weigh

REFERENCE = "advdistill"
#: Defaults of the form.
ARMS, SEEDS = list(arms_of.MAIN), [0, 1, 2]


@flow(name="compare", flow_run_name=named("{config.name}-compare"), on_cancellation=[note_cancelled])
def compare(
    config: DistillConfig,
    arms: list[str] = ARMS,
    seeds: list[int] = SEEDS,
    from_stage: FromStage = "first missing",
) -> dict[str, Any]:
    """Train every arm on the same cached responses with several seeds, and measure them alike.

    The configured arm, `advdistill`, sets the budget: its optimizer steps and its tokens.

    Args:
        config: as for `distill`; the arms change its weighting and a few other fields.
        arms: names of arms; `advdistill` is always among them.
        seeds: of the order of the training data.
        from_stage: make this stage's result, and what follows, anew although it is there.
    """
    chosen = [arms_of.find(name) for name in dict.fromkeys([REFERENCE, *arms])]
    if not seeds:
        raise InputError("seeds", seeds, "at least one seed")
    precheck(config)
    run = RunRecorder(config, from_stage)
    comparison = Comparison(run, load_questions(run))
    for arm in chosen:
        comparison.run(arm, seeds)
    report = run.step(
        publish_comparison,
        comparison.weights,
        comparison.students,
        comparison.scores,
        reference=REFERENCE,
        label="compare",
    )
    metrics = json.loads(run.store.open(report).file("comparison.json"))
    create_table_artifact(
        table=metrics["table"], key="comparison", description=f"Methods compared: {config.name}"
    )
    return run.finish(report, metrics)


class Comparison:
    """The arms of one run, and what they have left so far.

    Args:
        run: the recorder.
        questions: those of all arms.
    """

    def __init__(self, run: RunRecorder, questions: Questions) -> None:
        self.run_, self.questions = run, questions
        self.weights: dict[str, ArtifactRef] = {}
        self.students: dict[str, ArtifactRef] = {}
        self.scores: dict[str, ArtifactRef] = {}
        self._budget: Budget | None = None
        self._made: dict[str, ArtifactRef] = {}

    def run(self, arm: Arm, seeds: list[int]) -> None:
        """Train and measure an arm with every seed; a model that no seed changes only once."""
        config = arms_of.configured(self.run_.config, arm)
        if not arm.trained:
            self._measure(arm, config, None, "any")
            return
        responses, weights, rewards = self._weighed(arm, config)
        self.weights[arm.name] = weights
        store = self.run_.store
        load = arms_of.load_of(store.open(responses), store.open(weights))
        self._budget = self._budget or arms_of.budget_of(config.student, load)
        fields = arms_of.within(self._budget, load)
        for seed in seeds:
            section = config.student.model_copy(update={**fields, "seed": seed})
            own = config.model_copy(update={"student": section})
            label = f"train {arm.name} {seed}"
            given = (self.questions.prompts, responses, weights, rewards_for(own, rewards))
            student = self.run_.step(train, *given, config=own, label=label)
            self.students[f"{arm.name}/{seed}"] = student
            self._measure(arm, own, student, str(seed))

    def _weighed(self, arm: Arm, config: DistillConfig) -> tuple[ArtifactRef, ArtifactRef, ArtifactRef]:
        """An arm's responses, weights and rewards; what it shares with other arms is made once."""
        prompts = self.questions.prompts
        of_responses = f" {arm.name}" if "teacher" in arm.changes else ""
        of_rewards = f" {arm.name}" if {"teacher", "rewards"} & {*arm.changes} else ""
        of_weights = f" {arm.name}" if {"teacher", "rewards", "weighting"} & {*arm.changes} else ""
        written = self._once(f"generate{of_responses}", generate, config, prompts)
        if f"gate{of_responses}" not in self._made:
            passed = self.questions.gate(self.run_, written, config, of_responses)
            self._made[f"gate{of_responses}"] = passed
        responses = self._made[f"gate{of_responses}"]
        rewards = self._once(f"verify{of_rewards}", verify, config, prompts, responses)
        weights = self._once(f"weigh{of_weights}", weigh, config, responses, rewards)
        return responses, weights, rewards

    def _once(
        self, label: str, task: Task[..., ArtifactRef], config: DistillConfig, *inputs: ArtifactRef
    ) -> ArtifactRef:
        if label not in self._made:
            self._made[label] = self.run_.step(task, *inputs, config=config, label=label)
        return self._made[label]

    def _measure(self, arm: Arm, config: DistillConfig, student: ArtifactRef | None, seed: str) -> None:
        label = f"evaluate {arm.name}" + (f" {seed}" if student else "")
        found = self.questions.measure(self.run_, arm.model, student, label, config)
        self.scores |= {f"{arm.name}/{seed}/{place}": ref for place, ref in found.items()}
