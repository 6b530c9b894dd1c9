"""The stage `evaluate`: a model's answers to a set of questions, graded.

One artifact for each model, set and way of sampling, so that none is made twice.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from advdistill_core import models
from advdistill_core.config import DistillConfig
from advdistill_core.errors import ErrorRateError, InputError, StageError
from advdistill_core.evaluation import answers, statistics
from advdistill_core.progress import Event, Progress
from advdistill_core.rewards import UNDECIDED, Answer, Graded, Grader
from advdistill_core.rewards import stage as verify
from advdistill_core.store import Artifact, ArtifactWriter, fingerprint, tables
from advdistill_core.teachers import response_seed

#: The set of questions kept back from training.
HELDOUT = "heldout"
#: Models that are an artifact; the others are named by the configuration.
TRAINED = ("student_after", "champion")
_COLUMNS = ["prompt_id", "task", "messages", "reference_answer", "choices", "source"]

Row = dict[str, Any]


def identity(config: DistillConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """Scores also depend on the model's weights and on what decides a verdict.

    The weights of the rubric and the list of sets are left out: changing them must not
    evaluate again. The questions are an input.

    Raises:
        InputError: the teacher is to be evaluated, but is no model that can be loaded here.
    """
    _check(config, params)
    rewards = config.rewards.identity()
    found = {name: rewards[name] for name in ("policy", "timeout_s", "memory_bytes")}
    found |= verify.identity(config, params)
    found["evaluation"] = config.evaluation.sampling(_samples(params))
    if params["model"] not in TRAINED:  # those are an input, known by their content
        found["model_identity"] = models.identity(_settings(config, params["model"]).model)
    if params["model"] == "student_before":
        found["keep_layers"] = config.student.keep_layers
    return found


def _check(config: DistillConfig, params: Mapping[str, Any]) -> None:
    """Refuse a teacher that is not in process, before anything is loaded."""
    if params["model"] == "teacher" and config.teacher.backend != "transformers":
        raise InputError(
            "teacher.backend",
            config.teacher.backend,
            "transformers, to evaluate the teacher",
            "Evaluate student_before or student_after, or set teacher.backend and teacher.model to a "
            "model that can be loaded here.",
        )


def run(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    out: ArtifactWriter,
    progress: Progress,
) -> None:
    """Ask a model every question of a set and grade its answers.

    Args:
        params: `model` is `student_before` (as training starts from it, `student.keep_layers`
            applied), `student_after` or `champion` (the input `student`) or `teacher`; `set`
            is the name of the set (the held-out questions without one); `sampling` is
            `samples` for the further samples in place of the ordinary ones.

    Raises:
        ErrorRateError: more answers than `rewards.max_error_frac` ended in timeout or error.
            They are kept; the next attempt only grades those again.
        InputError: the teacher is to be evaluated, but is no model that can be loaded here.
        StageError: a trained student is to be evaluated and there is none.
    """
    _check(config, params)
    questions = [
        row for part in inputs["prompts"].tables("heldout") for row in part.select(_COLUMNS).to_pylist()
    ]
    with Grader(config.rewards) as grader:
        references = {q["prompt_id"]: _answer(q, "", False) for q in questions}
        ungradable = frozenset(grader.check_references(references))
        work = _Evaluation(config, inputs, params, grader, ungradable, out, progress, questions)
        out.write_tables(work.shards())
    out.note(tokens={"generated": work.tokens}, metrics=work.metrics())
    work.check_error_rate()


def _samples(params: Mapping[str, Any]) -> bool:
    return params.get("sampling") == "samples"


def _settings(config: DistillConfig, model: str) -> Any:
    """The section that names the model and says whether its code may run."""
    return config.teacher if model == "teacher" else config.student


def _answer(question: Row, text: str, truncated: bool) -> Answer:
    return Answer(
        question["task"],
        question["reference_answer"],
        text,
        truncated,
        tuple(question["choices"]),
        question["source"],
    )


class _Evaluation:
    """One pass over the questions; the model is loaded when the first answer is missing."""

    def __init__(
        self,
        config: DistillConfig,
        inputs: Mapping[str, Artifact],
        params: Mapping[str, Any],
        grader: Grader,
        ungradable: frozenset[str],
        out: ArtifactWriter,
        progress: Progress,
        questions: Sequence[Row],
    ) -> None:
        self.config, self.model, self.student = config, params["model"], inputs.get("student")
        self.set = params.get("set", HELDOUT)
        self.sampling = config.evaluation.for_samples() if _samples(params) else config.evaluation
        self.grader, self.ungradable, self.out, self.progress = grader, ungradable, out, progress
        self.questions = questions
        self.rows: list[Row] = []
        self.tokens = 0
        self._loaded: tuple[Any, Any] | None = None

    def shards(self) -> Iterator[pa.Table]:
        size = self.sampling.shard_size
        for start in range(0, len(self.questions), size):
            questions = self.questions[start : start + size]
            table = self._shard(questions)
            kept = table.select(["question_id", "verdict", "num_tokens", "finish_reason", "extracted"])
            self.rows += kept.to_pylist()
            self.tokens = sum(row["num_tokens"] for row in self.rows)
            self._tell(0)
            yield table

    def _shard(self, questions: Sequence[Row]) -> pa.Table:
        """A shard as an earlier attempt left it, what it could not grade tried again, or new."""
        # Named by its questions: another shard size must not take it for its own.
        key = "shard-" + fingerprint("shard", "1", {"ids": [q["prompt_id"] for q in questions]}, {})
        kept = self.out.read_shard(key)
        by_id = {q["prompt_id"]: q for q in questions}
        rows: list[Row] = kept.to_pylist() if kept is not None else self._generate(questions)
        again = [r for r in rows if r["verdict"] in UNDECIDED and self._is_gradable(r)]
        if kept is not None and not again:
            return kept
        asked = [_answer(by_id[r["question_id"]], r["text"], r["finish_reason"] == "length") for r in again]
        for row, graded in zip(again, self.grader.grade(asked), strict=True):
            row["verdict"], row["extracted"] = graded.verdict, _encodable(graded)
        table = tables.from_rows(rows, tables.SCORES)
        self.out.write_shard(key, table)
        return table

    def _is_gradable(self, row: Row) -> bool:
        return row["question_id"] not in self.ungradable and row["finish_reason"] != "error"

    def _generate(self, questions: Sequence[Row]) -> list[Row]:
        """Rows in the order of questions and samples, none graded yet."""
        from advdistill_core.models.chat import render
        from advdistill_core.teachers.local import sample

        model, tokenizer = self._load()
        sampling = self.sampling
        seeds = [
            [response_seed(sampling.seed, q["prompt_id"], s) for s in range(sampling.num_samples)]
            for q in questions
        ]
        responses = sample(
            model,
            tokenizer,
            [render(tokenizer, q["messages"]) for q in questions],
            seeds=seeds,
            k=sampling.num_samples,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_new_tokens=sampling.max_new_tokens,
            batch_size=sampling.batch_size,
            on_progress=self._tell,
        )
        return [
            {
                "set": self.set,
                "question_id": questions[r.index]["prompt_id"],
                "model": self.model,
                "sample_id": r.sample_id,
                "text": r.text,
                "verdict": "error",  # until it is graded
                "num_tokens": r.num_tokens,
                "finish_reason": r.finish_reason,
                "extracted": None,
            }
            for r in sorted(responses, key=lambda r: (r.index, r.sample_id))
        ]

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            settings, sampling = _settings(self.config, self.model), self.sampling
            name = settings.model
            if self.model in TRAINED:
                if self.student is None:
                    raise StageError(f"stage evaluate: got no {self.model}, expected one. Train it first.")
                name = str(self.student.local_path())
            trust = settings.trust_remote_code
            model = models.load_model(name, sampling.dtype, sampling.device, trust)
            if self.model == "student_before" and self.config.student.keep_layers:
                from advdistill_core.models.layers import keep_layers

                keep_layers(model, self.config.student.keep_layers)
            self._loaded = model, models.load_tokenizer(name, trust)
        return self._loaded

    def _tell(self, new_tokens: int) -> None:
        correct = sum(row["verdict"] == "correct" for row in self.rows)
        self.progress(
            Event(
                stage="evaluate",
                done=len(self.rows),
                total=len(self.questions) * self.sampling.num_samples,
                unit="responses",
                tokens=self.tokens + new_tokens,
                figures={"accuracy": correct / len(self.rows)} if self.rows else {},
                message=self.model.replace("_", " "),
            )
        )

    def metrics(self) -> dict[str, Any]:
        """Accuracy with its interval, over gradable answers; counts of everything."""
        answers_Q = answers.by_question(self.rows)
        found = statistics.accuracy(answers.matrix(answers_Q.values()), confidence=self.sampling.confidence)
        return {
            **answers.estimate(found),
            **answers.at_k(answers_Q.values()),
            "verdicts": dict(sorted(Counter(row["verdict"] for row in self.rows).items())),
            "truncated": sum(row["finish_reason"] == "length" for row in self.rows),
            "ungradable_questions": sorted(self.ungradable),
            "failed_responses": sum(row["finish_reason"] == "error" for row in self.rows),
            "error_frac": self.error_frac(),
        }

    def error_frac(self) -> float:
        """Share of what was to be graded about which nothing is known.

        Neither answers to ungradable questions nor refused requests were to be graded.
        """
        gradable = [row for row in self.rows if self._is_gradable(row)]
        return sum(row["verdict"] in UNDECIDED for row in gradable) / max(1, len(gradable))

    def check_error_rate(self) -> None:
        most = self.config.rewards.max_error_frac
        if self.error_frac() > most:
            raise ErrorRateError(
                f"stage evaluate: got {self.error_frac():.2%} of the answers in timeout or error, expected "
                f"at most {most:.2%} (rewards.max_error_frac). Run again when the machine is less busy: only "
                "those answers are graded again. Or raise rewards.timeout_s: all are evaluated again."
            )


def _encodable(graded: Graded) -> str | None:
    return None if graded.extracted is None else graded.extracted.encode(errors="replace").decode()
