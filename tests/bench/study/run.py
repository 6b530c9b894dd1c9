"""The study's runs: one file of results for every arm and seed, written as soon as it exists."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advdistill_core import compare, stages
from advdistill_core.compare.results import Outcome, outcome_of
from advdistill_core.config import DistillConfig
from advdistill_core.stages import run_stage
from advdistill_core.store import ArtifactRef, Store
from tests.bench.study.setting import Setting, configuration

SAMPLED_SET = "same"  # further samples are drawn for this set alone


@dataclass(frozen=True)
class Variant:
    """An arm of the product, run in a way that the study adds.

    Args:
        name: `ARM`, or `ARM@WAY` with one or more of `prompts`, `unpruned` and `lr-X`.
        arm: the product's arm.
        equal_tokens: `prompts` puts as many prompts into a step as the reference does, in place
            of as many tokens.
        unpruned: keeps every weight, as the default did before the study changed it.
        second_rate: learning rate of the second stage.
    """

    name: str
    arm: compare.Arm
    equal_tokens: bool = True
    unpruned: bool = False
    second_rate: float | None = None

    @property
    def title(self) -> str:
        """As in tables."""
        ways = [] if self.equal_tokens else ["equal prompts"]
        ways += ["every weight kept"] if self.unpruned else []
        ways += [] if self.second_rate is None else [f"learning rate {self.second_rate:g}"]
        return self.arm.title + (f" ({', '.join(ways)})" if ways else "")

    def configured(self, config: DistillConfig) -> DistillConfig:
        """The run's configuration as this has it."""
        config = compare.configured(config, self.arm)
        if self.unpruned:
            weighting = config.weighting.model_copy(update={"min_weight_frac": 0.0})
            config = config.model_copy(update={"weighting": weighting})
        if self.second_rate is not None:
            negatives = config.student.negatives.model_copy(update={"learning_rate": self.second_rate})
            student = config.student.model_copy(update={"negatives": negatives})
            config = config.model_copy(update={"student": student})
        return config


def variant(name: str) -> Variant:
    """What a name says."""
    arm, *ways = name.split("@")
    rates = [float(way.removeprefix("lr-")) for way in ways if way.startswith("lr-")]
    second_rate = rates[0] if rates else None
    return Variant(name, compare.find(arm), "prompts" not in ways, "unpruned" in ways, second_rate)


def run_all(folder: Path, setting: Setting, arms: Sequence[str], seeds: Sequence[int]) -> None:
    """Run what has no file of results yet, seed by seed.

    Args:
        arms: names as `Variant` explains them.
    """
    (folder / "results").mkdir(exist_ok=True)
    for seed in seeds:
        runner: Runner | None = None
        for name in arms:
            if result_file(folder, name, seed).exists():
                continue
            runner = runner or Runner(folder, setting, seed)
            began = time.process_time()
            result = runner.run(variant(name))
            result["cpu_s"] = round(time.process_time() - began, 1)
            _write(result_file(folder, name, seed), result)
            print(time.strftime("%H:%M:%S"), _line(result), flush=True)


def result_file(folder: Path, arm: str, seed: int) -> Path:
    return folder / "results" / f"{arm}-{seed}.json"


def _write(path: Path, result: dict[str, Any]) -> None:
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(result))
    partial.rename(path)


def _line(result: dict[str, Any]) -> str:
    shown = [f"{s['set']}/{s['sampling']} {s['accuracy']:.3f}" for s in result["sets"]]
    return (
        f"{result['arm']}-{result['seed']} {result['cpu_s']} s, {result['tokens']} tokens: {', '.join(shown)}"
    )


