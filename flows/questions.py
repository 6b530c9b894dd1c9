"""What the flows share before any model is loaded: questions, evaluation sets, the gate."""

from dataclasses import dataclass

from advdistill_core.config import DistillConfig
from advdistill_core.store import ArtifactRef
from flows.recorder import RunRecorder
from tasks.evaluate import evaluate
from tasks.gate import gate_prompts, gate_responses
from tasks.load import load
from tasks.questions import questions


@dataclass(frozen=True)
class Questions:
    """The questions of a run.

    Args:
        loaded: as their source gave them.
        prompts: as the gate passed them on.
        sets: the further evaluation sets by name.
    """

    loaded: ArtifactRef
    prompts: ArtifactRef
    sets: dict[str, ArtifactRef]

    def gate(
        self, run: RunRecorder, responses: ArtifactRef, config: DistillConfig | None = None
    ) -> ArtifactRef:
        """The responses as the gate passes them on."""
        return run.step(
            gate_responses, self.prompts, responses, self.sets, label="gate responses", config=config
        )

    def measure(
        self,
        run: RunRecorder,
        model: str,
        student: ArtifactRef | None = None,
        label: str = "evaluate",
        config: DistillConfig | None = None,
    ) -> dict[str, ArtifactRef]:
        """A model's scores on every set, by `SET` and, where sampled too, `SET/samples`."""
        chosen = config or run.config
        found = {}
        for name, asked in {"heldout": self.prompts, **self.sets}.items():
            for more in (False, True) if chosen.evaluation.more_samples else (False,):
                given = {} if name == "heldout" else {"set": name}
                given |= {"sampling": "samples"} if more else {}
                place = " ".join([label, *given.values()])
                key = f"{name}/samples" if more else name
                found[key] = run.step(
                    evaluate, asked, student, model=model, label=place, config=config, **given
                )
        return found


def load_questions(run: RunRecorder) -> Questions:
    """Load the questions and every evaluation set, and let the gate look at the prompts."""
    loaded = run.step(load)
    sets = {
        chosen.name: run.step(questions, set=chosen.name, label=f"questions {chosen.name}")
        for chosen in run.config.evaluation.sets
    }
    prompts = run.step(gate_prompts, loaded, sets, label="gate prompts")
    return Questions(loaded, prompts, sets)
