"""What the flows share: questions, evaluation sets, the gate, measuring a model on every set."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from advdistill_core.config import DistillConfig
from advdistill_core.store import ArtifactRef
from flows.recorder import RunRecorder
from tasks.evaluate import evaluate
from tasks.gate import gate_prompts, gate_responses
from tasks.harness import harness
from tasks.likelihood import likelihood
from tasks.load import load
from tasks.questions import questions


@dataclass(frozen=True)
class Questions:
    """The questions of a run.

    Args:
        prompts: as the gate passed them on.
        loaded: as their source gave them, where that is known.
        sets: the further evaluation sets by name.
    """

    prompts: ArtifactRef
    loaded: ArtifactRef | None = None
    sets: dict[str, ArtifactRef] = field(default_factory=dict)

    def gate(
        self, run: RunRecorder, responses: ArtifactRef, config: DistillConfig | None = None, label: str = ""
    ) -> ArtifactRef:
        """The responses as the gate passes them on."""
        return run.step(
            gate_responses,
            self.prompts,
            responses,
            self.sets,
            label=f"gate responses{label}",
            config=config,
        )

    def measure(
        self,
        run: RunRecorder,
        model: str,
        student: ArtifactRef | None = None,
        label: str = "evaluate",
        config: DistillConfig | None = None,
    ) -> dict[str, ArtifactRef]:
        """A model's scores by `SET` and, where every set is sampled too, `SET/samples`."""
        more = (config or run.config).evaluation.more_samples
        found = {}
        for name, asked in {"heldout": self.prompts, **self.sets}.items():
            for sampling in ("", "samples") if more else ("",):
                params = {"set": "" if name == "heldout" else name, "sampling": sampling}
                given = {key: value for key, value in params.items() if value}
                place = " ".join([label, *given.values()])
                ref = run.step(evaluate, asked, student, model=model, label=place, config=config, **given)
                found["/".join([name, *([sampling] if sampling else [])])] = ref
        return found


def measure_standard(
    run: RunRecorder, model: str, student: ArtifactRef | None, label: str
) -> dict[str, ArtifactRef]:
    """The scores of the standard tasks as the report takes them; none where none is chosen.

    A student that starts from some layers of a model is no folder before it is trained.
    """
    config = run.config
    if not config.evaluation.harness.tasks or (student is None and config.student.keep_layers):
        return {}
    ref = run.step(harness, student, model=model, label=f"{label} standard tasks")
    return {"after" if student else "before": ref}


def measure_likelihood(
    run: RunRecorder, tables: Sequence[ArtifactRef], model: str, student: ArtifactRef | None = None
) -> dict[str, ArtifactRef]:
    """The student's likelihood of right and wrong responses as the report takes it; none where not asked for.

    Args:
        tables: prompts, responses and rewards.
    """
    if not run.config.evaluation.likelihoods:
        return {}
    when = "after" if student else "before"
    return {when: run.step(likelihood, *tables, student, model=model, label=f"likelihood {when}")}


def load_questions(run: RunRecorder) -> Questions:
    """Load the questions and every evaluation set, and let the gate look at the prompts."""
    loaded = run.step(load)
    sets = {
        chosen.name: run.step(questions, set=chosen.name, label=f"questions {chosen.name}")
        for chosen in run.config.evaluation.sets
    }
    return gated(run, loaded, sets)


def gated(run: RunRecorder, loaded: ArtifactRef, sets: dict[str, ArtifactRef]) -> Questions:
    """Let the gate look at the training prompts of a table."""
    return Questions(run.step(gate_prompts, loaded, sets, label="gate prompts"), loaded, sets)