class Runner:
    """One seed: its prompts and responses, which all arms share."""

    def __init__(self, folder: Path, setting: Setting, seed: int) -> None:
        self.seed, self.config = seed, configuration(folder, setting, seed)
        self.store = Store(self.config.storage.root)
        self.prompts = self._stage(stages.LOAD, self.config, {})
        self.sets = {
            chosen.name: self._stage(stages.QUESTIONS, self.config, {}, {"set": chosen.name})
            for chosen in self.config.evaluation.sets
        }
        # What a step holds was settled while every weight was kept. It stays so, since arms that
        # were run then are compared with those that came later.
        _, responses, weights = self._weighed(variant("least-0").configured(self.config))
        load = compare.load_of(self.store.open(responses), self.store.open(weights))
        self.budget = compare.budget_of(self.config.student, load)

    def run(self, chosen: Variant) -> dict[str, Any]:
        """Train and measure one arm."""
        config, arm = chosen.configured(self.config), chosen.arm
        student, tokens = None, 0
        facts: dict[str, Any] = {}
        if arm.trained:
            rewards, responses, weights = self._weighed(config)
            opened = self.store.open(responses), self.store.open(weights)
            fields = compare.within(self.budget, compare.load_of(*opened)) if chosen.equal_tokens else {}
            section = config.student.model_copy(update=fields)
            config = config.model_copy(update={"student": section})
            inputs = {"prompts": self.prompts, "responses": responses, "weights": weights}
            inputs |= {} if config.student.negatives.kind == "off" else {"rewards": rewards}
            student = self._stage(stages.TRAIN, config, inputs)
            manifest = self.store.open(student).manifest
            tokens = manifest.tokens["completion"]
            verdicts = self.store.open(rewards).manifest.metrics["verdicts"]
            names = (
                *("mixed", "all_correct", "all_wrong", "dropped_groups", "effective_sample_size"),
                *("weight_on_correct_frac", "merged_responses", "trained_responses"),
            )
            facts = {n: opened[1].manifest.metrics[n] for n in names} | {"verdicts": verdicts, **fields}
            facts["loss_last"] = manifest.metrics.get("loss_last")
            facts["negatives"] = manifest.metrics.get("negatives")
        found = {"arm": chosen.name, "seed": self.seed, "tokens": tokens, "facts": facts}
        return found | {"sets": list(self._measured(arm, config, student))}

    def _weighed(self, config: DistillConfig) -> tuple[ArtifactRef, ArtifactRef, ArtifactRef]:
        responses = self._stage(stages.GENERATE, config, {"prompts": self.prompts})
        rewards = self._stage(stages.VERIFY, config, {"prompts": self.prompts, "responses": responses})
        weights = self._stage(stages.WEIGH, config, {"responses": responses, "rewards": rewards})
        return rewards, responses, weights

    def _measured(
        self, arm: compare.Arm, config: DistillConfig, student: ArtifactRef | None
    ) -> Iterator[dict[str, Any]]:
        for name, questions in self.sets.items():
            for sampling in ("greedy", "samples") if name == SAMPLED_SET else ("greedy",):
                inputs = {"prompts": questions} | ({"student": student} if student else {})
                params = {"model": arm.model, "set": name}
                params |= {"sampling": "samples"} if sampling == "samples" else {}
                ref = self._stage(stages.EVALUATE, config, inputs, params)
                rows = [row for part in self.store.open(ref).tables() for row in part.to_pylist()]
                found = outcome_of(arm.name, self.seed, name, sampling, rows)
                styles = _styles(rows) if sampling == "samples" or name == SAMPLED_SET else {}
                yield as_json(found) | {"styles": styles}

    def _stage(
        self,
        stage: stages.Stage,
        config: DistillConfig,
        inputs: dict[str, ArtifactRef],
        params: dict[str, Any] | None = None,
    ) -> ArtifactRef:
        return run_stage(stage, config, inputs, self.store, params)


def _styles(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Shares of the answers that show steps, and that are right among the bare ones and the others."""
    bare = [row["verdict"] == "correct" for row in rows if "=" not in row["text"]]
    worked = [row["verdict"] == "correct" for row in rows if "=" in row["text"]]
    return {
        "bare_frac": len(bare) / len(rows),
        "bare_correct": sum(bare) / max(1, len(bare)),
        "worked_correct": sum(worked) / max(1, len(worked)),
    }


def as_json(found: Outcome) -> dict[str, Any]:
    """An outcome as a JSON object; a letter per answer: 1 correct, 0 not, - unknown."""
    letters = ["".join("-" if x != x else str(int(x)) for x in row) for row in found.correct]
    return {
        "set": found.set,
        "sampling": found.sampling,
        "accuracy": sum(text.count("1") for text in letters) / max(1, sum(map(len, letters))),
        "correct": " ".join(letters),
        "unparsed": found.unparsed,
        "truncated": found.truncated,
        "num_answers": found.num_answers,
        "mean_tokens": round(found.mean_tokens, 2),
    }
